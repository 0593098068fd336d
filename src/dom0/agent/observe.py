"""Keeps a picture of the Engine: everything once, then only what an event or a step of ours has touched.

Events are hints. The picture is made anew at start, after every reconnect and at a slow period, because the Engine
tells nothing while it is down and drops what a slow reader missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import replace

from dom0.agent.ownership import Ownership
from dom0.agent.processes import SOCKET, Processes
from dom0.engine.protocol import Engine
from dom0.engine.values import Container, ContainerSummary, Event, Network, State, Volume
from dom0.errors import EngineError, EngineUnreachable, NotFound
from dom0.plan import labels
from dom0.plan.actual import Actual, slot_key, slot_key_in
from dom0.plan.desired import Desired
from dom0.socketproxy.scope import LABEL, is_in_one, is_made_inside

OF_CONTAINERS = ("connect", "disconnect", "mount", "unmount")  # events that leave networks and volumes as they are
OF_OTHERS = ("create", "rename", "destroy", "start", "die")  # events of containers of others that concern us
INSPECTED_AT_ONCE = 8  # containers; one that the Engine works on is answered late
SURE = 2  # looks in a row at a process that is gone: of one that has just ended the Engine tells in between


class Observer:
    def __init__(self, engine: Engine, ownership: Ownership, processes: Processes | None = None) -> None:
        self.adopted: Mapping[str, Mapping[str, str]] = {}  # as in the desired state
        self.ground_is_dirty = False  # networks or volumes have changed
        self._engine = engine
        self._ownership = ownership
        self._host = processes or Processes()
        self._ended: dict[tuple[str, int], int] = {}  # container ID and PID -> how many looks found it gone
        self._containers: dict[str, Container] = {}
        self._names: dict[str, str] = {}
        self._labels: dict[str, dict[str, str]] = {}  # of what says it is ours, by ID, as lists and events tell them
        self._strangers: set[str] = set()  # IDs of what says so, and is not
        self._cpus = 0
        self._in_scope = False
        self._others: tuple[ContainerSummary, ...] = ()
        self._others_dirty = False
        self._unreadable: dict[str, str] = {}  # container ID -> the Engine's words
        self._networks: tuple[Network, ...] = ()
        self._volumes: tuple[Volume, ...] = ()
        self._dirty: set[str] = set()
        self._out_of_memory: dict[str, float] = {}  # scope -> when
        self._inside: dict[str, Container] = {}  # by ID, those of scopes that have an Engine's socket bound

    async def look(self, *, thorough: bool = True) -> None:
        """List everything. `thorough` inspects all of our containers, else only those whose row has changed."""
        # before the questions: events go on marking meanwhile
        self._dirty, self.ground_is_dirty, self._others_dirty = set(), False, False
        info, self._networks, self._volumes, rows = await asyncio.gather(
            self._engine.info(), self._engine.networks(), self._engine.volumes(), self._engine.containers()
        )
        self._cpus, self._in_scope = info.cpus, is_in_one(info.labels)
        self._names = {row.name: row.id for row in rows}
        self._others = rows
        ours = {row.id: row for row in rows if row.id in self.adopted or self._ownership.is_claimed(row.labels)}
        self._containers = {id_: known for id_, known in self._containers.items() if id_ in ours}
        self._strangers &= ours.keys()
        self._labels = {id_: {**row.labels, **self.adopted.get(id_, {})} for id_, row in ours.items()}
        self._unreadable = {id_: words for id_, words in self._unreadable.items() if id_ in ours}
        known = {id_: (container.state, container.name) for id_, container in self._containers.items()}
        self._dirty |= {id_ for id_, row in ours.items() if thorough or known.get(id_) != (row.state, row.name)}
        await self.refresh()
        self._ownership.end_look(self._labels, self.containers, self._networks)

    async def refresh(self, touched: Iterable[str] = (), *, later: Collection[str] = ()) -> None:
        """Look again at what events marked and at the containers in `touched`; those in `later` another time."""
        marked = self._dirty | set(touched)
        dirty, self._dirty = marked.difference(later), marked.intersection(later)
        for container in sorted(await self._inspect_all(dirty), key=lambda one: one.created):
            if own_labels := self.adopted.get(container.id):
                self._containers[container.id] = replace(container, labels={**container.labels, **own_labels})
            elif await self._ownership.owns(container, self._engine):
                self._containers[container.id] = container
            elif self._ownership.is_claimed(container.labels):
                self._strangers.add(container.id)
        if self._others_dirty or not dirty.isdisjoint(row.id for row in self._others if row.id not in self._containers):
            self._others_dirty = False
            self._others = await self._engine.containers()
        if self.ground_is_dirty:
            self.ground_is_dirty = False
            self._networks = await self._engine.networks()
            self._volumes = await self._engine.volumes()

    def look_at_processes(self) -> bool:
        """Returns whether the Engine has to be asked about one whose process is gone."""
        gone = [c for c in self.containers if c.state is State.RUNNING and c.pid and self._host.has_ended(c.pid)]
        self._ended = {(c.id, c.pid): self._ended.get((c.id, c.pid), 0) + 1 for c in gone}
        asked = {container_id for (container_id, _), looks in self._ended.items() if looks == SURE}
        self._dirty |= asked
        return bool(asked)

    def note(self, event: Event) -> bool:
        """Take an event in; returns whether anything that concerns us may have changed."""
        match event.type:
            case "container":
                return self._note_container(event)
            case "network" | "volume":
                self.ground_is_dirty |= event.action not in OF_CONTAINERS
                if container_id := event.attributes.get("container"):
                    self._dirty.add(container_id)
                return True
        return False

    def _note_container(self, event: Event) -> bool:
        if event.action == "oom" and is_made_inside(event.attributes):  # seen with the next picture
            self._out_of_memory[event.attributes[LABEL].split("/")[1]] = event.time
        name = event.attributes.get("name", "")
        if event.action == "destroy":
            self._note_name(event.id, "")
        elif name and event.action in ("create", "rename"):
            self._note_name(event.id, name)
        if not self.is_ours(event) and event.id not in self._containers:
            if event.action in OF_OTHERS:
                self._inside.pop(event.id, None)
            self._others_dirty |= event.action in OF_OTHERS
            return event.action in OF_OTHERS
        if event.action.startswith(("exec_", "attach", "top", "oom", "resize", "archive-path", "extract-to-dir")):
            return False
        self._dirty.add(event.id)
        if self.is_ours(event):
            self._labels[event.id] = {**event.attributes, **self.adopted.get(event.id, {})}
        return True

    @property
    def containers(self) -> tuple[Container, ...]:
        return tuple(self._containers.values())

    async def actual(self, desired: Desired) -> Actual:
        return Actual(
            containers=self.containers,
            networks=self._networks,
            own_networks=frozenset(one.id for one in self._networks if self._ownership.owns_network(one)),
            volumes=self._volumes,
            others=tuple(row for row in self._others if row.id not in self._containers),
            names=dict(self._names),
            cpus=self._cpus,
            in_scope=self._in_scope,
            unreadable={
                slot_key_in(self._labels[id_]): words
                for id_, words in self._unreadable.items()
                if id_ not in self._strangers
            },
            cut_off_inside=await self._cut_off_inside(),
            out_of_memory=dict(self._out_of_memory),
            processes=await self._processes(desired),
            vanished=frozenset(
                c.id for c in self.containers if c.state is State.RUNNING and self._ended.get((c.id, c.pid), 0) >= SURE
            ),
            cut_off=frozenset(c.id for c in self.containers if self._is_cut_off(c)),
        )

    def is_ours(self, event: Event) -> bool:
        """Whether an event of a container is of one of ours, as far as is known yet: it carries the labels."""
        if event.id in self.adopted:
            return True
        return self._ownership.is_claimed(event.attributes) and event.id not in self._strangers

    def _is_cut_off(self, container: Container) -> bool:
        return _binds_socket(container) and container.state is State.RUNNING and self._host.has_old_socket(container)

    async def _cut_off_inside(self) -> dict[str, tuple[str, ...]]:
        """Those of scopes are their owners' to start again. Each is inspected once, when it was started."""
        found: dict[str, tuple[str, ...]] = {}
        rows = {
            row.id: row
            for row in self._others
            if row.state is State.RUNNING and _binds_socket(row) and is_made_inside(row.labels)
        }
        self._inside = {id_: known for id_, known in self._inside.items() if id_ in rows}
        for row in rows.values():
            with contextlib.suppress(EngineError):
                if row.id not in self._inside:
                    self._inside[row.id] = await self._engine.container(row.id)
                if self._is_cut_off(self._inside[row.id]):
                    scope = row.labels[LABEL].split("/")[1]
                    found[scope] = (*found.get(scope, ()), row.name)
        return found

    async def _inspect_all(self, container_ids: Iterable[str]) -> list[Container]:
        """Those that are there. Raises as `_inspect`."""
        turns = asyncio.Semaphore(INSPECTED_AT_ONCE)

        async def inspect(container_id: str) -> Container | None:
            async with turns:
                return await self._inspect(container_id)

        inspected = await asyncio.gather(*map(inspect, container_ids), return_exceptions=True)
        found = []
        for one in inspected:
            if isinstance(one, BaseException):
                raise one
            if one is not None:
                found.append(one)
        return found

    async def _inspect(self, container_id: str) -> Container | None:
        try:
            container = await self._engine.container(container_id)
        except NotFound:
            self._containers.pop(container_id, None)
            self._labels.pop(container_id, None)
            self._unreadable.pop(container_id, None)
            self._note_name(container_id, "")
            self._others = tuple(row for row in self._others if row.id != container_id)
            return None
        except EngineUnreachable:
            raise
        except EngineError as error:
            if container_id not in self._labels:
                raise  # it is not even known what the container is for
            # After a power cut the Engine may list one that it cannot describe: the others are none the worse.
            self._unreadable[container_id] = error.message
            self._dirty.add(container_id)
            return None
        self._unreadable.pop(container_id, None)
        self._note_name(container_id, container.name)
        return container

    def _note_name(self, container_id: str, name: str) -> None:
        """`name` is its only one; "": it is gone."""
        others = {other: id_ for other, id_ in self._names.items() if id_ != container_id}
        self._names = others | ({name: container_id} if name else {})

    async def _processes(self, desired: Desired) -> dict[str, tuple[str, ...]]:
        """Only for containers that would be replaced or restarted now, and only where a slot asks for it."""
        careful = {slot.key: slot for slot in desired.slots if slot.defer_while}
        found: dict[str, tuple[str, ...]] = {}
        for container in self._containers.values():
            slot = careful.get(slot_key(container))
            if slot is None or not container.running:
                continue
            current = container.labels.get(labels.HASH) == slot.hash and container.image_id == slot.image_id
            if current and not self._is_cut_off(container):
                continue
            try:
                found[container.id] = await self._engine.top(container.id)
            except EngineError:
                self._dirty.add(container.id)
        return found


def _binds_socket(container: Container | ContainerSummary) -> bool:
    return any(mount.source.endswith(f"/{SOCKET}") for mount in container.mounts)
