"""What is wrong with an ambassador, as values, from what is known of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from dom0.ambassador.capabilities import Lack
from dom0.ambassador.declaration import Declaration, Last
from dom0.forward.table import Down, Listener, Table
from dom0.health import Problem, Severity

NEARLY_FULL = 0.9  # of the kernel's table of connections


class ProblemFacts(msgspec.Struct, frozen=True):
    declaration: Declaration
    table: Table
    unresolved: Mapping[str, str] = {}  # name -> why
    missing: Collection[str] = ()  # sources that the agent follows and that are not there
    loops: Mapping[Listener, str] = {}  # -> target that is the listener itself
    unhealthy: Collection[str] = ()
    panic: Collection[Listener] = ()  # no target is up
    refused: str = ""  # what the plane said of the table
    state: str = ""  # what kept the state from the disk
    damaged: str = ""
    connections: tuple[int, int] | None = None  # of the kernel's table: there are, may be
    lacks: tuple[Lack, ...] = ()


def problems(facts: ProblemFacts, since: Mapping[tuple[str, str], float], now: float) -> tuple[Problem, ...]:
    """`since` are the times of those that were there before, by code and subject."""
    found = [*_of_targets(facts), *_of_the_machine(facts)]
    return tuple(msgspec.structs.replace(it, since=since.get((it.code, it.subject), now)) for it in found)


def _of_targets(facts: ProblemFacts) -> Iterator[Problem]:
    for name, why in sorted(facts.unresolved.items()):
        title, hint = f"the name {name} is not found: {why}", "new connections go to the previous targets"
        yield Problem(code="ambassador-name", subject=name, title=title, hint=hint)
    for source in sorted(facts.missing):
        title = f"{source} is not found"
        yield Problem(code="ambassador-source", subject=source, title=title, hint="it is used as soon as it runs")
    for listener, target in sorted(facts.loops.items()):
        title = f"{target} is this ambassador's own listener: a loop"
        yield Problem(code="ambassador-loop", subject=str(listener), title=title, hint="name the provider")
    for listener in sorted(facts.panic):
        route, rule = facts.table.by_listener.get(listener), facts.declaration.rule(listener)
        meets = {Down.REFUSE: "are refused", Down.HOLD: "wait", None: "are still sent to the last one"}
        title = f"no target accepts a connection; new ones {meets[route.down if route else Down.REFUSE]}"
        hint = "`down` of the listener can say refuse or hold" if rule and isinstance(rule.down, Last) else ""
        yield Problem(code="ambassador-down", subject=str(listener), title=title, hint=hint)
    every = {str(target) for route in facts.table.routes for target in route.targets}
    for target in sorted(set(facts.unhealthy) - every):
        title = f"{target} accepts no connection, and none is sent to it"
        hint = "the other targets take its share"
        yield Problem(code="ambassador-target", subject=target, title=title, severity=Severity.WARNING, hint=hint)


def _of_the_machine(facts: ProblemFacts) -> Iterator[Problem]:
    if facts.refused:
        title = f"the nftables rules could not be set, the previous ones stay in force: {facts.refused}"
        yield Problem(code="ambassador-rules", subject="rules", title=title, hint="it is tried again")
    if title := facts.damaged or facts.state:
        unwritten = "free space: a rewire does not outlive the ambassador until then"
        hint = "rewires before are forgotten; the declaration is in force" if facts.damaged else unwritten
        yield Problem(code="ambassador-state", subject="state", title=title, severity=Severity.WARNING, hint=hint)
    if facts.connections and facts.connections[0] >= NEARLY_FULL * facts.connections[1]:
        count, most = facts.connections
        title = f"conntrack has {count} connections, of at most {most}"
        hint = "on the host: sysctl net.netfilter.nf_conntrack_max"
        yield Problem(code="ambassador-full", subject="conntrack", title=title, severity=Severity.WARNING, hint=hint)
    for it in facts.lacks:
        severity = Severity.WARNING
        yield Problem(code="ambassador-lacks", subject=it.name, title=it.means, severity=severity, hint=it.remedy)
