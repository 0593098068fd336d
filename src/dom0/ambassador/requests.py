"""Carries out what is asked over the control socket, one handler a request. Sockets are control.py's."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, assert_never

import msgspec

from dom0.ambassador import desired, rewire, sources
from dom0.ambassador.declaration import (
    Policy,
    Rule,
    by_its_way,
    find_far_flaw,
    parse_listeners,
    parse_policy,
    parse_wait,
)
from dom0.ambassador.desired import Wanted
from dom0.ambassador.forwarder import Forwarder
from dom0.ambassador.messages import Flows, Follow, History, Planned, Receipt, Request, Rewire, Show, State, Undo
from dom0.ambassador.probe import accepts
from dom0.ambassador.report import Reporter
from dom0.ambassador.rewire import Policies, TableChange
from dom0.ambassador.sources import Followed, Named, Source
from dom0.ambassador.state import moment
from dom0.errors import Busy, Dom0Error, UsageError
from dom0.forward.drain import forecast
from dom0.forward.table import MOST_TARGETS, Listener, Protocol, Target

PROBE = 0.5  # seconds: timeout and interval of probes of a target that `hold` waits for
MOST_FOLLOWED = 4096


class Requests(msgspec.Struct, frozen=True):
    forwarder: Forwarder
    reporter: Reporter

    async def answer(self, request: Request) -> Any:
        """A document of messages.py. Raises Dom0Error."""
        match request:
            case Show():
                counts = Counter(str(flow.came_by) for flow in await self.forwarder.plane.flows())
                state = self.reporter.state()
                listeners = tuple(msgspec.structs.replace(it, flows=counts[it.listener]) for it in state.listeners)
                return msgspec.structs.replace(state, listeners=listeners)
            case Rewire():
                return await self._rewire(request)
            case Undo():
                return await self._undo(request)
            case History():
                return self.forwarder.stored.receipts
            case Flows():
                asked = {rule.listener for rule in self._listeners(request.listener)} if request.listener else None
                flows = await self.forwarder.plane.flows([request.generation] if request.generation else None)
                return [flow for flow in flows if asked is None or flow.came_by in asked]
            case Follow():
                return await self._follow(request)
            case _:
                assert_never(request)

    async def _follow(self, request: Follow) -> State:
        if len(request.found) > MOST_FOLLOWED:
            raise UsageError(f"found: {len(request.found)} sources are more than {MOST_FOLLOWED}")
        found: dict[str, set[str]] = {}
        with _usage_error("found"):
            for text, addresses in request.found.items():
                key = _key(text)
                check = _place if key.startswith(("node:", "plaintext:node:")) else _address
                found.setdefault(key, set()).update(map(check, addresses))
            identities = {_key(text): it for text, it in request.identities.items()}
            awaited = tuple(map(_key, request.awaited))
        async with self.forwarder.lock:
            self.forwarder.follow(found, identities, awaited)
            await self.forwarder.reconcile("container")
        return self.reporter.state()

    # rewire

    async def _rewire(self, request: Rewire) -> Any:
        if not request.to:
            raise UsageError("to: is missing", hint=f"one or more of {sources.FORMS}")
        if len(request.to) > MOST_TARGETS:
            raise UsageError(f"to: {len(request.to)} targets are more than {MOST_TARGETS}")
        with _usage_error("to"):
            parsed = list(dict.fromkeys(sources.parse(text, portless=True) for text in request.to))
        rules = self._chosen(request.listener, parsed)
        policies = _policies(rules, request.existing, request.udp)
        wishes = self._wishes(rules, parsed)
        names = {source.host for source in parsed if isinstance(source, Named)} - self.forwarder.asked
        self.forwarder.asked |= names
        try:
            await self._find({source for wished in wishes.values() for source in wished})
            if request.hold and not request.plan:
                with _usage_error("hold_timeout"):
                    timeout = parse_wait(request.hold_timeout)
                await self._hold(wishes, timeout)
            async with self.forwarder.lock:
                if request.plan:
                    return await self._planned(self._change(wishes, policies))
                self.forwarder.held -= wishes.keys()
                return await self._drive(self._change(wishes, policies))
        finally:
            self.forwarder.asked -= names
            if request.hold:
                self.forwarder.held -= wishes.keys()
            self.forwarder.wake("rewire")

    def _change(self, wishes: Mapping[Listener, tuple[Source, ...]], policies: Policies) -> TableChange:
        forwarder = self.forwarder
        wished = forwarder.stored.wishes | {str(listener): it for listener, it in wishes.items()}
        found = forwarder.found()
        routes = forwarder.stored.table.by_listener
        for listener in wishes:
            targets = desired.targets(wishes[listener], self._rule(listener), found)
            if not targets:
                names = ", ".join(map(str, wishes[listener]))
                message = f"to: {names} is listener {listener} of this ambassador itself: a loop"
                raise UsageError(message, hint="name the provider; nothing was changed")
            # The rules do not translate between IPv4 and IPv6.
            before = {target.family for target in routes[listener].targets} if listener in routes else set()
            after = {target.family for target in targets}
            if before and not before & after:
                families = {"ip": "IPv4", "ip6": "IPv6"}
                message = f"to: consumers come over {families[before.pop()]}, and the new target has only "
                hint = "name a target of the same family, or one of each; nothing was changed"
                raise UsageError(message + families[after.pop()], hint=hint)
        wants = forwarder.wants(wished)
        return rewire.replace(forwarder.stored, wishes, wants, policies, at=moment())

    def _rule(self, listener: Listener) -> Rule:
        rule = self.forwarder.declaration.rule(listener)
        assert rule is not None, listener
        return rule

    def _listeners(self, text: str) -> list[Rule]:
        """The rules of a listener or a range. Raises UsageError."""
        known = {rule.listener: rule for rule in self.forwarder.declaration.rules}
        with _usage_error("listener"):
            listeners = parse_listeners(text)
        unknown = [it for it in listeners if it not in known]
        if unknown:
            raise UsageError(f"listener: {unknown[0]} is not one of this ambassador's", hint=f"it has {_some(known)}")
        return [known[it] for it in listeners]

    def _chosen(self, listener: str, to: Collection[Source]) -> list[Rule]:
        if listener:
            return self._listeners(listener)
        rules = list(self.forwarder.declaration.rules)
        if len(rules) > 1 and any(source.port for source in to):
            some = _some(rule.listener for rule in rules)
            raise UsageError("listener: is needed, because a port is named", hint=f"--listener, one of {some}")
        return rules

    def _wishes(self, rules: Collection[Rule], to: Collection[Source]) -> dict[Listener, tuple[Source, ...]]:
        """A source without a port gets the one that the listener's targets have."""
        wishes = {}
        for number, rule in enumerate(rules):
            ports = {source.port for source in self.forwarder.sources(rule)}
            if len(ports) > 1 and not all(source.port for source in to):
                raise UsageError(f"{rule.listener}: its targets have several ports", hint="say one: --to HOST:PORT")
            with _usage_error("to"):
                wished = tuple(
                    sources.shifted(source, number) if source.port else msgspec.structs.replace(source, port=min(ports))
                    for source in to
                )
            plaintext = rule.listener in self.forwarder.declaration.plaintext
            for source in to:
                if wrong := find_far_flaw(source, rule.listener, plaintext=plaintext):
                    raise UsageError(f"to: {wrong.what}", hint=wrong.hint)
            wishes[rule.listener] = tuple(by_its_way(source, plaintext=plaintext) for source in wished)
        return wishes

    async def _find(self, to: Collection[Source]) -> None:
        """Raises UsageError for a source without an address."""
        for source in to:
            if isinstance(source, Named) and not await self.forwarder.names.ask(source.host):
                why = self.forwarder.names.errors.get(source.host, "")
                hint = "name what the ambassador can resolve, or an address; nothing was changed"
                raise UsageError(f"to: the name {source.host} is not found: {why}", hint=hint)
            if isinstance(source, Followed) and not self.forwarder.stored.addresses.get(source.key):
                hint = "the dom0 agent follows containers; nothing was changed"
                raise UsageError(f"to: no address is known for {source.key}", hint=hint)

    async def _hold(self, wishes: Mapping[Listener, tuple[Source, ...]], timeout: float) -> None:
        """New connections wait until each listener's new target accepts one. Raises Dom0Error after `timeout`."""
        forwarder, found = self.forwarder, self.forwarder.found()
        waiting = {
            listener: desired.targets(it, self._rule(listener), found)
            for listener, it in wishes.items()
            if listener.protocol is Protocol.TCP
        }
        if not waiting:
            raise UsageError("hold: a UDP target cannot be asked whether it is there", hint="leave --hold out")
        if forwarder.held & wishes.keys():
            raise Busy("hold: another rewire of this listener waits for its target")
        forwarder.held |= waiting.keys()
        try:
            await self._apply_held()
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                for targets in waiting.values():
                    group.create_task(_until_accepted(targets))
        except BaseException as error:
            forwarder.held -= waiting.keys()
            await self._apply_held()
            if isinstance(error, TimeoutError):
                names = ", ".join(sorted({str(target) for targets in waiting.values() for target in targets}))
                message = f"to: {names} accepted no connection within {timeout:g} s"
                raise Dom0Error(message, hint="nothing was changed: connections go to the previous targets") from error
            raise

    async def _apply_held(self) -> None:
        async with self.forwarder.lock:
            await self.forwarder.reconcile("rewire")

    async def _planned(self, change: TableChange) -> Planned:
        new = [it for it in change.stored.drains if it.receipt in change.receipts]
        flows = await self.forwarder.flows_of(new, change.stored)
        counts = forecast(new, flows, moment().ticks)
        receipt = msgspec.structs.replace(change.stored.receipts[-1], number=0, **msgspec.structs.asdict(counts))
        return Planned(receipt=receipt, flows=tuple(flows))

    async def _drive(self, change: TableChange) -> Receipt:
        await self.forwarder.drive(change)
        return next(it for it in self.forwarder.stored.receipts if it.number == change.receipts[-1])

    # undo

    async def _undo(self, request: Undo) -> Any:
        forwarder = self.forwarder
        try:
            async with forwarder.lock:
                rules = self._listeners(request.listener) if request.listener else list(forwarder.declaration.rules)
                undoable = rewire.last_rewire(forwarder.stored, [rule.listener for rule in rules])
                if undoable is None:
                    where = f" of {request.listener}" if request.listener else ""
                    raise UsageError(f"undo: there is no rewire{where} to go back from", hint="dom0-ambassador history")
                if request.receipt not in (0, undoable.receipt):
                    said = f"undo: rewire {request.receipt} is not the last one any more: that is {undoable.receipt}"
                    raise UsageError(said, hint="dom0-ambassador history")
                concerned = [it for it in forwarder.declaration.rules if str(it.listener) in undoable.sources]
                policies = _policies(concerned, request.existing, request.udp)
                wished = rewire.wishes_before(forwarder.stored, undoable)
                wants = forwarder.wants(wished)
                found = forwarder.found()
                for rule in concerned:
                    reachable = desired.targets(forwarder.sources(rule, wished), rule, found)
                    if not reachable and (before := undoable.targets.get(str(rule.listener))):
                        wants[rule.listener] = Wanted(before)
                return await self._drive(rewire.undo(forwarder.stored, undoable, wants, policies, at=moment()))
        finally:
            forwarder.wake("undo")


def _policies(rules: Collection[Rule], existing: str, udp: Any) -> Policies:
    with _usage_error("existing"):
        choices: set[Policy] = {parse_policy(existing)} if existing else {rule.existing for rule in rules}
    moves = {udp} if udp else {rule.udp for rule in rules}
    if len(choices) > 1 or len(moves) > 1:
        hint = "say --existing and --udp, or rewire one with --listener"
        raise UsageError("existing: the listeners' settings differ", hint=hint)
    return Policies(choices.pop(), moves.pop())


async def _until_accepted(targets: Collection[Target]) -> None:
    while True:
        for target in targets:
            began = moment().ticks
            if await accepts(target, PROBE):
                return
            await asyncio.sleep(max(0.0, PROBE / len(targets) - (moment().ticks - began)))


def _key(text: str) -> str:
    """Raises UsageError, ValueError."""
    source = sources.parse(text, portless=True)
    if not isinstance(source, Followed):
        raise UsageError(f"found: {source} is not a source that is looked up")
    return source.key


def _address(text: str) -> str:
    """Raises ValueError."""
    return sources.usable(ipaddress.ip_address(text))


def _place(text: str) -> str:
    """Raises ValueError."""
    return str(sources.parse_place(text))


def _some(listeners: Iterable[Listener]) -> str:
    return ", ".join(map(str, islice(listeners, 10)))


@contextlib.contextmanager
def _usage_error(field: str) -> Iterator[None]:
    """A ValueError in the block is the fault of what `field` of the request says."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{field}: {error}") from error
