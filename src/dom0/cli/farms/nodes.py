"""`dom0 farm nodes`, `approve`, `assign` and `remove`: which machines are nodes of a farm, on its server."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click
import msgspec

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.farms import nodes as registry
from dom0.farms import rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import Node
from dom0.times import ago

_FIELDS = "name, state, role, code, hostname, mac, architecture, memory, address, first_seen, last_seen"
_COLOURS = {"STATE": {"enrolled": "green", "approved": "green"}}
json_option = click.option("--json", "as_json", is_flag=True, help=f"An object: {_FIELDS}.")
role_option = click.option("--role", metavar="ROLE", required=True, help="What it is to run: a directory of roles/.")


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. Empty is what it has not; times are ISO 8601, `memory` is bytes."""

    name: str
    state: str
    role: str
    code: str
    hostname: str
    mac: str
    architecture: str
    memory: int
    address: str
    first_seen: str
    last_seen: str


@click.command("nodes", short_help="The machines of a farm: which wait, and which are nodes.")
@farm_option
@click.option("--json", "as_json", is_flag=True, help=f"A list of objects: {_FIELDS}.")
def nodes(farm: FarmDirectory, as_json: bool) -> None:
    """The machines of a farm: which wait and with which code, and which are nodes.

    MACHINE (its host name, or the network card that it starts from), architecture and memory are what it says of
    itself, before anybody has approved it: go by the code on its screen. SEEN is when it was heard of, to the minute.

    $ dom0 farm nodes --dir attic
    """
    farm.settings()
    found = sorted(farm.nodes().nodes, key=lambda node: (bool(node.name), node.name, node.first))
    now = time.time()
    rows = [
        (
            node.name or "-",
            node.state.value,
            node.role or "-",
            node.code or "-",
            node.machine.hostname or _mac(node) or "-",
            node.machine.architecture or "-",
            terminal.size(node.machine.memory) if node.machine.memory else "-",
            node.address,
            ago(now - node.last),
        )
        for node in found
    ]
    heads = ("NODE", "STATE", "ROLE", "CODE", "MACHINE", "ARCHITECTURE", "MEMORY", "ADDRESS", "SEEN")
    terminal.say_table([info(node) for node in found], heads, rows, as_json=as_json, colours=_COLOURS)


@click.command("approve", short_help="Make a machine that waits a node of the farm.")
@click.argument("code")
@click.option("--as", "name", metavar="NAME", required=True, help="What the node is called.")
@role_option
@farm_option
@json_option
def approve(code: str, name: str, role: str, farm: FarmDirectory, as_json: bool) -> None:
    """Make the machine that shows CODE a node of the farm.

    Take the code from the machine's own screen, not from a list: whoever reaches the server can make one wait.

    $ dom0 farm approve db6916 --as nas --role store
    """
    farm.settings()
    farm.check_role(role)
    node = farm.change(lambda before: registry.approve(before, code, name, role))
    terminal.say_done(
        info(node), f"{name}: approved, with the role {role}; it is told when it asks again", as_json=as_json
    )


@click.command("assign", short_help="Give a node another role.")
@click.argument("name", metavar="NODE")
@click.argument("role")
@farm_option
@json_option
def assign(name: str, role: str, farm: FarmDirectory, as_json: bool) -> None:
    """Give a node another role. It takes it from the server by itself, if the current revision has one of that name.

    $ dom0 farm assign nas backup
    """
    farm.settings()
    farm.check_role(role)
    node = farm.change(lambda before: registry.assign(before, name, role))
    terminal.say_done(info(node), f"{name}: has the role {role}", as_json=as_json)


@click.command("remove", short_help="Let a machine be a node no more, or not wait.")
@click.argument("which", metavar="NODE|CODE")
@farm_option
@json_option
def remove(which: str, farm: FarmDirectory, as_json: bool) -> None:
    """Let a machine be a node no more, or one that waits not wait.

    What it runs goes on. When it asks again it waits with another code, as a machine that was never here.

    $ dom0 farm remove nas
    """
    farm.settings()
    node = farm.change(lambda before: registry.remove(before, which))
    farm.change_rollout(lambda state: (rollout.forget(state, node.name), None))
    terminal.say_done(info(node), f"{which}: is not known any more", as_json=as_json)


def info(node: Node) -> NodeInfo:
    return NodeInfo(
        name=node.name,
        state=node.state.value,
        role=node.role,
        code=node.code,
        hostname=node.machine.hostname,
        mac=_mac(node),
        architecture=node.machine.architecture,
        memory=node.machine.memory,
        address=node.address,
        first_seen=_iso(node.first),
        last_seen=_iso(node.last),
    )


def _mac(node: Node) -> str:
    return node.firmware.mac if node.firmware else ""


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
