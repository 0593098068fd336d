"""Which containers are meant by the names of services. Asks the Engine, decides by labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

import msgspec

from dom0.errors import UsageError
from dom0.plan import labels
from dom0.run import become

if TYPE_CHECKING:
    from dom0.cli.engine_client import ListedContainer
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Container, ContainerSummary

ROOT = "dom0"  # name of the root container, by its run contract; stands for it among services
Listed = TypeVar("Listed", "ContainerSummary", "Container", "ListedContainer")


async def find_containers(
    engine: Engine, services: Sequence[str], *, missing_is_error: bool = True
) -> list[ContainerSummary]:
    """The containers of `services`, of all services of the machine if none is named. Raises UsageError."""
    ours = [*await engine.containers(labels=[labels.PROJECT])]
    projects = {container.labels[labels.PROJECT] for container in ours}
    ours += taken_over(await engine.containers(labels=[labels.COMPOSE_SERVICE]), projects)
    by_service: dict[str, list[ContainerSummary]] = {}
    for container in sorted(ours, key=lambda one: (one.labels.get(labels.SERVICE, ""), one.name)):
        by_service.setdefault(_service(container), []).append(container)
    unknown = [service for service in services if service not in by_service]
    if unknown and missing_is_error:
        there = ", ".join(sorted(filter(None, by_service))) or "none"
        raise UsageError(f"{unknown[0]}: has no container here", hint=f"services that have: {there}")
    names = services or [name for name in by_service if name not in ("", ROOT)]
    return [container for name in names for container in by_service.get(name, ())]


def list_containers() -> list[ListedContainer]:
    """As `find_containers` of all services. Raises EngineError."""
    from dom0.cli import engine_client

    ours = engine_client.containers(labels.PROJECT)
    projects = {container.labels[labels.PROJECT] for container in ours}
    return [*ours, *taken_over(engine_client.containers(labels.COMPOSE_SERVICE), projects)]


def taken_over(by_compose: Iterable[Listed], projects: Collection[str]) -> Iterator[Listed]:
    """What Docker Compose made for the machine's `projects`, with the labels of ours that it never gets."""
    for container in by_compose:
        theirs = container.labels
        project = theirs.get(labels.COMPOSE_PROJECT, "")
        if labels.PROJECT not in theirs and project in projects and theirs.get(labels.COMPOSE_ONEOFF) != "True":
            yield msgspec.structs.replace(container, labels={**theirs, **_own_labels(project, theirs)})


def _own_labels(project: str, theirs: Mapping[str, str]) -> dict[str, str]:
    return {
        labels.PROJECT: project,
        labels.ROLE: "service",
        labels.SERVICE: theirs[labels.COMPOSE_SERVICE],
        labels.NUMBER: theirs.get(labels.COMPOSE_NUMBER, "1"),
    }


def _service(container: ContainerSummary) -> str:
    """The service of a container, `dom0` for the root container, empty for what only has labels of our image."""
    if container.labels.get(labels.ROLE) == "root" and container.name == ROOT:
        return ROOT
    return container.labels.get(labels.SERVICE, "")


def become_docker(verb: str, services: Sequence[str]) -> NoReturn:
    """`docker VERB` of all containers of the services. Raises UsageError."""
    by_service: dict[str, list[str]] = {}
    for container in list_containers():
        if name := container.labels.get(labels.SERVICE):
            by_service.setdefault(name, []).append(container.names[0].removeprefix("/"))
    for service in services:
        if service not in by_service:
            there = ", ".join(sorted(by_service)) or "none; dom0 up makes them"
            raise UsageError(f"{service}: no container of such a service", hint=f"services: {there}")
    become(["docker", verb, *sorted(name for service in services for name in by_service[service])])
