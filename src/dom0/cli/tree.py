"""`dom0 tree`: who started whom, from which image. From the labels of the Engine's containers alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from dom0 import terminal
from dom0.cli.containers import say_if_none, taken_over
from dom0.cli.engine_client import on_engine
from dom0.names import ROOT, short_id
from dom0.plan import labels
from dom0.socketproxy import scope

BY_HAND = "a person"  # what made a container that nothing here started
BY_COMPOSE = "docker compose"  # what made one that dom0 took over

if TYPE_CHECKING:
    from dom0.engine.protocol import Engine
    from dom0.engine.values import Container, ContainerSummary


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """A container. `started_by` says what made it: the name of its parent, `docker compose`, or `a person`."""

    name: str
    scope: str  # path of the one through whose socket it was made: `/guest`, "" for none
    role: str  # root, service, sshd, home, dev, …; "" for what dom0 did not make
    service: str
    image: str  # as written
    image_id: str
    state: str
    generation: int  # of dom0 that created it, 0 if none did
    started_by: str
    children: tuple[TreeNode, ...] = ()


@click.command(name="tree")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="A list of objects: name, scope, role, service, image, image_id, state, generation, started_by, children.",
)
@click.option("--no-trunc", is_flag=True, help="Show whole image IDs.")
def command(as_json: bool, no_trunc: bool) -> None:
    """Show who started whom, and from which image digest.

    What came through the socket of a scope is below the orchestrator that was given it, by the names that it has there.

    $ dom0 tree
    $ dom0 tree --json | jq '.[].children[].image_id'
    """
    nodes = arrange(on_engine(_find_containers))
    if not as_json:
        say_if_none(nodes)
    terminal.say_result(nodes, *draw(nodes, whole_ids=no_trunc), as_json=as_json)


async def _find_containers(engine: Engine) -> list[Container]:
    listed = [one for one in await engine.containers(labels=[labels.ROLE]) if not scope.is_made_inside(one.labels)]
    projects = {container.labels.get(labels.PROJECT, "") for container in listed} - {""}
    listed += taken_over(await engine.containers(labels=[labels.COMPOSE_SERVICE]), projects)
    listed += [one for one in await engine.containers(labels=[scope.LABEL]) if scope.is_made_inside(one.labels)]
    found = await asyncio.gather(*(_inspect(engine, row) for row in listed))
    return [container for container in found if container is not None]


async def _inspect(engine: Engine, row: ContainerSummary) -> Container | None:
    from dom0.engine.protocol import find_container

    container = await find_container(engine, row.id)  # it may have been removed since
    return None if container is None else msgspec.structs.replace(container, labels=row.labels)


def arrange(containers: Sequence[Container]) -> list[TreeNode]:
    """The roots: dom0 with what it made below it, then what people started, then what came through sockets of scopes
    that people serve. What came through an orchestrator's socket is below that. Pure.
    """
    through: dict[str, list[Container]] = {}  # by the path of the scope that they came through, "" for none
    for one in sorted(map(_as_written, containers), key=lambda one: one.name):
        through.setdefault(_made_through(one), []).append(one)
    own = through.pop("", [])
    roots = [one for one in own if one.labels.get(labels.ROLE) == "root" and one.name == ROOT]
    below_them = sorted((one for one in own if one not in roots), key=_order)
    made = [one for one in below_them if _project(one)]
    others = [one for one in below_them if not _project(one)]
    nodes = []
    for root in roots:
        below = [one for one in made if _project(one) == _project(root)]
        children = [_grown(one, root.name if one.labels.get(labels.CREATE) else BY_COMPOSE, through) for one in below]
        nodes.append(_node(root, BY_HAND, children))
    projects = {_project(root) for root in roots}
    orphans = [_grown(one, "a dom0 that is gone", through) for one in made if _project(one) not in projects]
    nodes += orphans + [_grown(one, BY_HAND, through) for one in others]
    while through:  # each taken out with all that is below it, outermost first
        path = min(through)
        nodes += [_grown(one, f"scope {path[1:]}", through) for one in through.pop(path)]
    return nodes


def _as_written(container: Container) -> Container:
    """With the labels that who made it gave it: in the Engine those of a scope have its path in front."""
    path = _made_through(container)
    own = scope.as_written(container.labels, f"{path[1:]}/") if path else container.labels
    return msgspec.structs.replace(container, labels=own)


def _made_through(container: Container) -> str:
    path = container.labels.get(scope.LABEL, "")
    return path.rpartition("/")[0] if container.labels.get(scope.ORCHESTRATOR) else path


def _grown(container: Container, started_by: str, through: dict[str, list[Container]]) -> TreeNode:
    """With what came through the socket that it was given, which is taken out of `through`."""
    is_orchestrator = container.labels.get(scope.ORCHESTRATOR)
    below = through.pop(container.labels.get(scope.LABEL, ""), []) if is_orchestrator else []
    return _node(container, started_by, [_grown(one, container.name, through) for one in below])


def _project(container: Container) -> str:
    return container.labels.get(labels.PROJECT, "")


def _order(container: Container) -> tuple[bool, str, str]:
    """The machine's own first, then services."""
    return container.labels.get(labels.ROLE) == "service", container.labels.get(labels.SERVICE, ""), container.name


def _node(container: Container, started_by: str, children: Sequence[TreeNode] = ()) -> TreeNode:
    generation = container.labels.get(labels.GENERATION, "")
    return TreeNode(
        name=container.name,
        scope=_made_through(container),
        role=container.labels.get(labels.ROLE, ""),
        service=container.labels.get(labels.SERVICE, ""),
        image=container.image,
        image_id=container.image_id,
        state=container.state,
        generation=int(generation) if generation.isdecimal() else 0,
        started_by=started_by,
        children=tuple(children),
    )


def draw(nodes: Sequence[TreeNode], *, whole_ids: bool) -> Iterator[str]:
    """The tree as lines. Pure."""
    for node in nodes:
        by = "manually" if node.started_by == BY_HAND else f"by {node.started_by}"
        yield f"{node.name}  {_details(node, whole_ids=whole_ids)}, started {by}"
        yield from terminal.branches([_branch(child, whole_ids=whole_ids) for child in node.children])


def _branch(node: TreeNode, *, whole_ids: bool) -> terminal.Branch:
    """By the name that is used where it is."""
    name = node.name.removeprefix(f"{node.scope.removeprefix('/').replace('/', '.')}.")
    below = [_branch(child, whole_ids=whole_ids) for child in node.children]
    return f"{name}  {_details(node, whole_ids=whole_ids)}", below


def _details(node: TreeNode, *, whole_ids: bool) -> str:
    identifier = node.image_id if whole_ids else short_id(node.image_id)
    generation = f", generation {node.generation}" if node.generation else ""
    return f"{node.image} {identifier}  {node.role or 'container'}, {node.state}{generation}"
