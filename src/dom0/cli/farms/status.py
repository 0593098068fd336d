"""`dom0 farm status`: what the nodes of a farm run, and what not."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

import click
import msgspec
from msgspec.structs import replace

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.cli.farms.floating import FloatChange, as_changes, decide_now, due
from dom0.errors import EXIT_CHANGES
from dom0.farms import paused, rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_steps import FloatObject
from dom0.farms.nodes import SEEN_EACH, NodeState
from dom0.farms.revisions import NOTHING_FLOATS, Revision, RoleState
from dom0.farms.rollout import NodeTarget, NodeView
from dom0.times import ago

LOOK_AGAIN = 1.0  # seconds, with --watch
_COLOURS = {"STATE": {"good": "green", "failed": "red", "trying": "cyan"}}
_HEADS = ("NODE", "ROLE", "REVISION", "STATE", "BASE OS", "SEEN", "")


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `revision`, `state`, `reason` and `os` are what it said last; `fetched`: it has all of the
    current revision; `target`: the revision that it is told to run, 0 for what it has; `waits`: what for, or what it
    does; `last_seen`: seconds since the epoch, to the minute.
    """

    name: str
    role: str
    revision: int
    state: str
    reason: str
    fetched: bool
    target: int
    waits: str
    os: str
    last_seen: float


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `running` of `wanted` tasks, on which `nodes`; `changing`: some of them may still be those
    of before; `said`: what is the matter, by Swarm's words.
    """

    project: str
    name: str
    running: int
    wanted: int
    nodes: tuple[str, ...]
    changing: bool
    said: str


class FloatStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it, of what floats. `writer`: the node that writes to the Swarm, "" where none can; `waits`:
    by node, what it does or what keeps it; `steps`: what is still to be done there.
    """

    writer: str
    managers: tuple[str, ...]
    waits: dict[str, str]
    services: tuple[ServiceStatus, ...]
    steps: tuple[FloatChange, ...]


class FarmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `revision`: the current one, 0 before the first; `os`: the version of its base OS;
    `paused`: by role why; `locked`: who reboots; `unstarted`: by node the base OS that it was served and did not come
    up with; `superseded`: another copy of the farm's directory is its server.
    """

    farm: str
    revision: int
    os: str
    paused: dict[str, str]
    drained: tuple[str, ...]
    locked: tuple[rollout.Lock, ...]
    unstarted: dict[str, str]
    superseded: bool
    nodes: tuple[NodeStatus, ...]
    floating: FloatStatus


@click.command("status", short_help="What the nodes of a farm run, and what they wait for.")
@farm_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="An object: farm, revision, os, paused, drained, locked, unstarted, superseded, nodes, floating; with --watch "
    "one a line.",
)
@click.option("-w", "--watch", is_flag=True, help="Stay, and show every change until Ctrl-C.")
def status(farm: FarmDirectory, as_json: bool, watch: bool) -> int:
    """What the nodes of a farm run, in which revision, and what those wait for that do not run the current one.

    It is what each node said last, also while no server runs. Ends with 0 when all nodes run the current revision but
    those that are drained, else with 10.

    $ dom0 farm status --dir attic
    $ dom0 farm status --watch
    """
    found = look(farm)
    if watch:
        _watch(farm, found, as_json=as_json)
    if as_json:
        terminal.say_json(found.document)
    else:
        click.echo("\n".join(_lines(found)))
    drained = found.document.drained
    waits = any(one.waits and one.name not in drained for one in found.document.nodes)
    return EXIT_CHANGES if waits or _is_on_its_way(found.document.floating) else 0


class Found(msgspec.Struct, frozen=True):
    """`roles`: what each of them waits for, "" where it does not; `now`: the time that nodes are silent by."""

    document: FarmStatus
    roles: dict[str, str]
    now: float

    @property
    def is_like(self) -> FarmStatus:
        """Without what changes by time alone."""
        return replace(self.document, nodes=tuple(replace(one, last_seen=0.0) for one in self.document.nodes))


def look(farm: FarmDirectory) -> Found:
    """As the server would decide now. Raises Dom0Error."""
    settings, current, state = farm.settings(), farm.current(), farm.rollout()
    nodes = [node for node in farm.nodes().nodes if node.state is not NodeState.WAITING]
    last = {node.key: node.last for node in nodes}
    views = rollout.views(nodes, farm.reports(), last)
    now = min(time.time(), max(last.values(), default=0.0) + SEEN_EACH)  # while no server runs nobody is silent
    found = rollout.step(state, settings, current, views, now, since=farm.current_since())
    document = FarmStatus(
        farm=settings.name,
        revision=current.number if current else 0,
        os=current.os.version if current and current.os else "",
        paused={role: one.why for role, one in state.pauses.items()},
        drained=state.drained,
        locked=state.locks,
        unstarted={name: one.os for name, one in state.boots.tried.items() if state.boots.has_failed(name, one.os)},
        superseded=farm.epochs().is_superseded,
        nodes=tuple(_status(view, current, found.targets[view.name]) for view in views),
        floating=_float_status(farm, settings.name, current, now),
    )
    return Found(document, found.roles, now)


def _watch(farm: FarmDirectory, found: Found, *, as_json: bool) -> NoReturn:
    """Until Ctrl-C."""
    if sys.stdout.isatty() and not as_json:
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, screen=False) as live:
            while True:
                live.update(Text.from_ansi("\n".join(_lines(found))), refresh=True)
                time.sleep(LOOK_AGAIN)
                found = look(farm)
    said = None
    while True:
        if found.is_like != said:
            said = found.is_like
            if as_json:
                terminal.say_json_line(found.document)
            else:
                click.echo("\n".join(_lines(found)) + "\n")
        time.sleep(LOOK_AGAIN)
        found = look(farm)


def _lines(found: Found) -> list[str]:
    """For people; nothing in it is unescaped."""
    document, now = found.document, time.time()
    rows = []
    for one in document.nodes:
        seen = ago(now - one.last_seen)
        rows.append((one.name, one.role, str(one.revision or "-"), one.state, one.os or "-", seen, why(found, one)))
    head = f"revision {document.revision}" if document.revision else "no revision: dom0 farm up"
    head += f", base OS {document.os}" if document.os else ""
    table = terminal.columns(_HEADS, rows, colours=_COLOURS)
    said = map(terminal.printable, remarks(found))
    return [f"{document.farm}: {head}", *table, *said, *_floating_lines(document.floating)]


def why(found: Found, node: NodeStatus) -> str:
    """What the node waits for or does, without what is said of its role."""
    of_role = found.roles.get(node.role, "")
    waits = "waits" if node.waits and node.waits == of_role else node.waits
    return "; ".join(filter(None, (waits, "" if node.reason in of_role else node.reason)))


def remarks(found: Found) -> list[str]:
    """What there is to say beside the nodes, but of what floats."""
    document, now = found.document, time.time()
    said = ["another copy of this farm was promoted: all of this is old"] if document.superseded else []
    said += [f"{role}: {why}" for role, why in found.roles.items() if why]
    said += [f"next: {paused.ways_on(role)}" for role in document.paused]
    said += [f"{lock.id}: has a reboot lock of {lock.group} for {ago(now - lock.since)}" for lock in document.locked]
    said += [
        f"{name}: did not come up with the base OS {os} and gets the last other good one, if there is one; "
        "again with it: dom0 farm resume"
        for name, os in document.unstarted.items()
    ]
    return said


def _float_status(farm: FarmDirectory, name: str, current: Revision | None, now: float) -> FloatStatus:
    floating = current.floating if current else NOTHING_FLOATS
    found = decide_now(farm, floating, now)
    by_key = {node.key: node.name for node in farm.nodes().nodes}
    ours = sorted((one for one in found.objects if one.kind == "service" and one.farm == name), key=_by_name)
    is_used = floating.projects or ours
    return FloatStatus(
        writer=found.writer,
        managers=tuple(sorted(by_key[key] for key in found.state.managers if key in by_key)),
        waits=found.why if is_used else {},
        services=tuple(
            ServiceStatus(
                project=one.project,
                name=one.name,
                running=one.running,
                wanted=one.wanted,
                nodes=one.nodes,
                changing=one.update in ("updating", "rollback_started"),
                said=one.said,
            )
            for one in ours
        ),
        steps=as_changes(due(found, name, floating.projects)) if current else (),
    )


def _by_name(one: FloatObject) -> str:
    return one.name


def _is_on_its_way(floating: FloatStatus) -> bool:
    moves = any(one.changing or one.running < one.wanted for one in floating.services)
    return bool(floating.waits or floating.steps or moves)


def _floating_lines(floating: FloatStatus) -> list[str]:
    rows = [
        (one.name, f"{one.running}/{one.wanted}", ", ".join(one.nodes) or "-", one.said) for one in floating.services
    ]
    table = terminal.columns(("FLOAT", "TASKS", "NODES", ""), rows, colours={}) if rows else []
    return [*table, *map(terminal.printable, floating_remarks(floating))]


def floating_remarks(floating: FloatStatus) -> list[str]:
    said = [f"{step.kind} {step.name}: {step.change}: {step.why}" for step in floating.steps]
    return said + [f"{node}: float: {why}" for node, why in floating.waits.items()]


def _status(node: NodeView, current: Revision | None, target: NodeTarget) -> NodeStatus:
    content = current.roles.get(node.role) if current else None
    report = node.report
    os_reason = "" if report.has_os(current.os if current else None) else report.os_reason
    return NodeStatus(
        name=node.name,
        role=node.role,
        revision=report.revision,
        state="-" if report.state is RoleState.NONE else report.state.value,
        reason=report.reason or os_reason,
        fetched=content is not None and report.fetched == content.digest,
        target=target.run,
        waits=target.why,
        os=report.os,
        last_seen=node.last,
    )
