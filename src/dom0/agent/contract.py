"""How the root container is run: one value, as the Engine's create body and as the `docker run` a person would type.

A test compares what the Engine makes of both. Pure; what may differ from machine to machine does not belong here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dom0.names import ENGINE_SOCKET, IMAGE, ROOT, RUN, STATE
from dom0.plan.desired import Role
from dom0.plan.labels import AWAITS, PROJECT, ROLE

RESTART = "always"  # `unless-stopped` counts what a crashing Engine ends as stopped by a person, and leaves it down


class Contract(msgspec.Struct, frozen=True):
    """`paths` are the same inside and on the host; labels and the command come from the image."""

    paths: tuple[str, ...] = (ENGINE_SOCKET, STATE, RUN)

    def create_body(self, image: str) -> dict[str, Any]:
        return {
            "Image": image,
            "HostConfig": {
                "RestartPolicy": {"Name": RESTART},
                "Privileged": True,
                "NetworkMode": "host",
                "PidMode": "host",
                "Binds": [f"{path}:{path}" for path in self.paths],
            },
        }

    def awaiting_body(self) -> dict[str, Any]:
        """Of one that may not do anything yet: `dom0 up`, which has started it, is still reading the project."""
        return {**self.create_body(IMAGE), "Labels": {AWAITS: "up"}}

    def docker_run(self, image: str) -> list[str]:
        return [
            *("docker", "run", "--detach", "--name", ROOT, "--restart", RESTART),
            *("--privileged", "--network", "host", "--pid", "host"),
            *(word for path in self.paths for word in ("--volume", f"{path}:{path}")),
            image,
        ]


def helper_body(image: str) -> dict[str, Any]:
    """The container that puts a root container of `image` in the place of the present one.

    It needs the Engine and nothing else, and is started again until it has said how it ended. The empty label hides
    the one of the image: no agent takes the container for part of its project.
    """
    return {
        "Image": image,
        "Entrypoint": ["/usr/bin/dom0", "handover"],
        "Cmd": [image],
        "User": "0:0",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {ROLE: Role.HANDOVER.value, PROJECT: ""},
        "HostConfig": {
            "Binds": [f"{ENGINE_SOCKET}:{ENGINE_SOCKET}"],
            "NetworkMode": "none",
            "RestartPolicy": {"Name": "on-failure"},
        },
    }
