"""`dom0 farm pause`, `resume`, `drain`, `undrain` and `unlock`: what people say of a roll-out and of reboots."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import msgspec

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.farms import lock, rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.rollout import RolloutState

role_argument = click.argument("role", metavar="[ROLE]", default="")
node_argument = click.argument("name", metavar="NODE")
paused_option = click.option("--json", "as_json", is_flag=True, help="An object: paused, by role why.")
drained_option = click.option("--json", "as_json", is_flag=True, help="An object: drained, a list of nodes.")


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    paused: dict[str, str]


class DrainedNodes(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it."""

    drained: tuple[str, ...]


@click.command("pause", short_help="Let no node begin with a revision.")
@role_argument
@farm_option
@paused_option
def pause(role: str, farm: FarmDirectory, as_json: bool) -> None:
    """Let no node of ROLE, or of any role, begin with a revision until dom0 farm resume.

    Those that have begun come to their end, and all go on to fetch. What runs is not touched.

    $ dom0 farm pause web
    """
    _change_pauses(lambda state, roles: rollout.pause(state, roles, time.time()), role, farm, "paused", as_json)


@click.command("resume", short_help="Let a role go on that is paused.")
@role_argument
@farm_option
@paused_option
def resume(role: str, farm: FarmDirectory, as_json: bool) -> None:
    """Let ROLE, or all roles, go on: a node that has failed tries again before any other one.

    To go on without that node, dom0 farm drain it first.

    $ dom0 farm resume web
    """
    _change_pauses(rollout.resume, role, farm, "goes on", as_json)


@click.command("drain", short_help="Give a node nothing.")
@node_argument
@farm_option
@drained_option
def drain(name: str, farm: FarmDirectory, as_json: bool) -> None:
    """Give a node nothing to fetch and to run until dom0 farm undrain. The others do not wait for it.

    What it runs goes on.

    $ dom0 farm drain pi2
    """
    _change_drains(rollout.drain, name, farm, "gets nothing any more", as_json)


@click.command("undrain", short_help="Let a node that was drained follow again.")
@node_argument
@farm_option
@drained_option
def undrain(name: str, farm: FarmDirectory, as_json: bool) -> None:
    """Let a node that was drained follow its role again.

    $ dom0 farm undrain pi2
    """
    _change_drains(rollout.undrain, name, farm, "follows its role", as_json)


@click.command("unlock", short_help="Take the reboot lock of a machine away.")
@node_argument
@farm_option
@click.option("--json", "as_json", is_flag=True, help="An object: group, id, since, foreign.")
def unlock(name: str, farm: FarmDirectory, as_json: bool) -> None:
    """Take the reboot lock away that a node, or another machine by its id, has and does not give back.

    See first that it is not rebooting: the next one may as soon as this returns.

    $ dom0 farm unlock pi2
    """
    farm.settings()
    found = farm.change_rollout(lambda before: lock.unlock(before, name))
    terminal.say_done(found, f"{name}: has no reboot lock of {found.group} any more", as_json=as_json)


def _change_pauses(
    change: Callable[[RolloutState, list[str]], RolloutState], role: str, farm: FarmDirectory, said: str, as_json: bool
) -> None:
    farm.settings()
    if role:
        farm.check_role(role)
    roles = [role] if role else farm.roles()
    after = farm.change_rollout(lambda before: (after := change(before, roles), after))
    paused = {role: one.why for role, one in after.pauses.items()}
    terminal.say_done(Paused(paused=paused), *(f"{role}: {said}" for role in roles), as_json=as_json)


def _change_drains(
    change: Callable[[RolloutState, str], RolloutState], name: str, farm: FarmDirectory, said: str, as_json: bool
) -> None:
    farm.settings()
    farm.nodes().named(name)
    after = farm.change_rollout(lambda before: (after := change(before, name), after))
    terminal.say_done(DrainedNodes(drained=after.drained), f"{name}: {said}", as_json=as_json)
