"""How the root container is run: as the Engine's create body; docs/concepts has the `docker run` a person would type.

A test compares what the Engine makes of both. Pure; what may differ from machine to machine does not belong here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dom0.names import ENGINE_SOCKET, PROGRAM, RUN, STATE
from dom0.plan.labels import AWAITS, PROJECT, ROLE

if TYPE_CHECKING:
    from dom0.engine.bodies import ContainerBody

RESTART = "always"  # `unless-stopped` counts what a crashing Engine ends as stopped by a person, and leaves it down
PATHS = (ENGINE_SOCKET, STATE, RUN)  # the same inside and on the host


def root_document(image: str, *, awaits_up: bool = False) -> dict[str, Any]:
    """The body in JSON, for a command that has loaded no more yet. Labels and the command come from the image.

    `awaits_up`: its agent waits for a `dom0 up`.
    """
    return {
        "Image": image,
        "Labels": {AWAITS: "up"} if awaits_up else {},
        "HostConfig": {
            "RestartPolicy": {"Name": RESTART},
            "Privileged": True,
            "NetworkMode": "host",
            "PidMode": "host",
            "Binds": [f"{path}:{path}" for path in PATHS],
        },
    }


def root_body(image: str) -> ContainerBody:
    """The same for an Engine's client."""
    import msgspec

    from dom0.engine.bodies import ContainerBody

    return msgspec.convert(root_document(image), ContainerBody)


def helper_body(image: str) -> ContainerBody:
    """The container that puts a root container of `image` in the place of the present one.

    It needs the Engine and nothing else, and is started again until it has said how it ended. The empty label hides
    the one of the image: no agent takes the container for part of its project.
    """
    from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, RestartPolicy
    from dom0.plan.desired import Role

    return ContainerBody(
        image=image,
        entrypoint=(PROGRAM, "handover"),
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
