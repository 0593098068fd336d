"""`dom0 farm status`: what the nodes of a farm run, and what not."""

from __future__ import annotations

import time

import click
import msgspec

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.errors import EXIT_CHANGES
from dom0.farms import rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import SEEN_EACH, NodeState
from dom0.farms.revisions import Revision, RoleState
from dom0.farms.rollout import NodeView, Target
from dom0.times import ago

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


class FarmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `revision`: the current one, 0 before the first; `paused`: by role why; `locked`: who
    reboots.
    """

    farm: str
    revision: int
    paused: dict[str, str]
    drained: tuple[str, ...]
    locked: tuple[rollout.Lock, ...]
    nodes: tuple[NodeStatus, ...]


@click.command("status", short_help="What the nodes of a farm run, and what they wait for.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="An object: farm, revision, paused, drained, locked, nodes.")
def status(farm: FarmDirectory, as_json: bool) -> int:
    """What the nodes of a farm run, in which revision, and what those wait for that do not run the current one.

    It is what each node said last, also while no server runs. Ends with 0 when all nodes run the current revision but
    those that are drained, else with 10.

    $ dom0 farm status --dir attic
    """
    settings, current, state = farm.settings(), farm.current(), farm.rollout()
    nodes = [node for node in farm.nodes().nodes if node.state is not NodeState.WAITING]
    last = {node.key: node.last for node in nodes}
    views = rollout.views(nodes, farm.reports(), last)
    now = min(time.time(), max(last.values(), default=0.0) + SEEN_EACH)  # while no server runs nobody is silent
    found = rollout.step(state, settings, current, views, now, since=farm.current_since())
    document = FarmStatus(
        farm=settings.name,
        revision=current.number if current else 0,
        paused={role: one.why for role, one in state.pauses.items()},
        drained=state.drained,
        locked=state.locks,
        nodes=tuple(_status(view, current, found.targets[view.name]) for view in views),
    )
    if not as_json:
        said = f"revision {current.number}" if current else "no revision: dom0 farm up"
        terminal.say(f"{settings.name}: {said}")
    rows = [
        (
            one.name,
            one.role,
            str(one.revision or "-"),
            one.state,
            one.os or "-",
            ago(time.time() - one.last_seen),
            "waits" if one.waits and one.waits == found.roles.get(one.role) else one.waits or one.reason,
        )
        for one in document.nodes
    ]
    terminal.say_table(document, _HEADS, rows, as_json=as_json, colours=_COLOURS)
    if not as_json:
        for role, why in found.roles.items():
            if why:
                terminal.say(f"{role}: {why}")
        for role in document.paused:
            terminal.say(f"next: dom0 farm resume {role}, or another revision: dom0 farm rollback, dom0 farm up")
        for lock in state.locks:
            terminal.say(f"{lock.id}: has a reboot lock of {lock.group} for {ago(time.time() - lock.since)}")
    return EXIT_CHANGES if any(one.waits and one.name not in state.drained for one in document.nodes) else 0


def _status(node: NodeView, current: Revision | None, target: Target) -> NodeStatus:
    content = current.roles.get(node.role) if current else None
    report = node.report
    return NodeStatus(
        name=node.name,
        role=node.role,
        revision=report.revision,
        state="-" if report.state is RoleState.NONE else report.state.value,
        reason=report.reason,
        fetched=content is not None and report.fetched == content.digest,
        target=target.run,
        waits=target.why,
        os=report.os,
        last_seen=node.last,
    )
