"""What `expand` has to know besides the project: looked up by the caller before, so that expanding stays pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dom0.compose.findings import Finding
from dom0.compose.model import Project
from dom0.engine.values import Image

# In the place of an image that is not here yet, and may have a health check or not.
NOWHERE = Image(id=f"sha256:{'0' * 64}", tags=(), has_healthcheck=True, healthcheck_test=("CMD", "true"))


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    images: Mapping[str, Image]  # by reference as written, see `images_needed`; their IDs are pinned
    base: Image | None = None  # of the machine's own containers (sshd, home), None where there are none
    api_version: str = ""  # negotiated with the Engine, "" if unknown
    scopes: str = "/dom0"  # the control group (`CgroupParent`) that those of scopes are below; "" inside a scope


class ImageNeed(msgspec.Struct, frozen=True, kw_only=True):
    where: str  # file, line and key of the service's image, for people
    ref: str
    platform: str = ""
    pull_policy: str = ""
    built: bool = False  # made by `dom0 build`, for this service or another one; cannot be pulled


def image_ref(project: Project, name: str) -> str:
    return project.services[name].image or f"{project.name}-{name}"


def images_needed(project: Project) -> tuple[ImageNeed, ...]:
    """The images that must be there before `expand`, one a service that has containers."""
    built = {image_ref(project, name) for name, service in project.services.items() if service.build is not None}
    return tuple(
        ImageNeed(
            where=project.locations.name(Finding(("services", name, "image"), "")),
            ref=image_ref(project, name),
            platform=service.platform,
            pull_policy=service.pull_policy,
            built=image_ref(project, name) in built,
        )
        for name, service in project.services.items()
        if service.replicas > 0
    )
