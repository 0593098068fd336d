"""What a project under `float/` is in Swarm mode, as a revision has it. No I/O.

References go by name: IDs are of one Swarm, and looked up where it is written. Images are called by a name of ours with
the digest of their config, under which each node has them before a task comes there.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

from dom0.engine.bodies import Body
from dom0.engine.swarm_bodies import FileKind, ServiceBody, SwarmNetworkBody

REGISTRY, REPOSITORY = "127.0.0.1:1", "dom0-float"
"""Swarm asks the registry of an image before each start, even where it has the image. Nothing answers at this port, at
once; then it takes what is there."""

FARM = "dom0.farm"  # labels: of the Swarm and all that is ours there, the farm's name
PROJECT = "dom0.float"
DIGEST = "dom0.float.digest"
NODE, ROLE = "dom0.node", "dom0.role"  # of a machine in the Swarm
IMAGE = "dom0.image."  # and each image that it has
SHARED = "dom0.float.shared"  # of a volume, in its project: several containers may write to it
STACK = "com.docker.stack.namespace"  # by which docker stack lists a project


class FloatFile(msgspec.Struct, frozen=True, kw_only=True):
    """A config or secret; what is in it is the blob with that digest. Its name ends in a mark of its content."""

    kind: FileKind
    digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    size: Annotated[int, Meta(ge=0)]  # bytes


class FloatProject(msgspec.Struct, frozen=True, kw_only=True):
    """`files` by the names that they have in the Swarm. `images`: of its services, as `image_name` calls them."""

    name: str
    networks: tuple[SwarmNetworkBody, ...] = ()
    files: dict[str, FloatFile] = {}
    services: tuple[ServiceBody, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(service.task_template.container_spec.image for service in self.services))


def image_name(config: str) -> str:
    """Of an image by the digest of its config."""
    return f"{REGISTRY}/{REPOSITORY}:{config.removeprefix('sha256:')}"


def image_label(name: str) -> str:
    """Of a machine that has the image with that name of ours."""
    return f"{IMAGE}{name.rpartition(':')[2][:32]}"


def digest_of_body(body: Body) -> str:
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()[:32]
