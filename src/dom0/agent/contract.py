"""How the root container is run: one value, as the Engine's create body and as the `docker run` a person would type.

A test compares what the Engine makes of both. Pure; what may differ from machine to machine does not belong here.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, RestartPolicy
from dom0.names import ENGINE_SOCKET, IMAGE, ROOT, RUN, STATE
from dom0.plan.desired import Role
from dom0.plan.labels import AWAITS, PROJECT, ROLE

RESTART = "always"  # `unless-stopped` counts what a crashing Engine ends as stopped by a person, and leaves it down


class Contract(msgspec.Struct, frozen=True):
    """`paths` are the same inside and on the host; labels and the command come from the image."""

    paths: tuple[str, ...] = (ENGINE_SOCKET, STATE, RUN)

    def create_body(self, image: str) -> ContainerBody:
        return ContainerBody(
            image=image,
            host_config=HostConfig(
                restart_policy=RestartPolicy(name=RESTART),
                privileged=True,
                network_mode="host",
                pid_mode="host",
                binds=tuple(f"{path}:{path}" for path in self.paths),
            ),
        )

    def awaiting_body(self) -> ContainerBody:
        """Of one that may not do anything yet: `dom0 up`, which has started it, is still reading the project."""
        return replace(self.create_body(IMAGE), labels={AWAITS: "up"})

    def docker_run(self, image: str) -> list[str]:
        return [
            *("docker", "run", "--detach", "--name", ROOT, "--restart", RESTART),
            *("--privileged", "--network", "host", "--pid", "host"),
            *(word for path in self.paths for word in ("--volume", f"{path}:{path}")),
            image,
        ]


def helper_body(image: str) -> ContainerBody:
    """The container that puts a root container of `image` in the place of the present one.

    It needs the Engine and nothing else, and is started again until it has said how it ended. The empty label hides
    the one of the image: no agent takes the container for part of its project.
    """
    return ContainerBody(
        image=image,
        entrypoint=("/usr/bin/dom0", "handover"),
        cmd=(image,),
        user="0:0",
        healthcheck=HealthConfig(test=("NONE",)),
        labels={ROLE: Role.HANDOVER.value, PROJECT: ""},
        host_config=HostConfig(
            binds=(f"{ENGINE_SOCKET}:{ENGINE_SOCKET}",),
            network_mode="none",
            restart_policy=RestartPolicy(name="on-failure"),
        ),
    )
