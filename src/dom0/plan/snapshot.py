"""Desired, actual and memory, indexed for the planner. Pure; one snapshot for each plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property

from dom0.engine.values import Container, Health, Network, State
from dom0.plan.actual import Actual, slot_key
from dom0.plan.desired import Desired, NetworkSpec, Order, Slot
from dom0.plan.hooks import has_post_start
from dom0.plan.labels import HASH
from dom0.plan.memory import Memory, SlotVersion


def version(slot: Slot) -> SlotVersion:
    return SlotVersion(slot.hash, slot.image_id)


def version_of(container: Container) -> SlotVersion:
    """The configuration and image that it was made from."""
    return SlotVersion(container.labels.get(HASH, ""), container.image_id)


class Snapshot:
    def __init__(self, desired: Desired, actual: Actual, memory: Memory, now: float) -> None:
        self.desired = desired
        self.actual = actual
        self.memory = memory
        self.now = now
        self.slots = {slot.key: slot for slot in desired.slots}
        self._current: dict[str, Container | None] = {}

    @cached_property
    def containers_of(self) -> Mapping[str, tuple[Container, ...]]:
        """Slot key -> our containers made for it, newest first."""
        found: dict[str, list[Container]] = defaultdict(list)
        for container in sorted(self.actual.containers, key=lambda c: (-c.created, c.id)):
            found[slot_key(container)].append(container)
        return {key: tuple(containers) for key, containers in found.items()}

    @cached_property
    def by_id(self) -> Mapping[str, Container]:
        return {container.id: container for container in self.actual.containers}

    @cached_property
    def slots_of(self) -> Mapping[str, tuple[Slot, ...]]:
        """Service -> its slots."""
        found: dict[str, list[Slot]] = defaultdict(list)
        for slot in self.desired.slots:
            found[slot.service].append(slot)
        return {service: tuple(slots) for service, slots in found.items()}

    @cached_property
    def network_ids(self) -> Mapping[str, str]:
        """Of the networks that containers may be connected to: not of one that is about to be replaced."""
        outdated = {spec.name for spec in self.desired.networks if self.is_outdated(spec)}
        return {name: network.id for name, network in self.networks.items() if name not in outdated}

    @cached_property
    def networks(self) -> Mapping[str, Network]:
        return {network.name: network for network in self.actual.networks}

    @cached_property
    def made_meanwhile(self) -> frozenset[str]:
        """Networks that are about to be made: the Engine looks for them when a container starts, not at its create."""
        if self.actual.in_scope:
            return frozenset()
        return frozenset(spec.name for spec in self.desired.networks if not spec.external) - self.networks.keys()

    def is_outdated(self, spec: NetworkSpec) -> bool:
        """A network of that name that dom0 did not make is used as it is, as Compose does."""
        found = self.networks.get(spec.name)
        if found is None or spec.external or found.id not in self.actual.own_networks:
            return False
        return found.labels.get(HASH) != spec.hash

    @cached_property
    def volume_names(self) -> frozenset[str]:
        return frozenset(volume.name for volume in self.actual.volumes)

    @cached_property
    def ordered(self) -> tuple[Slot, ...]:
        """Slots, those that others depend on first."""
        done: dict[str, None] = {}
        for service in self.slots_of:
            self._visit(service, done, ())
        return tuple(slot for service in done for slot in self.slots_of[service])

    def _visit(self, service: str, done: dict[str, None], path: tuple[str, ...]) -> None:
        if service in done or service in path or service not in self.slots_of:
            return
        for needed in self._needs(service):
            self._visit(needed, done, (*path, service))
        done[service] = None

    def _needs(self, service: str) -> Iterable[str]:
        for slot in self.slots_of[service][:1]:
            yield from (dependency.service for dependency in slot.depends_on)
            yield from slot.parents

    @cached_property
    def depth(self) -> Mapping[str, int]:
        """Service -> length of the longest chain of services that wait for it."""
        depth = dict.fromkeys(self.slots_of, 0)
        for slot in reversed(self.ordered):
            for needed in self._needs(slot.service):
                if needed in depth:
                    depth[needed] = max(depth[needed], depth[slot.service] + 1)
        return depth

    def current(self, slot: Slot) -> Container | None:
        """The container that matches `slot`, else one that is in use and cannot be replaced yet.

        A job's is the one that runs in any case: another would run beside it.
        """
        if slot.key not in self._current:
            candidates = self.containers_of.get(slot.key, ())
            matching = [c for c in candidates if self._matches(c, slot)]
            best = min(matching, key=lambda c: (not c.running, c.name != slot.name, c.created, c.id), default=None)
            used = next((c for c in candidates if self.in_use(c, slot)), None)
            may_wait = best is None or (slot.schedule and not best.running)
            self._current[slot.key] = (used or best) if may_wait else best
        return self._current[slot.key]

    def _matches(self, container: Container, slot: Slot) -> bool:
        if version_of(container) != version(slot) or container.state in (State.REMOVING, State.DEAD):
            return False
        if container.id in self.memory.recreate:
            return False
        # its parents: a container that is gone, and that it refers to, can only have been one of ours
        wanted = set(self.parent_ids(slot).values())
        referred = _namespace_owners(container) | {source.split(":", 1)[0] for source in container.volumes_from}
        return not wanted or referred - self._foreign_ids <= wanted

    def shared_with(self, container: Container) -> tuple[Container, ...]:
        """Those of our containers whose namespaces `container` lives in."""
        return tuple(self.by_id[id_] for id_ in sorted(_namespace_owners(container)) if id_ in self.by_id)

    @cached_property
    def _foreign_ids(self) -> frozenset[str]:
        return frozenset(self.actual.names.values()) - self.by_id.keys()

    def parent_ids(self, slot: Slot) -> dict[str, str]:
        """Service -> container ID for those of its parents that exist."""
        first = {name: self.slots_of[name][0] for name in slot.parents if name in self.slots_of}
        return {name: parent.id for name, slot_ in first.items() if (parent := self.current(slot_))}

    @cached_property
    def resting(self) -> Mapping[str, str]:
        """Services that are stopped for as long as a job runs, which is the value."""
        found: dict[str, str] = {}
        for slot in self.desired.slots:
            if slot.stops and (job := self.current(slot)) is not None and job.running:
                found |= dict.fromkeys(slot.stops, slot.service)
        return found

    def in_use(self, container: Container, slot: Slot) -> bool:
        """Whether a process matches `defer_while`, or it is a job on its run: then it is not replaced yet."""
        if not container.running or slot.schedule:
            return container.running
        lines = self.actual.processes.get(container.id, ())
        return any(mark in line for mark in slot.defer_while for line in lines)

    def obsolete(self, slot: Slot) -> tuple[Container, ...]:
        current = self.current(slot)
        return tuple(c for c in self.containers_of.get(slot.key, ()) if current is None or c.id != current.id)

    @cached_property
    def orphans(self) -> tuple[Container, ...]:
        """Our containers without a slot."""
        return tuple(c for c in self.actual.containers if slot_key(c) not in self.slots)

    @cached_property
    def leaving(self) -> tuple[Container, ...]:
        """Our running containers that are to be removed: orphans, then predecessors."""
        predecessors = (c for slot in self.desired.slots for c in self.obsolete(slot))
        return tuple(c for c in (*self.orphans, *predecessors) if c.running)

    def is_ready(self, container: Container) -> bool:
        """Runs, has been set up, and is healthy as far as anyone can tell: by the Engine, or by our own probe."""
        if container.state is not State.RUNNING or container.id in self.actual.vanished:
            return False
        if self.awaits_post_start(container):
            return False
        if container.health in (Health.NONE, Health.HEALTHY):
            return True
        gated = self.memory.health_passed.get(container.id) == container.started
        return container.health is Health.STARTING and gated

    def awaits_post_start(self, container: Container) -> bool:
        """Whether it has hooks that have not succeeded since it was started."""
        return self.has_post_start(container) and self.memory.post_started.get(container.id) != container.started

    def has_post_start(self, container: Container) -> bool:
        slot = self.slots.get(slot_key(container))
        return slot is not None and has_post_start(container, slot)

    def is_kept(self, container: Container) -> bool:
        """Whether it belongs to the last good generation while a newer one still has to prove itself."""
        kept = self.memory.last_good.get(slot_key(container))
        return kept is not None and kept == version_of(container)

    def stands_in_the_way(self, container: Container, slot: Slot) -> bool:
        """Whether `slot` cannot run beside `container`: same host port, or the same volume written by both."""
        taken = {(port.protocol, port.port) for port in container.ports}
        if any((port.protocol, port.port) in taken for port in slot.ports):
            return True
        written = {mount.name for mount in container.mounts if mount.type == "volume" and mount.writable}
        return slot.order is Order.STOP_FIRST and not written.isdisjoint(slot.volumes)


def _namespace_owners(container: Container) -> set[str]:
    """IDs of the containers whose network, IPC or PID namespace it shares."""
    modes = (container.network_mode, container.ipc_mode, container.pid_mode)
    return {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}
