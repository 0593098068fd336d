"""What `expand` has to know besides the project: looked up by the caller before, so that expanding stays pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dom0.compose.model import Project
from dom0.engine.values import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    images: Mapping[str, Image]  # by reference as written, see `images_needed`; their IDs are pinned
    base: Image | None = None  # of the machine's own containers (sshd, home), None where there are none
    api_version: str = ""  # negotiated with the Engine, "" if unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNeed:
    service: str
    ref: str
    platform: str = ""
    pull_policy: str = ""
    built: bool = False  # made by `dom0 build`, cannot be pulled


def image_ref(project: Project, name: str) -> str:
    return project.services[name].image or f"{project.name}-{name}"


def images_needed(project: Project) -> tuple[ImageNeed, ...]:
    """The images that must be there before `expand`, one a service that has containers."""
    return tuple(
        ImageNeed(
            service=name,
            ref=image_ref(project, name),
            platform=service.platform,
            pull_policy=service.pull_policy,
            built=service.build is not None,
        )
        for name, service in project.services.items()
        if service.replicas > 0
    )
