"""Sources that an ambassador cannot find by itself → addresses of containers. Pure.

A container counts while it runs, is healthy or has no health check, and has an address on a network that it shares
with the ambassador. The agent's own gate counts as much as the Engine's first look, which may come much later. Which
container it is is told with its address: the same one may belong to somebody else tomorrow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping

import msgspec

from dom0.ambassador import sources
from dom0.ambassador.sources import Followed
from dom0.engine.values import Container, ContainerSummary, Endpoint, Health, State
from dom0.plan import labels


class Located(msgspec.Struct, frozen=True):
    """By key, `service:NAME`. A key without an address has no container now: whoever is told keeps the last ones."""

    addresses: dict[str, tuple[str, ...]] = {}
    identities: dict[str, str] = {}  # container ID, where it is only one


def wanted(texts: Iterable[str]) -> tuple[Followed, ...]:
    """The sources among `texts` that an ambassador cannot find by itself."""
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):  # the ambassador refuses it, and says why
            found.append(sources.parse(text, portless=True))
    return tuple(dict.fromkeys(source for source in found if isinstance(source, Followed)))


def concerns(source: Followed, row: ContainerSummary | Container, project: str) -> bool:
    """`service` is of the project; `container` and `label` may be anybody's, whose address alone is used."""
    match source.kind:
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
    project: str,
    gated: Mapping[str, float] = {},
    post_started: Mapping[str, float] = {},
) -> Located:
    """By container ID, `gated`: the start for which its health gate has passed; `post_started`, of those that have
    hooks: the start for which they have succeeded.
    """
    addresses: dict[str, tuple[str, ...]] = {}
    identities: dict[str, str] = {}
    for source in followed:
        usable = {
            container.id: reached
            for container in containers
            if container.id != ambassador.id and concerns(source, container, project)
            if container.state is State.RUNNING
            if container.health in (Health.NONE, Health.HEALTHY)
            or (container.health is Health.STARTING and gated.get(container.id) == container.started)
            if post_started.get(container.id, container.started) == container.started
            # On the first network that both have: one for each family at most.
            if (reached := next((it.addresses for it in shared(container, ambassador) if it.addresses), ()))
        }
        addresses[source.key] = tuple(sorted({address for reached in usable.values() for address in reached}))
        if len(usable) == 1:
            identities[source.key] = next(iter(usable))
    return Located(addresses, identities)


def shared(container: Container, other: Container) -> tuple[Endpoint, ...]:
    """The attachments of `container` to networks that `other` has too."""
    theirs = {endpoint.network_id for endpoint in other.endpoints if endpoint.network_id}
    return tuple(endpoint for endpoint in container.endpoints if endpoint.network_id in theirs)
