"""The order for each node, kept in the server's memory and made from the farm's directory and the nodes' reports. One
pure function (`rollout`) decides for all of them at once which revision each is to run.

Commands and people change the directory while the server runs; it looks for changes. Reports are handled in batches:
a decision takes time for each node of the farm, an answer does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from dom0.errors import Dom0Error
from dom0.farms import boots, lost, paused, rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import SEEN_EACH, Node, Nodes, NodeState
from dom0.farms.revisions import MOST_GIVERS, NETWORK, SLOTS, Giver, Gives, NodeReport, Order, Revision
from dom0.farms.rollout import NodeTarget, RolloutState, RolloutStep
from dom0.health import Problem

LOOK_AGAIN = 0.5  # seconds between looks at the directory
REST = 0.2  # seconds between two decisions, or ten times as long as one takes
MOST_REST = 2.0
WAIT = 50.0  # seconds that an answer waits; connections in which nothing comes for a minute are closed
GONE_WITHIN = 10.0  # seconds until a node that has gone is noticed
NOTE_EACH = 1.0  # seconds between looks whether heartbeats have to be noted
NOTHING_YET = RolloutStep(state=RolloutState(), targets={}, roles={}, unwell=frozenset(), due=None)

log = logging.getLogger(__name__)


class SentOrder(msgspec.Struct, frozen=True):
    """What a node is told, and of which target that came. `blobs`: sizes by digest of what it may have."""

    order: Order
    digest: str
    of: tuple[str, str, int, str, bool, NodeTarget]
    blobs: tuple[Mapping[str, int], ...]


class _Heartbeat(msgspec.Struct, frozen=True):
    """The last one of a node: when, by the clock and by the loop's time, which is never set; where it gives blobs."""

    address: str
    at: float
    monotonic: float
    gives: Gives | None


class _Decision(msgspec.Struct, frozen=True):
    nodes: Nodes
    current: Revision | None
    since: float  # when that became so
    told: dict[str, SentOrder]
    due: float
    members: dict[str, list[str]]  # by role, the keys of its nodes
    step: RolloutStep


class Orders:
    def __init__(self, farm: FarmDirectory, now: Callable[[], float] = time.time) -> None:
        """In the running loop. Raises Dom0Error."""
        self._farm = farm
        self._now = now
        self._settings = farm.settings()
        self._reports = farm.reports()
        self._decided = _Decision(Nodes(), None, 0.0, {}, 0.0, {}, NOTHING_YET)
        self._revisions: dict[int, Revision] = {}
        self._blobs: dict[tuple[int, str], Mapping[str, int]] = {}
        self._heartbeats: dict[str, _Heartbeat] = {}
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._hearing: dict[str, asyncio.Lock] = {}
        self._seen: tuple[object, ...] = ()  # of the directory
        self._has_news = asyncio.Event()
        self._asked = frozenset[str]()  # names of nodes
        self._turn = asyncio.Lock()
        self._started = self._note_at = asyncio.get_running_loop().time()

    async def keep(self) -> None:
        """Decide again and again, until it is cancelled."""
        loop, said = asyncio.get_running_loop(), ""
        while True:
            began = loop.time()
            try:
                await self._decide_if_due()
                await self._note_heartbeats()
                said = ""
            except Dom0Error as error:
                if error.message != said:
                    log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
                said = error.message
                await asyncio.sleep(LOOK_AGAIN)
            await asyncio.sleep(min(max(REST, 10 * (loop.time() - began)), MOST_REST))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._has_news.wait()

    async def hear(
        self, key: str, report: NodeReport, address: str, is_gone: Callable[[], bool], gives: Gives | None = None
    ) -> None:
        """A node's heartbeat; its report is on the disk before this returns. Others are ignored. Raises Dom0Error.

        Who has sent another one since, on another connection, has closed this one.
        """
        await self.look()
        if key not in self._decided.told:
            return
        async with self._hearing.setdefault(key, asyncio.Lock()):
            if key not in self._decided.told or is_gone():
                return
            now = self._now()
            before = self._reports.get(key, NodeReport())
            said = replace(report, since=before.since)
            if said != before:
                said = replace(said, since=now)
                await asyncio.to_thread(self._farm.put_report, key, said)
                self._reports[key] = said
                self._has_news.set()
            self._heartbeats[key] = _Heartbeat(address, now, asyncio.get_running_loop().time(), gives)

    async def wait(self, key: str, told: str, is_enough: Callable[[], bool]) -> SentOrder | None:
        """What the node is to run, as soon as it is not what it was `told`, or it `is_enough`, which is asked at each
        `wake` too. None: it is no node.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT
        changed = asyncio.Event()
        self._waiting.setdefault(key, set()).add(changed)
        try:
            while (found := self._decided.told.get(key)) is not None and found.digest == told and not is_enough():
                changed.clear()
                if (left := until - loop.time()) <= 0:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, GONE_WITHIN)):
                        await changed.wait()
            return found
        finally:
            self._waiting[key].discard(changed)
            if not self._waiting[key]:
                del self._waiting[key]

    async def names(self) -> dict[str, str]:
        """Of the nodes that there are now, by their keys. Raises Dom0Error."""
        await self.look()
        return {node.key: node.name for node in self._decided.nodes.nodes if node.key in self._decided.told}

    def ask_services_of(self, names: frozenset[str]) -> None:
        """Have these nodes say where services of theirs are, and no others."""
        if names != self._asked:
            self._asked = names
            self._has_news.set()

    def wake(self, key: str) -> None:
        """Have those that `wait` for this node look again."""
        for changed in self._waiting.get(key, ()):
            changed.set()

    def find_blob(self, key: str, digest: str) -> int | None:
        """Its size, if the node may have it."""
        told = self._decided.told.get(key)
        return next((blobs[digest] for blobs in (told.blobs if told else ()) if digest in blobs), None)

    def find_blobs(self, key: str) -> dict[str, int]:
        """Sizes by digest of what is in the images that the node may have; without private files."""
        told = self._decided.told.get(key)
        if told is None:
            return {}
        contents = [content for content in (told.order.fetch, told.order.run) if content is not None]
        private = {content.private.digest for content in contents if content.private is not None}
        return {digest: size for blobs in told.blobs for digest, size in blobs.items() if digest not in private}

    def find_givers(self, key: str) -> tuple[Giver, ...]:
        """Nodes that give blobs which this one may have: those of its role, first who has all of what it is to fetch;
        then of the roles that have most in common with it.
        """
        told, monotonic = self._decided.told.get(key), asyncio.get_running_loop().time()
        found = dict[str, Giver]()
        for other in self._likely_givers(key, told) if told else ():
            beat = self._heartbeats.get(other)
            if other == key or not beat or not beat.gives or "%" in beat.address:  # which is of one link alone
                continue
            if monotonic - beat.monotonic < rollout.SILENT:
                found[other] = Giver(address=beat.address, **msgspec.structs.asdict(beat.gives))
                if len(found) == MOST_GIVERS:
                    break
        return tuple(found.values())

    def _likely_givers(self, key: str, told: SentOrder) -> Iterator[str]:
        role = told.order.role
        wanted, ours = told.order.fetch.digest if told.order.fetch else "", self.find_blobs(key)
        fellows = self._decided.members.get(role, [])
        having = [other for other in fellows if self._reports.get(other, NodeReport()).fetched == wanted]
        yield from random.sample(having, min(len(having), MOST_GIVERS // 2))  # not all ask the same ones
        yield from fellows[: MOST_GIVERS // 2]  # all that fetch at once see the same ones, so one asks the server
        common = {
            other: sum(ours[digest] for digest in content.blobs.keys() & ours.keys())
            for other, content in (self._decided.current.roles if self._decided.current else {}).items()
            if other != role
        }
        for other in sorted(common, key=lambda each: -common[each]):
            members = self._decided.members.get(other, []) if common[other] else []
            yield from random.sample(members, min(len(members), MOST_GIVERS // 2))

    def find_lost(self, told: Collection[str]) -> list[Problem]:
        """Nodes that are lost; those of them that people were `told` of stay so until their next heartbeat."""
        now, monotonic = self._now(), asyncio.get_running_loop().time()
        nodes = [node for node in self._decided.nodes.nodes if node.state is NodeState.ENROLLED]
        silent = {node.name: monotonic - self._heard_at(node, now, monotonic) for node in nodes}
        last = {node.name: beat.at if (beat := self._heartbeats.get(node.key)) else node.last for node in nodes}
        unheard = {node.name for node in nodes if node.key not in self._heartbeats}
        found = lost.find_lost(self._decided.step.state, silent, unheard.intersection(told))
        return [lost.as_problem(name, last[name]) for name in found]

    def find_paused(self, told: Mapping[str, Problem]) -> list[Problem]:
        """Roles that are paused as something has failed; those that people were `told` of until all is well there."""
        return paused.find_paused(self._decided.step, told)

    async def look(self) -> None:
        """Decide if the nodes or the current revision have changed. Raises Dom0Error."""
        if self._farm.stamp()[:2] != self._seen[:2]:
            await self._decide_if_due()

    async def _decide_if_due(self) -> None:
        async with self._turn:
            seen = self._farm.stamp()
            if seen == self._seen and not self._has_news.is_set() and self._now() < self._decided.due:
                return
            self._has_news.clear()
            try:
                after = await asyncio.to_thread(self._decide, seen, asyncio.get_running_loop().time())
            except Dom0Error:
                self._has_news.set()
                raise
            before, self._decided, self._seen = self._decided, after, seen
        for key in before.told.keys() - after.told.keys():
            self._heartbeats.pop(key, None)
            self._hearing.pop(key, None)
        for key in self._reports.keys() - after.told.keys():
            del self._reports[key]
            self._farm.put_report(key, None)
        for key in self._waiting:
            if before.told.get(key) is not after.told.get(key):
                self.wake(key)

    def _decide(self, seen: tuple[object, ...], monotonic: float) -> _Decision:
        """What is told is on the disk before anybody is told it. Raises Dom0Error."""
        known, now = self._decided, self._now()
        is_new = not self._seen or seen[0] != self._seen[0]
        nodes = self._farm.nodes() if is_new else known.nodes
        current, since = known.current, known.since
        if not self._seen or seen[1] != self._seen[1]:
            current, since = self._farm.current(), self._farm.current_since()
        enrolled = [node for node in nodes.nodes if node.state is NodeState.ENROLLED]
        last = {node.key: now - monotonic + self._heard_at(node, now, monotonic) for node in enrolled}
        views = rollout.views(enrolled, self._reports, last)
        beats = [
            (node.name, self._reports[node.key].os, beat.at)
            for node in enrolled
            if node.key in self._reports and (beat := self._heartbeats.get(node.key))
        ]

        def step(state: RolloutState) -> tuple[RolloutState, RolloutStep]:
            found = rollout.step(state, self._settings, current, views, now, since=since)
            heard = boots.hear(found.state.boots, beats)
            return (found.state if heard is found.state.boots else replace(found.state, boots=heard)), found

        found = self._farm.change_rollout(step)
        if current is not None:
            self._revisions[current.number] = current
        is_floating = current is not None and (current.floating.projects or self._farm.float_state().began)
        floats = current.number if current is not None and is_floating else 0
        told = {node.key: self._tell(known, node, found.targets[node.name], floats) for node in enrolled}
        members: dict[str, list[str]] = {}
        for node in enrolled:
            members.setdefault(node.role, []).append(node.key)
        due = math.inf if found.due is None else found.due
        return _Decision(nodes, current, since, told, due, members, found)

    def _heard_at(self, node: Node, now: float, monotonic: float) -> float:
        """By the loop's time. While no server ran nobody was silent."""
        beat = self._heartbeats.get(node.key)
        return beat.monotonic if beat else max(self._started, monotonic - max(0.0, now - node.last))

    def _tell(self, known: _Decision, node: Node, target: NodeTarget, floats: int) -> SentOrder:
        boots_from = self._reports.get(node.key, NodeReport()).boots
        is_asked = node.name in self._asked
        of = (node.name, node.role, floats, boots_from, is_asked, replace(target, why=""))
        before = known.told.get(node.key)
        if before is not None and before.of == of:
            return before
        numbers = [target.fetch, target.run]
        fetch, run = (self._revision(number).roles.get(node.role) if number else None for number in numbers)
        for number, content in zip(numbers, (fetch, run), strict=True):
            if content is not None and (number, node.role) not in self._blobs:
                self._blobs[number, node.role] = content.blobs
        fetch_os = self._revision(target.fetch).os if target.fetch and boots_from == SLOTS else None
        takes_os = boots_from == SLOTS or (boots_from == NETWORK and self._settings.netboot is not None)
        os = self._revision(target.run).os if target.turn and takes_os else None  # it restarts
        order = Order(
            farm=self._settings.name,
            name=node.name,
            role=node.role,
            revision=target.run or target.fetch,
            turn=target.turn,
            floats=floats,
            fetch=fetch,
            run=run,
            fetch_os=fetch_os,
            os=os,
            services=is_asked,
        )
        blobs = [self._blobs[number, node.role] for number in {*numbers} if (number, node.role) in self._blobs]
        blobs += [base_os.blobs for base_os in (fetch_os, os) if base_os is not None]
        return SentOrder(order, order.digest, of, tuple(blobs))

    def _revision(self, number: int) -> Revision:
        """Raises Dom0Error."""
        if number not in self._revisions:
            found = self._farm.revision(number)
            if found is None:
                raise Dom0Error(f"revision {number}: is not there", hint="put a copy of it into state/revisions")
            self._revisions[number] = found
        return self._revisions[number]

    async def _note_heartbeats(self) -> None:
        """When nodes were heard of last, of all of them in one write, once a minute. Raises Dom0Error."""
        monotonic = asyncio.get_running_loop().time()
        if monotonic < self._note_at:
            return
        self._note_at = monotonic + NOTE_EACH
        beats = dict(self._heartbeats)
        known = ((node, beats.get(node.key)) for node in self._decided.nodes.nodes)
        if any(beat and not 0 <= beat.at - node.last < SEEN_EACH for node, beat in known):
            await asyncio.to_thread(self._farm.change, lambda nodes: (_noted(nodes, beats), None))


def _noted(nodes: Nodes, beats: Mapping[str, _Heartbeat]) -> Nodes:
    return Nodes(
        nodes=tuple(
            replace(node, address=beat.address, last=beat.at) if (beat := beats.get(node.key)) else node
            for node in nodes.nodes
        )
    )
