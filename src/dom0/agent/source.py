"""From the project inside a dom0 image to a desired state with its images pinned. Changes nothing but pulled images."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from dom0 import temporary
from dom0.agent import private_files
from dom0.agent.in_place import find_places, require_nothing_above
from dom0.agent.pull import Audience, Pull, pulling
from dom0.compose import x_dom0
from dom0.compose.findings import UNKNOWN, Locations, refuse
from dom0.compose.model import Project
from dom0.durable import Unwritable
from dom0.engine.protocol import Engine, find_image
from dom0.engine.values import EngineInfo, Image
from dom0.errors import Dom0Error, ProjectError, UsageError
from dom0.images import contents, private
from dom0.images.fingerprint import images_of
from dom0.images.unpack import unpack_layer, unpacked
from dom0.names import BASE_IMAGE, HOST_ROOT, PLACED
from dom0.plan import labels
from dom0.plan.desired import Desired
from dom0.plan.expand import expand
from dom0.plan.facts import NOWHERE, Facts, ImageNeed, images_needed
from dom0.socketproxy import cgroup
from dom0.socketproxy.scope import ORCHESTRATOR, is_in_one

if TYPE_CHECKING:
    from dom0.registry.credentials import Login

COMPOSE_FILES = "compose.d"  # in the project directory of an image
CONTAINER_ID = re.compile(r"/containers/([0-9a-f]{64})/")

Say = Callable[[str], None]


class Candidate(msgspec.Struct, frozen=True):
    """What a dom0 image asks for: the desired state, and a directory with the project's files."""

    desired: Desired
    files: Path
    dom0_image: str = ""  # ID
    inputs: str = ""  # its label dom0.inputs
    locations: Locations = UNKNOWN  # of the project's keys, for people


class Handed(msgspec.Struct, frozen=True):
    """What `dom0 up` has of an image's project already: what reading it comes to, and the image's layer with its files.

    Whatever is missing comes from the image. `logins`: by registry, of the person; they are kept nowhere. `images`: IDs
    of those that references mean, whatever they name here or at a registry.
    """

    project: Project | None = None
    layer: bytes = b""
    logins: Mapping[str, Login] = {}
    images: Mapping[str, str] = {}


NOTHING = Handed()


class Own(msgspec.Struct, frozen=True):
    """The dom0 image this agent runs from. Outside of a container all of it is empty.

    `base` is the dom0-base that is here, `built_on` the ID that it had where the image was built: an Engine that keeps
    images in another way, and was brought both, knows it by another one.
    """

    image: str = ""
    inputs: str = ""
    base: Image | None = None
    built_on: str = ""
    container: str = ""  # the ID of the one we are in
    sees_host: bool = False  # its processes
    is_guest: bool = False  # the orchestrator of a scope: who has given it that decides which image it is
    started: float = 0.0  # that container
    images: Mapping[str, str] = {}  # service images that were built with it -> ID
    private: tuple[str, ...] = ()  # files that the image leaves out
    project: str = ""  # its name
    awaits_up: bool = False  # `dom0 up` has started us, and says what to do when it has read the project


async def find_own(engine: Engine) -> Own:
    """Ask the Engine about the container we are in (its ID stands in the mounts of /proc/self/mountinfo)."""
    mountinfo = await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)
    match = CONTAINER_ID.search(mountinfo)
    if match is None:
        return Own()
    container = await engine.container(match[1])
    return replace(
        await own_of(engine, await engine.image(container.image_id)),
        container=container.id,
        sees_host=container.pid_mode == "host",
        is_guest=bool(container.labels.get(ORCHESTRATOR)),
        started=container.started,
        awaits_up=container.labels.get(labels.AWAITS) == "up",
    )


async def own_of(engine: Engine, image: Image) -> Own:
    """What an agent would be that runs from `image`."""
    built_on = image.labels.get(labels.BASE, "")
    base = await find_image(engine, built_on or image.id)
    if (
        base is None
        and (here := await find_image(engine, BASE_IMAGE))
        and image.layers[: len(here.layers)] == here.layers
    ):
        base = here  # by its layers: another store, from which both were brought, knew it by another ID
    # Where the tag was moved and the layer's own image pruned, any image with the same files will do.
    return _as_from(Own(base=base or image, built_on=built_on), image)


def _as_from(own: Own, image: Image) -> Own:
    """With what the labels of `image` say."""
    return replace(
        own,
        image=image.id,
        inputs=image.labels.get(labels.INPUTS, ""),
        images=images_of(image.labels),
        private=private.of_image(image.labels),
        project=image.labels.get(labels.PROJECT, ""),
    )


async def resolve(
    engine: Engine, etc: Path, state: Path, own: Own, audience: Audience, image_id: str = "", handed: Handed = NOTHING
) -> Candidate:
    """Read the project of our own image in `etc`, or of `image_id`, and pull what is missing.

    Raises ProjectError, EngineError, and UsageError if `image_id` stands on another dom0-base than we do. A guest takes
    it: nobody comes in its place, and what it starts of dom0-base (sshd, the home) is of the one that it has.
    """
    image_id = image_id or own.image
    if image_id == own.image and not own.private:
        return await _resolve_in(engine, etc, state, own, audience, handed)
    image = await engine.image(image_id)
    if image_id != own.image and not own.is_guest and image.labels.get(labels.BASE, "") != own.built_on:
        raise UsageError(
            f"{image_id}: stands on another dom0-base than the running dom0", hint="dom0 up lets it take over"
        )
    with tempfile.TemporaryDirectory(prefix="incoming-", dir=state) as scratch:
        here = etc if image_id == own.image else None
        async with _files_of(engine, image_id, here, handed.layer, Path(scratch)) as incoming:
            source = _as_from(own, image)
            roots = private_files.find_roots(state, image.id, source.project) if source.private else ()
            await asyncio.to_thread(private.lay, source.private, incoming, roots, source.project)
            return await _resolve_in(engine, incoming, state, source, audience, handed)


@asynccontextmanager
async def _files_of(engine: Engine, image_id: str, here: Path | None, layer: bytes, into: Path) -> AsyncIterator[Path]:
    """`here`: where they are in this container, if it is of that image."""
    if here is not None:
        await asyncio.to_thread(contents.clone, [contents.top(here), *contents.entries(here)], into / "etc")
        yield into / "etc"
        return
    if layer:
        yield await asyncio.to_thread(unpack_layer, layer, into)
        return
    async with unpacked(engine, image_id, into) as etc:
        yield etc


async def _resolve_in(
    engine: Engine, etc: Path, state: Path, source: Own, audience: Audience, handed: Handed
) -> Candidate:
    project = handed.project or await _read(etc, state / "project")
    if wrong := list(x_dom0.findings(project.machine or x_dom0.MachineSettings())):  # we may know fewer time zones
        raise refuse(wrong, project.locations)
    if place := find_places(state).get(project.name):
        require_nothing_above(etc, place)
        project = await _read(etc, place)
    find_login = partial(_find_login, handed.logins, source)
    async with pulling(engine, project, audience, find_login) as pull:
        needs = images_needed(project)
        images = await pin_images(engine, needs, pull, audience.say, built=source.images, pinned=handed.images)
    files = await asyncio.to_thread(_stage_files, etc, state / "staging")
    desired = await _expand(engine, project, source, images)
    return Candidate(desired, files, source.image, source.inputs, project.locations)


async def _find_login(logins: Mapping[str, Login], source: Own, registry: str) -> Login | None:
    """Handed ones first; then those that root has on the host, without its programs. Raises Dom0Error."""
    from dom0.registry import credentials

    if registry in logins:
        return logins[registry]
    home = HOST_ROOT / "root" if source.sees_host else Path.home()
    return await credentials.find(registry, {} if source.sees_host else os.environ, home)


async def _read(etc: Path, placed: Path) -> Project:
    from dom0.compose.load import load  # the parser and YAML: an agent needs neither where `dom0 up` has read for it

    return await load(etc, placed)


@asynccontextmanager
async def read_project(
    engine: Engine, image: Image, placed: Path, roots: Sequence[Path]
) -> AsyncIterator[tuple[Path, Project]]:
    """The files of an image's project, in a directory for the time of the block, and it as it will be at `placed`.

    `roots` may have what the image leaves out. Raises ProjectError, EngineError.
    """
    with temporary.directory("plan") as scratch:
        async with unpacked(engine, image.id, scratch) as etc:
            project = image.labels.get(labels.PROJECT, "")
            await asyncio.to_thread(private.lay, private.of_image(image.labels), etc, roots, project)
            if placed != PLACED:
                require_nothing_above(etc, placed)
            yield etc, await _read(etc, placed)


async def resolve_without_pulling(
    engine: Engine, image: Image, project: Project
) -> tuple[Candidate, tuple[tuple[ImageNeed, Image | None], ...]]:
    """As `resolve` of `image`; and what that would pull, with the copy that is here.

    In the place of an image that is not here there is one that nothing runs from. The candidate has no files.
    Raises ProjectError, EngineError.
    """
    source = await own_of(engine, image)
    by_ref = {need.ref: need for need in images_needed(project)}
    here = {ref: await _find_here(engine, need, source.images.get(ref, "")) for ref, need in by_ref.items()}
    images = {ref: found or NOWHERE for ref, found in here.items()}
    pulled = tuple((need, here[ref]) for ref, need in by_ref.items() if _is_pulled(need, here[ref]))
    desired = await _expand(engine, project, source, images)
    return Candidate(desired, Path(), image.id, source.inputs, project.locations), pulled


async def find_pulls(engine: Engine, needs: Sequence[ImageNeed]) -> tuple[ImageNeed, ...]:
    """What a new generation with these needs would pull now. Raises ProjectError for what is not to be had so."""
    by_ref = {need.ref: need for need in needs if not need.built}
    return tuple([need for need in by_ref.values() if _is_pulled(need, await _find_here(engine, need, ""))])


async def resolve_beforehand(engine: Engine, image: Image, project: Project, pull: Pull, say: Say) -> Desired:
    """As the agent that will run from `image` is going to do, pulls and all. Raises Dom0Error."""
    source = await own_of(engine, image)
    images = await pin_images(engine, images_needed(project), pull, say, built=source.images)
    return await _expand(engine, project, source, images)


async def _expand(engine: Engine, project: Project, source: Own, images: Mapping[str, Image]) -> Desired:
    info = await engine.info()
    scopes = await asyncio.to_thread(_parent_of_scopes, info, source)
    return expand(project, Facts(images=images, base=source.base, api_version=info.api_version, scopes=scopes))


def _parent_of_scopes(info: EngineInfo, source: Own) -> str:
    """As the servers of their sockets find it: the Engine starts those beside us."""
    if is_in_one(info.labels):
        return ""
    above = cgroup.engines_group(Path("/proc/self/cgroup").read_text()) if source.container else ""
    return cgroup.parent_of_scopes(systemd=info.cgroup_driver == "systemd", above=above)


def _stage_files(etc: Path, staging: Path) -> Path:
    shutil.rmtree(staging, ignore_errors=True)
    if etc.is_dir():
        kept = contents.entries(etc, lambda name: name == COMPOSE_FILES)
        contents.clone([contents.top(etc), *kept], staging)
    staging.mkdir(parents=True, exist_ok=True)
    return staging


async def pin_images(
    engine: Engine,
    needs: tuple[ImageNeed, ...],
    pull: Pull,
    say: Say,
    *,
    built: Mapping[str, str] = {},
    pinned: Mapping[str, str] = {},
) -> dict[str, Image]:
    """Each image once, whatever the number of services that share it; pulls go on side by side.

    `built` are the IDs of those that were built with the dom0 image: their names may still be of older ones; `pinned`
    of those that are meant whatever their names say: they are here, and never pulled. One that fails does not stop the
    others: what was pulled need not be pulled again. Raises Dom0Error.
    """
    by_ref = {need.ref: need for need in needs}
    finding = (
        engine.image(pinned[ref]) if ref in pinned else _find_image(engine, need, pull, say, built.get(ref, ""))
        for ref, need in by_ref.items()
    )
    found = await asyncio.gather(*finding, return_exceptions=True)
    images: dict[str, Image] = {}
    for ref, image in zip(by_ref, found, strict=True):
        if isinstance(image, BaseException):
            raise image
        images[ref] = image
    return images


async def _find_image(engine: Engine, need: ImageNeed, pull: Pull, say: Say, built: str) -> Image:
    """What runs is never touched for a pull that fails: with a local copy at hand, that is used."""
    local = await _find_here(engine, need, built)
    if local is not None and not _is_pulled(need, local):
        return local
    try:
        await pull(need, local is not None)
    except (Dom0Error, OSError) as error:
        why = (error.message if isinstance(error, Dom0Error) else str(error)).removeprefix(f"{need.ref}: ")
        if local is not None:
            say(f"{need.ref}: cannot be pulled, the one that is here is used: {why}")
            return local
        if isinstance(error, Unwritable):
            raise
        raise ProjectError(
            f"{need.where}: the image {need.ref} is not on this machine and cannot be pulled: {why}",
            hint=getattr(error, "hint", "") or "check its name and the network, or build or load it on this machine",
        ) from error
    return await engine.image(need.ref)


async def _find_here(engine: Engine, need: ImageNeed, built: str) -> Image | None:
    """The copy that is on this machine. Raises ProjectError where there is none, and none may be pulled.

    Brought to an Engine that keeps images in another way, a built one has another ID than where it was built.
    """
    local = (await find_image(engine, built) if built and need.built else None) or await find_image(engine, need.ref)
    if local is None and (need.built or need.pull_policy in ("never", "build")):
        raise ProjectError(
            f"{need.where}: the image {need.ref} is not on this machine",
            hint="dom0 build makes it" if need.built else f"load it, or remove pull_policy: {need.pull_policy}",
        )
    return local


def _is_pulled(need: ImageNeed, local: Image | None) -> bool:
    return local is None or (need.pull_policy == "always" and not need.built)
