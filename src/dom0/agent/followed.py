"""Sources that an ambassador cannot find by itself → addresses of containers. Pure.

A container counts while it runs, is healthy or has no health check, and has an address on a network that it shares
with the ambassador. The agent's own gate counts as much as the Engine's first look, which may come much later. One that
is about to be stopped does not count any more, so that nobody connects to it while it ends. Which container it is is
told with its address: the same one may belong to somebody else tomorrow.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping

import msgspec

from dom0.agent.readiness import ReadyStarts
from dom0.ambassador import sources
from dom0.ambassador.sources import Followed
from dom0.engine.values import Container, ContainerSummary, Endpoint, Health, PublishedPort, State
from dom0.plan import labels


class Located(msgspec.Struct, frozen=True):
    """By key, `service:NAME`. A key without an address has no container now: whoever is told keeps the last ones."""

    addresses: dict[str, tuple[str, ...]] = {}
    identities: dict[str, str] = {}  # container ID, where it is only one
    awaited: tuple[str, ...] = ()  # those without an address of which one is leaving, and comes back


def wanted(texts: Iterable[str]) -> tuple[Followed, ...]:
    """The sources among `texts` that an ambassador cannot find by itself."""
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):  # the ambassador refuses it, and says why
            found.append(sources.parse(text, portless=True))
    return tuple(dict.fromkeys(source for source in found if isinstance(source, Followed)))


def concerns(source: Followed, row: ContainerSummary | Container, project: str) -> bool:
    """`service` is of the project; `container` and `label` may be anybody's, whose address alone is used. No container
    here is on another node.
    """
    match source.kind:
        case "node" | "plaintext:node":
            return False
        case "container":
            return row.name == source.name
        case "service":
            return row.labels.get(labels.PROJECT) == project and row.labels.get(labels.SERVICE) == source.name
        case "label":
            key, equals, value = source.name.partition("=")
            return key in row.labels and (not equals or row.labels[key] == value)


def find(
    followed: Collection[Followed],
    ambassador: Container,
    containers: Collection[Container],
    ready: ReadyStarts,
    leaving: Mapping[str, bool] = {},
) -> Located:
    """`leaving`: IDs of those that are being stopped -> whether it, or another one in its place, comes back."""
    addresses: dict[str, tuple[str, ...]] = {}
    identities: dict[str, str] = {}
    awaited: list[str] = []
    for source in followed:
        meant = [it for it in containers if it.id != ambassador.id and concerns(source, it, ready.project)]
        usable = {
            container.id: reached
            for container in meant
            if is_ready(container, ready) and container.id not in leaving
            # On the first network that both have: one for each family at most.
            if (reached := next((it.addresses for it in shared(container, ambassador) if it.addresses), ()))
        }
        addresses[source.key] = tuple(sorted({address for reached in usable.values() for address in reached}))
        if len(usable) == 1:
            identities[source.key] = next(iter(usable))
        if not usable and any(leaving.get(container.id) for container in meant):
            awaited.append(source.key)
    return Located(addresses, identities, tuple(awaited))


def is_ready(container: Container, ready: ReadyStarts) -> bool:
    is_gated = container.health is Health.STARTING and ready.gated.get(container.id) == container.started
    return (
        container.state is State.RUNNING
        and container.started > ready.ending.get(container.id, -math.inf)
        and (container.health in (Health.NONE, Health.HEALTHY) or is_gated)
        and ready.post_started.get(container.id, container.started) == container.started
    )


def find_published(
    service: Followed, containers: Collection[Container], ready: ReadyStarts
) -> tuple[PublishedPort, ...] | None:
    """The host's ports that lead there, by TCP; None where none of its containers is ready."""
    meant = [it for it in containers if concerns(service, it, ready.project) and is_ready(it, ready)]
    ports = {port for container in meant for port in container.published.get(f"{service.port}/tcp", ())}
    return tuple(sorted(ports)) if meant else None


def find_behind(
    service: Followed, containers: Collection[Container], ready: ReadyStarts
) -> tuple[tuple[int, str, int], ...]:
    """The same ports, once each, with the address by IPv4 and the port of the container behind."""
    found: dict[int, tuple[str, int]] = {}
    for container in containers:
        if concerns(service, container, ready.project) and is_ready(container, ready):
            addresses = (it for endpoint in container.endpoints for it in endpoint.addresses if ":" not in it)
            if address := next(addresses, ""):
                for port in container.published.get(f"{service.port}/tcp", ()):
                    found.setdefault(port.port, (address, service.port))
    return tuple((port, *behind) for port, behind in sorted(found.items()))


def shared(container: Container, other: Container) -> tuple[Endpoint, ...]:
    """The attachments of `container` to networks that `other` has too."""
    theirs = {endpoint.network_id for endpoint in other.endpoints if endpoint.network_id}
    return tuple(endpoint for endpoint in container.endpoints if endpoint.network_id in theirs)
