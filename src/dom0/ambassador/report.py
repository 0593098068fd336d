"""What an ambassador says of itself: its state as a document, its problems. Changes nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dom0.ambassador import desired
from dom0.ambassador.capabilities import Lack
from dom0.ambassador.forwarder import Forwarder
from dom0.ambassador.messages import ListenerState, State
from dom0.ambassador.problems import ProblemFacts, problems
from dom0.ambassador.sources import Followed
from dom0.ambassador.state import moment
from dom0.forward.table import Down
from dom0.health import Problem

_CONNTRACK = Path("/proc/sys/net/netfilter")


class Reporter:
    def __init__(self, forwarder: Forwarder, version: str, lacks: tuple[Lack, ...] = ()) -> None:
        self._forwarder = forwarder
        self._version = version
        self._lacks = lacks
        self._since: dict[tuple[str, str], float] = {}

    def state(self) -> State:
        """`flows` are not counted: that takes a look at the kernel."""
        forwarder, stored = self._forwarder, self._forwarder.stored
        found, routes = forwarder.found(), stored.table.by_listener
        listeners = []
        for rule in forwarder.declaration.rules:
            route, now = routes.get(rule.listener), forwarder.sources(rule)
            targets = desired.targets(now, rule, found)
            listeners.append(
                ListenerState(
                    listener=str(rule.listener),
                    generation=route.generation if route else 0,
                    sources=tuple(map(str, now)),
                    targets=tuple(map(str, route.targets)) if route else (),
                    unhealthy=tuple(it for it in map(str, targets) if it in found.unhealthy),
                    down=str(route.down or "") if route else Down.REFUSE,
                    rewired=str(rule.listener) in stored.wishes,
                    plaintext=rule.listener in forwarder.declaration.plaintext,
                )
            )
        return State(
            version=self._version,
            plane=forwarder.plane.name,
            revision=stored.revision,
            table=stored.table,
            listeners=tuple(listeners),
            existing={str(rule.listener): str(rule.existing) for rule in forwarder.declaration.rules},
            shortcut=forwarder.declaration.shortcut,
            problems=self.problems(),
            receipts=stored.receipt,
            drains=(*stored.past, *stored.drains),
            old=stored.old,
            undone=tuple(it.number for it in stored.receipts if it.undone),
        )

    def problems(self) -> tuple[Problem, ...]:
        forwarder = self._forwarder
        found = forwarder.found()
        active = [source for rule in forwarder.declaration.rules for source in forwarder.sources(rule)]
        facts = ProblemFacts(
            declaration=forwarder.declaration,
            table=forwarder.stored.table,
            unresolved=dict(forwarder.names.errors),
            missing={str(it) for it in active if isinstance(it, Followed) and not found.addresses.get(it.key)},
            loops=forwarder.loops(),
            unhealthy=found.unhealthy,
            panic=forwarder.panic,
            refused=forwarder.refused,
            state=forwarder.file.error,
            damaged=forwarder.damaged,
            connections=connections(),
            lacks=self._lacks,
        )
        listed = problems(facts, self._since, moment().now)
        self._since = {(it.code, it.subject): it.since for it in listed}
        return listed


def connections() -> tuple[int, int] | None:
    """How many connections the kernel follows here, and how many it may; None where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        count, most = ((_CONNTRACK / f"nf_conntrack_{name}").read_text() for name in ("count", "max"))
        return int(count), int(most)
    return None
