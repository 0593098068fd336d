"""`dom0 farm plan`, `up`, `history` and `rollback`: what the nodes of a farm are to run."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import sizes, terminal, times
from dom0.cli.engine_client import on_engine
from dom0.cli.farms.farm_option import farm_option
from dom0.cli.farms.floating import FloatChange, as_changes, steps_now
from dom0.cli.report import Report
from dom0.errors import EXIT_CHANGES
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_content import FloatProject
from dom0.farms.revisions import BaseOs, Revision, changed, changed_roles, find_earlier, revise
from dom0.names import short_id

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine

_HEADS = ("ROLE", "CHANGE", "NODES")
_FLOAT_HEADS = ("FLOAT", "NAME", "CHANGE", "WHY")
_BASE_OS = "base OS"  # in the place of a role, which has no such name
_FLOAT = "float/"  # before the name of a project that floats, in the place of a role
_COLOURS = {"CHANGE": {"removed": "red", "new": "green", "changed": "cyan"}}
_FLOAT_COLOURS = {"CHANGE": {"remove": "red", "create": "green", "update": "cyan", "stays": "red"}}


class RoleChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """As `--json` prints it. `nodes`: which have the role; `base OS` has all. Of a project that floats, as float/NAME,
    `steps`: what is to be done in the Swarm.
    """

    role: str
    change: str
    nodes: tuple[str, ...]
    steps: tuple[FloatChange, ...] = ()


class RevisionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `roles`: by name, the ID of its dom0 image on an Engine with a graph driver."""

    number: int
    made: float  # seconds since the epoch
    current: bool
    roles: dict[str, str]


class Revised(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `changes`: of what the nodes are to run."""

    revision: int
    changes: tuple[RoleChange, ...]


@click.command("plan", short_help="Which roles `dom0 farm up` would change, and on which nodes.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="A list of objects: role, change, nodes, steps.")
def plan(farm: FarmDirectory, as_json: bool) -> int:
    """Say which roles `dom0 farm up` would change, and on which nodes; refuse what it would refuse. Changes nothing.

    Ends with 10 if there is something to do, with 0 if not. Images are built to see what becomes of them, as of dom0
    plan.

    $ dom0 farm plan
    """
    changes = on_engine(lambda engine: _plan(engine, farm))
    if not changes:
        terminal.say_done(changes, "nothing to do: the current revision is what the roles say", as_json=as_json)
        return 0
    _say_changes(changes, as_json=as_json)
    return EXIT_CHANGES


@click.command("up", short_help="Let the nodes run what the roles say.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="An object: revision, changes.")
def up(farm: FarmDirectory, as_json: bool) -> None:
    """Build all roles, and let the nodes of each run what it says.

    That is written down as a revision, whose images are pinned: what a tag means later changes nothing. If it is what
    an earlier revision says, that one is current again. A role that is refused changes nothing. The nodes take it from
    the server of the farm, which runs as dom0 farm serve; dom0 farm status says how far they are.

    $ dom0 farm up --dir attic
    """
    _say_revised(on_engine(lambda engine: _up(engine, farm, Report(beside=as_json))), as_json=as_json)


@click.command("rollback", short_help="Let the nodes run what an earlier revision says.")
@click.argument("number", metavar="[REVISION]", type=click.IntRange(min=1), required=False)
@farm_option
@click.option("--json", "as_json", is_flag=True, help="An object: revision, changes.")
def rollback(number: int | None, farm: FarmDirectory, as_json: bool) -> None:
    """Let the nodes run what REVISION says, or the one before the current one.

    Nothing is built: all that it is made of is in the farm's directory.

    $ dom0 farm history && dom0 farm rollback 3
    """
    farm.settings()
    before = farm.current()
    at = before.number if before else 0
    revision, _ = farm.revise(lambda known: find_earlier(known, at, number))
    _say_revised(_revised(farm, before, revision), as_json=as_json)


@click.command("history")
@farm_option
@click.option("--json", "as_json", is_flag=True, help="A list of objects: number, made, current, roles.")
def history(farm: FarmDirectory, as_json: bool) -> None:
    """List the revisions of the farm, the newest first, and what each one changed.

    $ dom0 farm history
    """
    farm.settings()
    current = farm.current()
    revisions = farm.revisions()
    found = [
        RevisionInfo(
            number=each.number,
            made=each.made,
            current=each == current,
            roles={role: content.image.config.digest for role, content in sorted(each.roles.items())},
        )
        for each in reversed(revisions)
    ]
    earlier = dict(zip((each.number for each in revisions), [None, *revisions], strict=False))
    changes: dict[int, dict[str, str]] = {}
    for each in revisions:
        before = earlier[each.number]
        floating = changed(before.floating.projects if before else {}, each.floating.projects)
        of_roles = changed_roles(before, each) | changed_os(before, each.os)
        changes[each.number] = of_roles | {f"{_FLOAT}{key}": how for key, how in floating.items()}
    rows = [
        (
            "*" if each.current else "",
            str(each.number),
            times.moment(each.made),
            ", ".join(f"{role} {short_id(id_)}" for role, id_ in each.roles.items()),
            ", ".join(f"{role} {change}" for role, change in changes[each.number].items()),
        )
        for each in found
    ]
    terminal.say_table(found, ("", "REVISION", "MADE", "ROLES", "CHANGES"), rows, as_json=as_json)


async def _plan(engine: Engine, farm: FarmDirectory) -> list[RoleChange]:
    from dom0.cli.farms.floating import check_names, pinned_floats
    from dom0.cli.farms.roles import built_roles
    from dom0.farms.publish import find_base_os

    current = farm.current()
    before = current.roles if current else {}
    floats = await pinned_floats(engine, farm, Report(beside=True))
    async with built_roles(engine, farm, Report(beside=True)) as roles:
        check_names(floats, {role: built.project for role, built in roles.items()})
        same = {role for role, content in before.items() if role in roles and roles[role].find_same([content])}
    changed_ = {role: "changed" if role in before else "new" for role in roles if role not in same}
    changed_ |= {role: "removed" for role in before if role not in roles}
    os, _ = await asyncio.to_thread(find_base_os, farm)
    roles_changes = _changes(farm, {**changed_, **changed_os(current, os)})
    return [*roles_changes, *_float_changes(farm, current, floats.projects)]


async def _up(engine: Engine, farm: FarmDirectory, report: Report) -> Revised:
    from dom0.cli.farms.floating import check_names, pinned_floats, publish_floats
    from dom0.cli.farms.roles import built_roles, publish_roles
    from dom0.farms.publish import find_base_os, keep_base_os
    from dom0.images import names

    before = farm.current()
    await asyncio.to_thread(find_base_os, farm)  # refused first, where it is none
    floats = await pinned_floats(engine, farm, report)
    async with built_roles(engine, farm, report) as roles:
        check_names(floats, {role: built.project for role, built in roles.items()})
        with farm.publishing():
            gone, freed = farm.prune()  # first: the disk may be full
            if gone:
                report.say(f"removed revisions that nobody needs: {', '.join(map(str, gone))} ({sizes.rounded(freed)})")
            contents = await publish_roles(engine, farm, roles, farm.revisions())
            floating = await publish_floats(engine, farm, floats, farm.revisions())
            os = await asyncio.to_thread(keep_base_os, farm)
            revision, _ = farm.revise(lambda known: revise(known, contents, time.time(), floating, os))
        for role in roles.values():
            await names.give(engine, {**role.built, role.tag: role.image})
    return _revised(farm, before, revision)


def _revised(farm: FarmDirectory, before: Revision | None, after: Revision) -> Revised:
    of_roles = _changes(farm, changed_roles(before, after) | changed_os(before, after.os))
    return Revised(revision=after.number, changes=(*of_roles, *_float_changes(farm, before, after.floating.projects)))


def _changes(farm: FarmDirectory, changed: dict[str, str]) -> list[RoleChange]:
    by_role: dict[str, list[str]] = {}
    for node in farm.nodes().nodes:
        for role in (node.role, *((_BASE_OS,) if node.name else ())):
            by_role.setdefault(role, []).append(node.name)
    return [
        RoleChange(role=role, change=change, nodes=tuple(sorted(by_role.get(role, ()))))
        for role, change in sorted(changed.items())
    ]


def changed_os(before: Revision | None, after: BaseOs | None) -> dict[str, str]:
    was = before.os if before else None
    return changed({_BASE_OS: was} if was else {}, {_BASE_OS: after} if after else {})


def _float_changes(farm: FarmDirectory, before: Revision | None, after: dict[str, FloatProject]) -> list[RoleChange]:
    """With what is there now: what was said to be done before, and is not yet, is not repeated."""
    found = changed(before.floating.projects if before else {}, after)
    due = steps_now(farm, after, time.time()) if found else ()
    return [
        RoleChange(
            role=f"{_FLOAT}{name}",
            change=change,
            nodes=(),
            steps=as_changes([one for one in due if one.project == name]),
        )
        for name, change in found.items()
    ]


def _say_changes(changes: list[RoleChange] | tuple[RoleChange, ...], *, as_json: bool) -> None:
    rows = [(each.role, each.change, ", ".join(each.nodes) or "-") for each in changes]
    terminal.say_table(changes, _HEADS, rows, as_json=as_json, colours=_COLOURS)
    steps = [(one.kind, one.name, one.change, one.why) for each in changes for one in each.steps]
    if steps and not as_json:
        terminal.say_table(steps, _FLOAT_HEADS, steps, as_json=False, colours=_FLOAT_COLOURS)


def _say_revised(revised: Revised, *, as_json: bool) -> None:
    if as_json or not revised.changes:
        said = f"revision {revised.revision}: nothing changes"
        terminal.say_done(revised, said, as_json=as_json)
        return
    terminal.say(f"revision {revised.revision}")
    _say_changes(revised.changes, as_json=False)
