"""`dom0 farm tree`: all that a farm is made of, each below what it belongs to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import click
import msgspec

from dom0 import terminal
from dom0.cli.farms.farm_option import farm_option
from dom0.cli.farms.nodes import NodeInfo, info
from dom0.cli.farms.status import NodeStatus, ServiceStatus, look
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import Node, NodeState
from dom0.farms.revisions import NodeReport, Revision, RoleContent, RoleState
from dom0.farms.rollout import SILENT
from dom0.http import blocking
from dom0.names import FARM_SOCKET, short_id
from dom0.terminal import Branch
from dom0.times import ago, moment

READY = "ready"
_LOOK_WITHIN = 1.0  # seconds
_NOT_YET = {
    NodeState.APPROVED: "has not asked since it was approved",
    NodeState.LOADING: "has got its base OS, and dom0 there has not asked yet",
}


class FarmImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `id`: where containerd keeps it."""

    reference: str
    id: str


class FarmNode(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `standing`: approved, loading, enrolled, or ready where it runs the current revision and
    was heard of; `why`: what keeps it from that, or what it does; `images`: of what it runs, as far as that is known.
    """

    standing: str
    why: str
    images: tuple[FarmImageInfo, ...]
    machine: NodeInfo
    status: NodeStatus


class FarmRole(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `images`: of the current revision; `waits`: what its nodes wait for."""

    name: str
    waits: str
    images: tuple[FarmImageInfo, ...]
    nodes: tuple[FarmNode, ...]


class FarmFloat(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it: a directory of float/."""

    name: str
    services: tuple[ServiceStatus, ...]


class FarmTree(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `served`: whether a server of the farm runs on this machine, which is to answer at
    `listen`; `floating_waits`: by node, what keeps it from the Swarm.
    """

    farm: str
    listen: str
    served: bool
    revision: int
    waiting: tuple[NodeInfo, ...]
    roles: tuple[FarmRole, ...]
    floating: tuple[FarmFloat, ...]
    floating_waits: dict[str, str]


@click.command("tree", short_help="Server, roles, nodes and images of a farm, as a tree.")
@farm_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="An object: farm, listen, served, revision, waiting, roles, floating, floating_waits.",
)
@click.option("--no-trunc", is_flag=True, help="Show whole image IDs.")
def tree(farm: FarmDirectory, as_json: bool, no_trunc: bool) -> None:
    """Show what a farm is made of: its server, the machines that wait, each role with its images and nodes, and the
    projects that float.

    A node is ready where it runs the current revision and was heard of in the last three minutes; else the line says
    why not. Images are below a node where they are others than those of its role. It is what each node said last, also
    while no server runs.

    $ dom0 farm tree --dir attic
    $ dom0 farm tree --json | jq '.roles[].nodes[] | select(.standing != "ready") | .why'
    """
    found = arrange(farm)
    terminal.say_result(found, *draw(found, whole_ids=no_trunc), as_json=as_json)


def arrange(farm: FarmDirectory) -> FarmTree:
    """Raises Dom0Error."""
    seen, current, settings = look(farm), farm.current(), farm.settings()
    machines, reports = farm.nodes().nodes, farm.reports()
    by_name = {node.name: node for node in machines if node.name}
    nodes: dict[str, list[FarmNode]] = {role: [] for role in {*farm.roles(), *(current.roles if current else ())}}
    for status in seen.document.nodes:
        node = by_name[status.name]
        images = _images(_content(farm, current, reports.get(node.key, NodeReport())))
        nodes.setdefault(status.role, []).append(_node(node, status, images, seen.now))
    services: dict[str, list[ServiceStatus]] = {
        name: [] for name in {*farm.floats(), *(current.floating.projects if current else ())}
    }
    for service in seen.document.floating.services:
        services.setdefault(service.project, []).append(service)
    return FarmTree(
        farm=settings.name,
        listen=settings.listen,
        served=blocking.is_listening(os.path.realpath(farm.reach / FARM_SOCKET), timeout=_LOOK_WITHIN),
        revision=seen.document.revision,
        waiting=tuple(info(node) for node in machines if node.state is NodeState.WAITING),
        roles=tuple(
            FarmRole(
                name=role,
                waits=seen.roles.get(role, ""),
                images=_images(current.roles.get(role) if current else None),
                nodes=tuple(members),
            )
            for role, members in sorted(nodes.items())
        ),
        floating=tuple(FarmFloat(name=name, services=tuple(ones)) for name, ones in sorted(services.items())),
        floating_waits=seen.document.floating.waits,
    )


def _node(node: Node, status: NodeStatus, images: tuple[FarmImageInfo, ...], now: float) -> FarmNode:
    standing = node.state.value
    if node.state in _NOT_YET:
        why = _NOT_YET[node.state]
    elif status.waits or now - node.last < SILENT:
        why = status.waits
        standing = standing if why else READY
    else:
        why = f"silent since {moment(node.last)}"
    why = "; ".join(filter(None, (status.reason, why)))
    return FarmNode(standing=standing, why=why, images=images, machine=info(node), status=status)


def _content(farm: FarmDirectory, current: Revision | None, report: NodeReport) -> RoleContent | None:
    """What it runs. One that tries something, or went back, does not say what that was."""
    if report.state is not RoleState.GOOD:
        return None
    is_current = current is not None and current.number == report.revision
    revision = current if is_current else farm.revision(report.revision)
    contents = revision.roles.values() if revision else ()
    return next((content for content in contents if content.digest == report.content), None)


def _images(content: RoleContent | None) -> tuple[FarmImageInfo, ...]:
    found = (content.image, *content.images) if content else ()
    return tuple(FarmImageInfo(reference=image.reference, id=image.ids[0]) for image in found)


# for people


def draw(found: FarmTree, *, whole_ids: bool) -> Iterable[str]:
    """As lines. Pure but for the time."""
    revision = f"revision {found.revision}" if found.revision else "no revision: dom0 farm up"
    served = f"its server answers at {found.listen}" if found.served else "no server runs here: dom0 farm serve"
    branches = [_waiting_branch(machine) for machine in found.waiting]
    branches += [_role_branch(role, whole_ids=whole_ids) for role in found.roles]
    branches += [_float_branch(one) for one in found.floating]
    if found.floating_waits:
        branches.append(("Swarm mode", [(f"{node}: {why}", []) for node, why in found.floating_waits.items()]))
    return [f"{found.farm}  {revision}, {served}", *terminal.branches(branches)]


def _waiting_branch(machine: NodeInfo) -> Branch:
    name = machine.hostname or machine.mac or "a machine"
    approve = f"dom0 farm approve {machine.code} --as NAME --role ROLE"
    return f"{name}  {machine.state} at {machine.address}: {approve}", []


def _role_branch(role: FarmRole, *, whole_ids: bool) -> Branch:
    said = role.waits or ("" if role.images else "no revision has it: dom0 farm up")
    below = _image_branches(role.images, whole_ids=whole_ids)
    for node in role.nodes:
        images = () if node.images == role.images else node.images
        below.append((_node_line(node, role), _image_branches(images, whole_ids=whole_ids)))
    return f"role {role.name}{f'  {said}' if said else ''}", below


def _node_line(node: FarmNode, role: FarmRole) -> str:
    status = node.status
    runs = f"revision {status.revision} {status.state}" if status.revision else ""
    os_version = f"base OS {status.os}" if status.os else ""
    last = f"seen {ago(time.time() - status.last_seen)} ago at {node.machine.address}"
    why = node.why.removesuffix(role.waits).removesuffix("; ")  # which stands above
    said = ", ".join(filter(None, (node.standing, runs, os_version, last)))
    return f"{status.name}  {said}{f': {why}' if why else ''}"


def _image_branches(images: Iterable[FarmImageInfo], *, whole_ids: bool) -> list[Branch]:
    return [(f"{image.reference}  {image.id if whole_ids else short_id(image.id)}", []) for image in images]


def _float_branch(one: FarmFloat) -> Branch:
    below: list[Branch] = []
    for service in one.services:
        where = f" on {', '.join(service.nodes)}" if service.nodes else ""
        said = f": {service.said}" if service.said else ""
        below.append((f"{service.name}  {service.running} of {service.wanted} tasks{where}{said}", []))
    return f"float {one.name}{'' if one.services else '  nothing of it is known to run'}", below
