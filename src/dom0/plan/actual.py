"""What was found: the Engine's objects that concern one project, as the planner sees them. Made by `agent/observe`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dom0.engine.values import Container, ContainerSummary, Network, Volume
from dom0.plan import labels


class Actual(msgspec.Struct, frozen=True, kw_only=True):
    """`containers` are ours alone, `others` are not ours; `networks`, `volumes` and `names` are the whole Engine's."""

    containers: tuple[Container, ...] = ()
    networks: tuple[Network, ...] = ()
    own_networks: frozenset[str] = frozenset()  # IDs of those that we made
    volumes: tuple[Volume, ...] = ()
    others: tuple[ContainerSummary, ...] = ()  # containers that are not ours
    names: Mapping[str, str] = {}  # every container's name on this Engine -> its ID, foreign ones too
    cpus: int = 0  # of the host; 0: not known
    in_scope: bool = False  # the Engine's socket is a scope's: it makes no container whose network is not there
    unreadable: Mapping[str, str] = {}  # Slot.key -> the Engine's words: it has a container, and cannot describe it
    vanished: frozenset[str] = frozenset()  # container IDs: the Engine calls them running, their process is gone
    cut_off: frozenset[str] = frozenset()  # container IDs: they have an Engine's socket bound that nobody can come to
    cut_off_inside: Mapping[str, tuple[str, ...]] = {}  # scope -> names of containers of it that have
    out_of_memory: Mapping[str, float] = {}  # scope -> when a container of it last was, seconds since the epoch
    processes: Mapping[str, tuple[str, ...]] = {}  # container ID -> command lines, where a slot has `defer_while`

    @property
    def published(self) -> frozenset[int] | None:
        """Host ports of all containers that run. None: not known, as a scope's socket tells nothing of others."""
        if self.in_scope:
            return None
        found: tuple[Container | ContainerSummary, ...] = (*self.containers, *self.others)
        return frozenset(port.port for one in found if one.running for port in one.ports)


def slot_key(container: Container) -> str:
    """The key of the slot that `container` was made for (Slot.key), as its labels say."""
    return slot_key_in(container.labels)


def slot_key_in(container_labels: Mapping[str, str]) -> str:
    return f"{container_labels.get(labels.SERVICE, '')}-{container_labels.get(labels.NUMBER, '')}"


def depends_on(container: Container) -> tuple[str, ...]:
    """Names of the services it depends on, from Compose's label `dep:condition:restart,…`."""
    label = container.labels.get(labels.COMPOSE_DEPENDS_ON, "")
    return tuple(part.split(":", 1)[0] for part in label.split(",") if part)
