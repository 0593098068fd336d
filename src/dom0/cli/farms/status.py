"""`dom0 farm status`: what the nodes of a farm run, and what not."""

from __future__ import annotations

import time

import click
import msgspec

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import Node, NodeState
from dom0.farms.revisions import Report, Revision, RoleState
from dom0.times import ago

_COLOURS = {"STATE": {"good": "green", "failed": "red", "trying": "cyan"}}
_HEADS = ("NODE", "ROLE", "REVISION", "STATE", "BASE OS", "SEEN", "REASON")


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `revision`, `state`, `reason` and `os` are what it said last; `fetched`: it has all of the
    current revision; `last_seen`: seconds since the epoch, to the minute.
    """

    name: str
    role: str
    revision: int
    state: str
    reason: str
    fetched: bool
    os: str
    last_seen: float


class FarmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `revision`: the current one, 0 before the first."""

    farm: str
    revision: int
    nodes: tuple[NodeStatus, ...]


@click.command("status", short_help="What the nodes of a farm run, and what not.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="An object: farm, revision, nodes.")
def status(farm: FarmDirectory, as_json: bool) -> None:
    """What the nodes of a farm run, in which revision, and why not the current one.

    It is what each node said last, also while no server runs.

    $ dom0 farm status --dir attic
    """
    settings, current, reports = farm.settings(), farm.current(), farm.reports()
    found = [
        _status(node, reports.get(node.key, Report()), current)
        for node in sorted(farm.nodes().nodes, key=lambda node: node.name)
        if node.state is not NodeState.WAITING
    ]
    number = current.number if current else 0
    if not as_json:
        terminal.say(
            f"{settings.name}: revision {number}" if current else f"{settings.name}: no revision: dom0 farm up"
        )
    now = time.time()
    rows = [
        (
            one.name,
            one.role,
            str(one.revision or "-"),
            one.state,
            one.os or "-",
            ago(now - one.last_seen),
            one.reason,
        )
        for one in found
    ]
    document = FarmStatus(farm=settings.name, revision=number, nodes=tuple(found))
    terminal.say_table(document, _HEADS, rows, as_json=as_json, colours=_COLOURS)


def _status(node: Node, report: Report, current: Revision | None) -> NodeStatus:
    content = current.roles.get(node.role) if current else None
    return NodeStatus(
        name=node.name,
        role=node.role,
        revision=report.revision,
        state="-" if report.state is RoleState.NONE else report.state.value,
        reason=report.reason,
        fetched=content is not None and report.fetched == content.digest,
        os=report.os,
        last_seen=node.last,
    )
