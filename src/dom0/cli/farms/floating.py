"""The projects of a farm that run on Swarm mode: read and pinned on the machine where its directory is, and how far
they are.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dom0.cli.report import Report
from dom0.errors import Dom0Error, ProjectError
from dom0.farms import pin
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_content import FloatProject
from dom0.farms.float_steps import FloatStep, steps
from dom0.farms.float_swarm import Decision
from dom0.farms.nodes import NodeState
from dom0.farms.revisions import NOTHING_FLOATS, Floating, Revision
from dom0.farms.settings import FILE

if TYPE_CHECKING:
    from dom0.compose.model import Project
    from dom0.engine.protocol import Engine


class FloatChange(msgspec.Struct, frozen=True, kw_only=True):
    """As `--json` prints it. `change`: create, update, remove, or stays for what cannot be changed."""

    kind: str
    name: str
    change: str
    why: str


class PinnedFloats(msgspec.Struct, frozen=True, kw_only=True):
    """`images`: IDs by the names that services have for them; `contents`: of configs and secrets, by their digests."""

    projects: dict[str, FloatProject]
    images: dict[str, str]
    contents: dict[str, bytes]


async def pinned_floats(engine: Engine, farm: FarmDirectory, report: Report) -> PinnedFloats:
    """All of them, with what their services name on this Engine. Raises Dom0Error for one that is refused."""
    found = PinnedFloats(projects={}, images={}, contents={})
    names = farm.floats()
    if names and not farm.settings().floating.managers:
        what = f"{farm.path / FILE}: float.managers: names no node, so nobody can make a Swarm for float/{names[0]}"
        raise ProjectError(what, hint="float: {managers: [NODE]}; and start dom0 farm serve again")
    key = b""
    if names:
        pin.fingerprint(farm.server_pem)  # it is there, and one
        key = hashlib.sha256(b"names of configs and secrets\n" + farm.server_pem.read_bytes()).digest()
    for name in names:
        try:
            project, images, contents = await _pinned(engine, (farm.path / "float" / name).resolve(), key, report)
        except Dom0Error as error:
            error.message = f"float/{name}: {error.message}"
            raise
        if other := next((key for key, one in found.projects.items() if one.name == project.name), ""):
            what = f"float/{name}: name: {project.name} is that of float/{other} too"
            raise ProjectError(what, hint="give each its own: what they run is called by it")
        found.projects[name] = project
        found.images.update(images)
        found.contents.update(contents)
    return found


async def _pinned(
    engine: Engine, directory: Path, key: bytes, report: Report
) -> tuple[FloatProject, dict[str, str], dict[str, bytes]]:
    """Raises Dom0Error."""
    from dom0.agent.pull import pulling
    from dom0.agent.source import pin_images
    from dom0.cli.report import ending_pulls
    from dom0.compose.findings import refuse
    from dom0.compose.load import load
    from dom0.farms.float_content import image_name
    from dom0.farms.float_specs import find_declared_volumes, find_flaws, make
    from dom0.plan.facts import images_needed

    project = await load(directory, directory, hashed=False, on_one_host=False)
    if flaws := find_flaws(project):
        raise refuse(flaws, project.locations)
    contents = await asyncio.to_thread(_read_contents, project)
    async with pulling(engine, project, report) as pull:
        with ending_pulls(report):
            images = await pin_images(engine, images_needed(project), pull, report.say)
    if flaws := find_declared_volumes(project, {ref: image.volumes for ref, image in images.items()}):
        raise refuse(flaws, project.locations)
    made, files = make(project, {ref: image_name(image.id) for ref, image in images.items()}, contents, key)
    return made, {image_name(image.id): image.id for image in images.values()}, files


def _read_contents(project: Project) -> dict[tuple[str, str], bytes]:
    """Of configs and secrets that services use. Raises ProjectError."""
    from dom0.farms.float_specs import MOST_CONFIG

    found = {}
    for service in project.services.values():
        for section, uses, known in (
            ("configs", service.configs, project.configs),
            ("secrets", service.secrets, project.secrets),
        ):
            for use in uses:
                one = known[use.source]
                try:
                    if one.file:
                        with Path(one.file).open("rb") as file:
                            found[section, use.source] = file.read(MOST_CONFIG + 1)
                    else:
                        text = project.environment[one.environment] if one.environment else one.content
                        found[section, use.source] = text.encode()
                except OSError as error:
                    what = f"{section}.{use.source}: {one.file}: {error.strerror}"
                    raise ProjectError(what, hint="it has to be there where dom0 farm up runs") from error
    return found


def check_names(floats: PinnedFloats, roles: Mapping[str, str]) -> None:
    """`roles`: names of their projects. Raises ProjectError."""
    for key, project in floats.projects.items():
        if role := next((role for role, name in roles.items() if name == project.name), ""):
            what = f"float/{key}: name: {project.name} is that of roles/{role} too"
            raise ProjectError(what, hint="give it another one: networks are called by it, on the same machines")


async def publish_floats(engine: Engine, farm: FarmDirectory, floats: PinnedFloats, known: list[Revision]) -> Floating:
    """What they are in a revision, with all of it in the farm's directory. Raises Dom0Error."""
    from msgspec.structs import replace

    from dom0.farms.publish import publish

    for digest, content in floats.contents.items():
        if not farm.has_blob(digest, len(content)):
            farm.add_blob(digest, [content])
    newest_first = [image for revision in known[::-1] for image in revision.images]
    images = await publish(engine, farm, list(floats.images.values()), newest_first) if floats.images else {}
    named = (replace(images[id_], reference=name) for name, id_ in sorted(floats.images.items()))
    return Floating(projects=floats.projects, images=tuple(named))


def decide_now(farm: FarmDirectory, floating: Floating, now: float) -> Decision:
    """As the server does, of what nodes said last."""
    from dom0.farms.float_server import decide_here

    nodes = [node for node in farm.nodes().nodes if node.state is NodeState.ENROLLED]
    drained, state = farm.rollout().drained, farm.float_state()
    return decide_here(farm.settings(), floating, nodes, farm.float_reports(), drained, state, now)


def steps_now(farm: FarmDirectory, projects: dict[str, FloatProject], now: float) -> tuple[FloatStep, ...]:
    """What there is to do in the Swarm for these projects, by what was there last."""
    return due(decide_now(farm, NOTHING_FLOATS, now), farm.settings().name, projects)


def due(found: Decision, farm: str, projects: Mapping[str, FloatProject]) -> tuple[FloatStep, ...]:
    """What there is to do in the Swarm; nothing where no manager says what is there."""
    is_known = found.writer or not found.state.cluster
    return steps(farm, projects, found.objects, found.state.tried) if is_known else ()


def as_changes(found: Iterable[FloatStep]) -> tuple[FloatChange, ...]:
    return tuple(FloatChange(kind=one.kind, name=one.name, change=one.action.value, why=one.why) for one in found)
