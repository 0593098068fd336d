"""The main loop: keeps one table as the declaration, the names, the probes and the rewires want it.

Level-triggered: the loop looks at everything and sets what differs, whatever woke it. Rewires take turns with it.
Decides little itself: desired.py and rewire.py do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache

from msgspec import convert
from msgspec.structs import asdict, replace

from dom0.ambassador import desired, rewire
from dom0.ambassador.declaration import Declaration, Hold, Probing, Rule
from dom0.ambassador.desired import Findings, Wanted
from dom0.ambassador.lookup import Names
from dom0.ambassador.probe import Probes
from dom0.ambassador.rewire import Policies, TableChange
from dom0.ambassador.sources import Followed, Named, Source
from dom0.ambassador.state import StateDamaged, StateFile, Stored, moment
from dom0.errors import Dom0Error
from dom0.forward.dataplane import DataPlane, Flow
from dom0.forward.drain import Drain, Tally, drain
from dom0.forward.table import Listener, Table, Target

LOOK_EVERY = 5.0  # seconds between two looks at what the kernel really holds
DRAIN_EVERY = 1.0
FORGET_EVERY = 30.0
AWAITED = 30.0  # seconds that new connections wait for what is being replaced, as for the target of a rewire
REMEMBERED = 3600.0  # seconds that State has a drain that is over
MOST_PAST = 64
_MOST_TOLD = 8  # listeners or targets in one line of the log
log = logging.getLogger(__name__)


class Forwarder:
    """`lock` is held by whoever changes `stored` or the plane."""

    def __init__(
        self, plane: DataPlane, declaration: Declaration, file: StateFile, names: Names, probes: Probes
    ) -> None:
        self.plane = plane
        self.declaration = declaration
        self.file = file
        self.names = names
        self.probes = probes
        self.stored = Stored()
        self.lock = asyncio.Lock()
        self.held: set[Listener] = set()
        self.refused = ""
        self.damaged = ""
        self.asked: set[str] = set()  # names that rewires under way need
        self._changed = asyncio.Condition()
        self.looks = 0
        self._wake = asyncio.Event()
        self._cause = "settings"
        self._others: set[Listener] = set()
        self._down_since: dict[Listener, float] = {}
        self._looked = self._forgot = self._drained = 0.0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            await self._adopt()
            while True:
                async with self.lock:
                    await self._step(group)
                await self.tell()
                await self._pause()

    def wake(self, cause: str) -> None:
        self._cause = cause
        self._wake.set()

    # what was before us

    async def _adopt(self) -> None:
        """Nothing is flushed: what the kernel forwards by goes on until something else is wanted."""
        shown = await self.plane.read()
        try:
            stored = self.file.read()
        except StateDamaged as error:
            log.warning("%s", error.message)
            self.damaged = error.message
            stored = None
        stored = await self._with_all_generations(stored or Stored(), shown or Table())
        if stored.digest != self.declaration.digest:
            stored = replace(stored, digest=self.declaration.digest, wishes={}, undo=())
        for key, addresses in stored.addresses.items():
            if not _is_followed(key):
                self.names.know(key, addresses)
        self.probes.know(stored.unhealthy)
        self.stored = stored

    async def _with_all_generations(self, stored: Stored, shown: Table) -> Stored:
        """Numbers that we do not remember, because the file is older or gone, are not given again."""
        highest = max([stored.generation, *(route.generation for route in shown.routes)])
        if stored.generation and highest == stored.generation:
            return stored
        stored = replace(stored, table=shown)  # the kernel knows more than the file
        old: dict[str, set[int]] = {key: set(numbers) for key, numbers in stored.old.items()}
        for flow in await self.plane.flows():
            old.setdefault(str(flow.came_by), set()).add(flow.generation)
            highest = max(highest, flow.generation)
        kept = {key: tuple(sorted(numbers)) for key, numbers in old.items()}
        return replace(stored, generation=highest, old=kept)

    # the loop

    async def _step(self, group: asyncio.TaskGroup) -> None:
        ticks, before = moment().ticks, self.stored
        self._wake.clear()
        cause, self._cause = self._cause, "health"
        self._watch(group)
        try:
            await self.reconcile(cause)
            await self._look(ticks)
        except Dom0Error as error:
            if self.refused != error.message:
                log.error("%s", error.message)  # noqa: TRY400 -- a person reads it: no traceback
            self.refused = error.message
        else:
            self.refused = ""
        drains = self.stored.drains
        cuts = any(it.cut_at is not None and self._drained < it.cut_at <= ticks for it in drains)
        pause = DRAIN_EVERY if drains else FORGET_EVERY
        if cuts or (self.stored.old and ticks - self._drained >= pause):
            await self._drain()
        addresses, unhealthy = self._addresses(), tuple(sorted(self.probes.unhealthy))
        if (self.stored.addresses, self.stored.unhealthy) != (addresses, unhealthy):
            self.stored = replace(self.stored, addresses=addresses, unhealthy=unhealthy)
        if self.stored != before or self.file.error:
            self.file.write(self.stored)

    async def reconcile(self, cause: str) -> None:
        policies = {rule.listener: Policies(rule.existing, rule.udp) for rule in self.declaration.rules}
        others, self._others = self._others, set()
        found, ticks = self.found(), moment().ticks
        for rule in self.declaration.rules:
            if found.up(rule, desired.targets(self.sources(rule), rule, found)):
                self._down_since.pop(rule.listener, None)
            else:
                self._down_since.setdefault(rule.listener, ticks)
        wants = self.wants()
        change = rewire.adapt(
            self.stored, wants, policies, cause=cause, at=moment(), others=[it for it in others if it in wants]
        )
        if change is not None:
            await self.drive(change)

    async def drive(self, change: TableChange) -> None:
        """Switch, tell whoever watches, and drain old connections. Raises Dom0Error: nothing was switched.

        State file and plane agree in the end: killed before the switch, the next start makes it; refused by the plane,
        the former table is in force and in the file, and the generations of the change are never given again.
        """
        self.file.write(change.stored)
        began = time.perf_counter()
        try:
            await self.plane.set(change.stored.table)
        except Dom0Error:
            self.stored = replace(self.stored, generation=change.stored.generation)
            self.file.write(self.stored)
            raise
        took = round((time.perf_counter() - began) * 1000, 3)
        numbers, receipts = change.receipts, change.stored.receipts
        receipts = tuple(replace(it, switch_ms=took) if it.number in numbers else it for it in receipts)
        self.stored = replace(change.stored, receipts=receipts)
        await self.tell()
        await self._drain()
        self.file.write(self.stored)
        for receipt in self.stored.receipts:
            if receipt.number in change.receipts:
                words = map(_brief, (receipt.listeners, receipt.before, receipt.after))
                log.info("%s: %s → %s (%s)", *words, receipt.cause)

    # old connections

    async def flows_of(self, drains: Iterable[Drain], stored: Stored) -> list[Flow]:
        """Those that `drains` concern, of the generations that `stored` knows."""
        generations = {
            generation
            for it in drains
            for generation in stored.old.get(str(it.listener), ())
            if it.since <= generation < it.until
        }
        flows = await self.plane.flows(sorted(generations)) if generations else []
        return [flow for flow in flows if any(it.concerns(flow) for it in drains)]

    async def _drain(self) -> None:
        """Do what is due, and count it in the receipts.

        What cannot be done now is done a second later: the switch stands, and drains are kept.
        """
        self._drained = moment().ticks
        try:
            stored, ticks = self.stored, self._drained
            numbers = {it.receipt for it in stored.drains}
            counts = {
                it.number: convert(it, Tally, from_attributes=True) for it in stored.receipts if it.number in numbers
            }
            done = await drain(self.plane, stored.drains, await self.flows_of(stored.drains, stored), counts, ticks)
            new = done.counts
            receipts = [replace(it, **asdict(new[it.number])) if it.number in new else it for it in stored.receipts]
            past = [it for it in (*stored.past, *done.over) if ticks < it.over_at + REMEMBERED]
            self.stored = replace(stored, drains=done.left, past=tuple(past[-MOST_PAST:]), receipts=tuple(receipts))
            if self._drained - self._forgot >= FORGET_EVERY:
                self._forgot = self._drained
                await self._forget_ended()
        except Dom0Error as error:
            log.warning("old connections: %s", error.message)

    async def _forget_ended(self) -> None:
        """Old generations without connections need not be listed any more."""
        wanted = sorted({generation for generations in self.stored.old.values() for generation in generations})
        if not wanted:
            return
        alive = {flow.generation for flow in await self.plane.flows(wanted)}
        drained = {str(it.listener) for it in self.stored.drains}
        kept = {
            key: tuple(it for it in generations if it in alive or key in drained)
            for key, generations in self.stored.old.items()
        }
        self.stored = replace(self.stored, old={key: generations for key, generations in kept.items() if generations})

    async def _look(self, ticks: float) -> None:
        if self._looked and ticks - self._looked < LOOK_EVERY and not self.refused:
            return
        if await self.plane.read() != self.stored.table:
            if self._looked:
                log.warning("the rules are not ours any more; they are set again")
            await self.plane.set(self.stored.table)
        self._looked = ticks

    def _watch(self, group: asyncio.TaskGroup) -> None:
        every = [source for rule in self.declaration.rules for source in (*rule.sources, *self.sources(rule))]
        self.names.watch({source.host for source in every if isinstance(source, Named)} | self.asked, group)
        found, probing = self.found(), dict[Target, Probing]()
        for rule in self.declaration.rules:
            if rule.health is not None:
                for target in desired.targets(self.sources(rule), rule, found):
                    probing.setdefault(replace(target, weight=1), rule.health)
        self.probes.watch(probing, group)

    async def _pause(self) -> None:
        ticks = moment().ticks
        until = [ticks + LOOK_EVERY]
        if self.refused or self.stored.drains:
            until.append(ticks + DRAIN_EVERY)
        until += [it.cut_at for it in self.stored.drains if it.cut_at is not None and it.cut_at > ticks]
        until += [
            since + rule.down.seconds
            for rule in self.declaration.rules
            if isinstance(rule.down, Hold) and (since := self._down_since.get(rule.listener)) is not None
            if since + rule.down.seconds > ticks
        ]
        until += [since + AWAITED for since in self.stored.awaited.values() if since + AWAITED > ticks]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(until) - ticks)):
                await self._wake.wait()

    async def tell(self) -> None:
        """Wake all that wait in `look_after`."""
        async with self._changed:
            self.looks += 1
            self._changed.notify_all()

    async def look_after(self, looks: int) -> None:
        """Until there may be something new since `looks`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.looks != looks)

    # what is wanted

    def sources(self, rule: Rule, wishes: Mapping[str, tuple[Source, ...]] | None = None) -> tuple[Source, ...]:
        wished = self.stored.wishes if wishes is None else wishes
        return wished.get(str(rule.listener)) or rule.sources

    def found(self) -> Findings:
        ticks = moment().ticks
        awaited = {key for key, since in self.stored.awaited.items() if ticks < since + AWAITED}
        return Findings(
            addresses=self._addresses(),
            unhealthy=self.probes.unhealthy,
            is_own=cache(is_own),
            listening=self.declaration.listeners,
            held=frozenset(self.held),
            awaited=frozenset(
                rule.listener
                for rule in self.declaration.rules
                if any(isinstance(it, Followed) and it.key in awaited for it in self.sources(rule))
            ),
            down_for={listener: ticks - since for listener, since in self._down_since.items()},
        )

    def _addresses(self) -> dict[str, tuple[str, ...]]:
        return {key: it for key, it in self.stored.addresses.items() if _is_followed(key)} | self.names.all()

    def wants(self, wishes: Mapping[str, tuple[Source, ...]] | None = None) -> dict[Listener, Wanted]:
        """Of all listeners, with the rewires in force, or with `wishes` in their place."""
        found, wants = self.found(), dict[Listener, Wanted]()
        routes = self.stored.table.by_listener
        for rule in self.declaration.rules:
            targets = desired.targets(self.sources(rule, wishes), rule, found)
            want = desired.wanted(rule, targets, found, routes.get(rule.listener))
            if want is not None:
                wants[rule.listener] = want
        return wants

    def follow(
        self, found: Mapping[str, Collection[str]], identities: Mapping[str, str], awaited: Collection[str]
    ) -> None:
        """Take what the agent found. IDs of containers that are gone stay, to tell another one at their address."""
        waits = dict.fromkeys(awaited, moment().ticks) | self.stored.awaited
        named = {key: it for key, it in self.stored.addresses.items() if not _is_followed(key)}
        before = self.stored.identities
        new = {key for key, identity in identities.items() if before.get(key, identity) != identity}
        for rule in self.declaration.rules:
            if any(isinstance(it, Followed) and it.key in new for it in self.sources(rule)):
                self._others.add(rule.listener)
        sources = [it for rule in self.declaration.rules for it in self.sources(rule) if isinstance(it, Followed)]
        active = {it.key for it in sources}
        unknown = {it.key for it in sources if it.is_far} - found.keys()  # as long as nobody says where: as it was
        addresses = named | {key: it for key, it in self.stored.addresses.items() if key in unknown}
        addresses |= {key: tuple(sorted(set(it))) for key, it in found.items()}
        remembered = {key: it for key, it in before.items() if key in active} | dict(identities)
        self.stored = replace(
            self.stored,
            addresses=addresses,
            identities=remembered,
            awaited={key: since for key, since in waits.items() if key in active and not found.get(key)},
        )
        self.wake("container")

    @property
    def panic(self) -> tuple[Listener, ...]:
        return tuple(sorted(self._down_since))

    def loops(self) -> dict[Listener, str]:
        found, rules = self.found(), self.declaration.rules
        return {it.listener: str(loop) for it in rules for loop in found.loops(self.sources(it), it.listener)}


def _brief(words: Sequence[str]) -> str:
    more = f" and {len(words) - _MOST_TOLD} more" if len(words) > _MOST_TOLD else ""
    return " ".join(words[:_MOST_TOLD]) + more


def _is_followed(key: str) -> bool:
    return ":" in key  # no name has one


def is_own(address: str) -> bool:
    """Only an address of this network namespace can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
