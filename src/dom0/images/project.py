"""Builds the dom0 image of a project, and the images of the services that the project builds.

Without a Dockerfile of its own: the project's files on top of dom0-base. With one: whatever that makes, as long as it
is based on dom0-base. Either way the finished project is read as the agent will read it before its services are built,
and no image gets its final name before everything is built (see names.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from dom0 import temporary
from dom0.compose import above
from dom0.compose.load import load
from dom0.compose.model import Project
from dom0.compose.x_dom0 import MachineSettings
from dom0.engine.layer import whiteout
from dom0.engine.protocol import Engine, find_image
from dom0.engine.values import Image
from dom0.errors import EngineError, ProjectError
from dom0.images import (
    added_layer,
    contents,
    docker_cli,
    dockerfile,
    fingerprint,
    names,
    private,
    room,
    second_reading,
    selection,
)
from dom0.images.built import Built
from dom0.images.chain import build_ambassador, build_base, build_lock
from dom0.images.docker_cli import Say
from dom0.images.layout import as_written, layer_names, pack, stage
from dom0.images.reading import Reading, read
from dom0.images.recipe import EPOCH
from dom0.images.unpack import unpacked
from dom0.names import AMBASSADOR_IMAGE, BASE_IMAGE, ETC, IMAGE, PLACED
from dom0.plan import labels
from dom0.plan.checks import check_runs
from dom0.plan.desired import Desired, Role
from dom0.plan.expand import expand
from dom0.plan.facts import NOWHERE, Facts, image_ref, images_needed
from dom0.socketproxy.scope import is_in_one

GENERATED = f"FROM {BASE_IMAGE}\nADD project.tar /\n"  # COPY would give directories the time of the build


SMALL = 1 << 20  # bytes of a layer that `dom0 up` gives to the agent, which otherwise unpacks it from the image


class Options(msgspec.Struct, frozen=True):
    tag: str = IMAGE
    no_cache: bool = False
    pull: bool = False
    taken_over: Collection[str] = ()  # names of the projects that dom0 took over from Docker Compose there
    running: str = ""  # the project that the machine is, where that is known: for another one nothing is built
    refuse: Callable[[Desired], Awaitable[None]] | None = None  # raises where nothing is to be built, its images apart


DEFAULTS = Options()


async def build_project(engine: Engine, directory: Path, say: Say, options: Options = DEFAULTS) -> Built:
    """Build the project in `directory`, a real path, and all it stands on, and give the images their names.

    Raises ProjectError for a project that cannot be used as it is written, with nothing changed, and Dom0Error.
    """
    async with built_unnamed(engine, directory, say, options) as built:
        await names.give(engine, {**fingerprint.images_of(built.image.labels), options.tag: built.image.id})
    return built


@asynccontextmanager
async def built_unnamed(
    engine: Engine, directory: Path, say: Say, options: Options = DEFAULTS, reading: Awaitable[Reading] | None = None
) -> AsyncIterator[Built]:
    """Build as `build_project`, without names: a new image that gets none in the block is removed after it.

    `reading`: the result of `read`, where that has been started already.
    """
    own = await find_dockerfile(engine, directory)
    found = None if own else await (reading or read(directory))
    try:
        async with _built(engine, directory, own, found, say, options) as built:
            yield built
    finally:
        if found is not None:
            await found.cache.close()


@asynccontextmanager
async def _built(
    engine: Engine, directory: Path, own: str, found: Reading | None, say: Say, options: Options
) -> AsyncIterator[Built]:
    if project := found.project if found else None:
        check_runs(options.running, project.name, project.locations)
    base = await build_base(engine, say)
    draft, layer = Draft(engine, directory, base, say, options), b""
    if project:
        await draft.check(project)
    if project and _has_ambassadors(project):
        await build_ambassador(engine, say)
    written = {layer: name for name, layer in layer_names(project).items()} if project else {}
    before = await find_image(engine, options.tag)
    anew = options.no_cache or options.pull
    if before and not anew and own == fingerprint.dockerfile_of(before.labels):
        present = await names.present(engine, fingerprint.references(directory, before.labels))
        if fingerprint.is_current(directory, before.labels, present, options.taken_over):
            yield Built(before, changed=False, written=written)
            return
    await room.check(engine)
    async with build_lock(say, options.tag, str(directory)):
        try:
            if found is None:
                image_id, placed = await _build_own(draft, directory / own)
            else:
                image_id, placed, layer = await _build_generated(draft, directory, found, before)
            changed = before is None or before.id != image_id
            yield Built(await engine.image(image_id), changed, placed, layer, written)
        finally:
            await draft.forget()


class Draft:
    """One build on `base`, and the names that its images have meanwhile."""

    def __init__(self, engine: Engine, directory: Path, base: Image, say: Say, options: Options) -> None:
        self.engine = engine
        self.base = base
        self.say = say
        self.options = options
        self._of = f"{os.uname().nodename} {os.geteuid()} {directory}"
        self._given: set[str] = set()

    async def check(self, project: Project) -> None:
        """Without its images. Raises ProjectError for what no machine can run, whatever those and its Engine are."""
        desired = expand(project, Facts(images={need.ref: NOWHERE for need in images_needed(project)}, base=self.base))
        if self.options.refuse is not None:
            await self.options.refuse(desired)

    def name(self, ref: str) -> str:
        """The same at each build of the project, so that kills do not leave many."""
        name = f"{names.BUILT}:building-{hashlib.sha256(f'{self._of} {ref}'.encode()).hexdigest()[:12]}"
        self._given.add(name)
        return name

    async def image(self, ref: str) -> Image:
        return await self.engine.image(self.name(ref))

    async def forget(self) -> None:
        for name in self._given:
            with contextlib.suppress(EngineError):  # a leftover name does no harm
                await self.engine.remove_image(name)


async def find_dockerfile(engine: Engine, directory: Path) -> str:
    """The name of the Dockerfile that makes the machine's image, "" where the project has none. Raises ProjectError."""
    if (directory / dockerfile.MACHINES).is_file():
        return dockerfile.MACHINES
    plain = directory / dockerfile.PLAIN
    ref = dockerfile.image_of_last_stage(plain) if plain.is_file() else ""
    if ref.removesuffix(":latest") != BASE_IMAGE:
        image = await find_image(engine, ref) if ref else None
        if image is None or image.labels.get(labels.ROLE) != Role.ROOT:
            return ""
    return "" if await dockerfile.builds_service(directory) else dockerfile.PLAIN


async def _build_generated(
    draft: Draft, directory: Path, reading: Reading, before: Image | None
) -> tuple[str, Project, bytes]:
    """The image's ID, the project as it lies there, and the layer with its files if that is small.

    `before`: the image that has the name now.

    The agent's reading runs concurrently with the build of the image, but is awaited before services are built.
    """
    project, options, base, say = reading.project, draft.options, draft.base, draft.say
    writable_binds = selection.writable_binds(project, directory) if project.name in options.taken_over else None
    if writable_binds is None:
        selection.check_links(project, directory)
    selection.check_builds(project)
    ignore = fingerprint.read_ignore(directory, writable_binds or ())
    kept = selection.kept(project, directory, ignore, in_place=writable_binds is not None)
    apart = selection.private(project, directory, ignore)
    for line in (*project.warnings, *selection.words(project, directory, kept, writable_binds)):
        say(line)
    with temporary.directory("project") as scratch:
        staged = scratch / "etc"
        found = stage(directory, project, kept, staged, writable_binds or ())
        if (unfit := whiteout(found.keys() - set(apart))) and (await draft.engine.info()).containerd_store:
            raise ProjectError(  # such an image would silently leave it out
                f"{unfit}: an image that containerd keeps cannot hold a file of this name",
                hint="give it another name, or leave it out: a line in .dockerignore",
            )
        as_agent = asyncio.create_task(_read_as_agent(draft, staged, reading))
        try:
            if _builds(project, directory) or second_reading.other_compose(base, project.compose_version):
                await as_agent
            if apart:
                say(private.words(apart))
            built = await _build_services(draft, project, directory)
            say(f"{options.tag}: the files of {project.name} on top of {BASE_IMAGE}")
            made = fingerprint.BuildInputs(_builds(project, directory), "", kept, apart, project.name, writable_binds)
            told = await _labels(draft.engine, directory, project, made, built) | {labels.BASE: base.id}
            files = scratch / "project.tar"
            pack(staged, files, found, leave_out=apart)
            image_id = await _as_before(draft, files, found, told, before) if writable_binds and before else ""
            image_id = image_id or await _put_on_base(draft, files, found, told)
            is_small = files.stat().st_size <= SMALL and not whiteout(found)
            return image_id, await as_agent, files.read_bytes() if is_small else b""
        finally:
            as_agent.cancel()
            await asyncio.gather(as_agent, return_exceptions=True)  # it reads the files, which are removed now


async def _as_before(
    draft: Draft, files: Path, found: Mapping[str, contents.TreeEntry], told: Mapping[str, str], before: Image
) -> str:
    """The ID of the image `before` if the new one would differ from it in the digest of its inputs alone, else "".

    That counts what services write into a directory from which another one is built, and no image may hold it.
    """
    alike = {**told, labels.INPUTS: before.labels.get(labels.INPUTS, "")}
    if alike == told or not alike.items() <= before.labels.items():
        return ""
    image_id = await _put_on_base(draft, files, found, alike)
    if image_id == before.id:
        return image_id
    with contextlib.suppress(EngineError):
        await draft.engine.remove_image(image_id)
    return ""


async def _put_on_base(
    draft: Draft, files: Path, found: Mapping[str, contents.TreeEntry], told: Mapping[str, str]
) -> str:
    """The ID of dom0-base with the tar `files` on it: loaded as a layer, or built where the Engine cannot do that."""
    engine, base, tag = draft.engine, draft.base, draft.name(draft.options.tag)
    info = await engine.info()
    # A scope's socket passes no image on in the form in which containerd takes a layer alone.
    if not whiteout(found) and not (info.containerd_store and is_in_one(info.labels)):
        if info.containerd_store:
            return await added_layer.add(engine, base.id, files, tag=tag, labels=told, created=EPOCH)
        with files.open("rb") as tar:
            return await engine.add_layer(base.id, tar, tag=tag, labels=told, created=EPOCH)
    recipe, context = files.with_name("Dockerfile"), files.with_name("context.tar")
    recipe.write_text(GENERATED)
    with tarfile.open(context, "w", format=tarfile.GNU_FORMAT) as archive:  # a pax header first is no tar to the Engine
        for file in (recipe, files):
            archive.add(file, file.name)
    args = {"SOURCE_DATE_EPOCH": str(EPOCH)}
    with context.open("rb") as tar:
        return await engine.build_image(tar, tag=tag, labels=told, args=args, no_cache=draft.options.no_cache)


async def _build_own(draft: Draft, own: Path) -> tuple[str, Project]:
    """The image's ID, and the project as it lies there. Built once to read that as the agent will and to build its
    services, and again, from the cache, with labels that depend on the project.
    """
    engine, base, say, options = draft.engine, draft.base, draft.say, draft.options
    say(f"{options.tag}: as {own} says")
    trial, tag = draft.name("trial"), draft.name(options.tag)
    recipe = docker_cli.DockerBuild(options.tag, own.parent, trial, own, no_cache=options.no_cache, pull=options.pull)
    await docker_cli.build(recipe, say)
    found = (await engine.image(trial)).labels
    if found.get(labels.ROLE) != Role.ROOT:
        raise ProjectError(
            f"{own}: the image does not stand on {BASE_IMAGE}",
            hint=f"FROM {BASE_IMAGE}, or FROM another dom0 image, in its last stage",
        )
    with temporary.directory("project") as scratch:
        async with unpacked(engine, trial, scratch) as etc:
            try:
                apart = private.of_image(found)  # of the image below: the project has its own
                private.lay(apart, etc, [own.parent], found.get(labels.PROJECT, ""))
                project = await load(etc, PLACED)
                await draft.check(project)
                await _check_in_base(draft, etc, project)
                for line in project.warnings:
                    say(line)
            except ProjectError as error:
                where = f"{own}: {ETC}"
                raise ProjectError(error.message.replace(str(etc), where), hint=error.hint) from error
            if _has_ambassadors(project):
                await build_ambassador(engine, say)
            inherited = await _inherited(engine, project)
            kept = {name: service for name, service in project.services.items() if name not in inherited}
            built = await _build_services(draft, msgspec.structs.replace(project, services=kept), etc)
            built |= {image_ref(project, name): image.id for name, image in inherited.items()}
            # Of the image's own /etc/dom0 every file is in the digest anyway.
            elsewhere = (fingerprint.ELSEWHERE, fingerprint.OURS)
            builds = {
                ref: context if context in elsewhere else fingerprint.WHOLE
                for ref, context in _builds(project, etc).items()
            }
            made = fingerprint.BuildInputs(builds, own.name, (), apart, project.name)
            told = await _labels(engine, own.parent, project, made, built)
    told[labels.BASE] = found.get(labels.BASE, base.id)
    await docker_cli.build(docker_cli.DockerBuild(options.tag, own.parent, tag, own, labels=told), docker_cli.silent)
    return (await draft.image(options.tag)).id, project


async def _inherited(engine: Engine, project: Project) -> dict[str, Image]:
    """The images of services that were built with a base image, which does not hold their sources."""
    found = {}
    for name, service in project.services.items():
        context = Path(service.build.context) if service.build else None
        if context is None or not context.is_absolute() or context.exists():
            continue
        image = await find_image(engine, image_ref(project, name))
        if image is None:
            raise ProjectError(
                f"services.{name}.build: its context is not in the image, and there is no image "
                f"{image_ref(project, name)}",
                hint="say image: where the service is built, so that its name does not change with the project's",
            )
        found[name] = image
    return found


async def _read_as_agent(draft: Draft, etc: Path, reading: Reading) -> Project:
    """The project as it lies in `etc`. An agent with another Docker Compose reads the same, but for hashes.

    Raises ProjectError, with the project's own file names, if `etc` is not read as `project`.
    """
    project = reading.project
    try:
        found = await load(etc, PLACED, like=project, cache=reading.cache)
    except ProjectError as error:
        hint = f"does .dockerignore leave out what the project needs? Write !NAME at its end\n{error.hint}".strip()
        raise ProjectError(as_written(error.message, project), hint=hint) from error
    await _check_in_base(draft, etc, project)
    return found


async def _check_in_base(draft: Draft, etc: Path, project: Project) -> None:
    """Where the machine has another Docker Compose than this host. Raises ProjectError, as _read_as_agent."""
    if not (theirs := second_reading.other_compose(draft.base, project.compose_version)):
        return
    draft.say(f"{project.name}: read by Docker Compose {project.compose_version} here and {theirs} of the machine")
    try:
        await second_reading.require_alike(draft.engine, draft.base, etc, project)
    except ProjectError as error:
        raise ProjectError(as_written(error.message, project), hint=error.hint) from error


class Needs(msgspec.Struct, frozen=True):
    """What a machine needs besides its own image."""

    images: tuple[str, ...]
    home: bool  # it has one, or volumes that are backed up: what both need is the same


def needs_of(project: Project) -> Needs:
    images = dict.fromkeys(need.ref for need in images_needed(project))
    machine = project.machine or MachineSettings()
    return Needs(tuple(images), machine.home is not None or bool(machine.backup))


def _builds(project: Project, directory: Path) -> dict[str, str]:
    builds = {}
    for name, service in project.services.items():
        if service.build is not None:
            context = Path(service.build.context)
            inside = context.is_absolute() and context.is_relative_to(directory)
            where = str(context.relative_to(directory)) if inside else fingerprint.ELSEWHERE
            builds[image_ref(project, name)] = where
    return builds | ({AMBASSADOR_IMAGE: fingerprint.OURS} if _has_ambassadors(project) else {})


async def _labels(
    engine: Engine, directory: Path, project: Project, made: fingerprint.BuildInputs, built: Mapping[str, str]
) -> dict[str, str]:
    parents = await names.present(engine, fingerprint.parents_of(directory, made.dockerfile))
    return {
        labels.PROJECT: project.name,
        labels.INPUTS: fingerprint.inputs_digest(directory, parents, made),
        labels.BUILDS: msgspec.json.encode(made.builds, order="sorted").decode(),
        labels.IMAGES: msgspec.json.encode(built, order="sorted").decode(),
        labels.DOCKERFILE: made.dockerfile,
        labels.KEPT: json.dumps(made.kept),  # names need not be text
        labels.PRIVATE: json.dumps(made.private),
        labels.NEEDS: msgspec.json.encode(needs_of(project)).decode(),
        **({} if made.writable_binds is None else {labels.IN_PLACE: json.dumps(made.writable_binds)}),
    }


def _has_ambassadors(project: Project) -> bool:
    """Whether a service runs dom0-ambassador, and does not build an image of that name itself."""
    return any(
        service.build is None and image_ref(project, name).removesuffix(":latest") == AMBASSADOR_IMAGE
        for name, service in project.services.items()
    )


async def _build_services(draft: Draft, project: Project, directory: Path) -> dict[str, str]:
    """Returns what was built, as `names.Names`."""
    built = {name: image_ref(project, name) for name, service in project.services.items() if service.build is not None}
    if not built:
        return {}
    options = draft.options
    draft.say(f"{project.name}: building {', '.join(built)}")
    file = build_file(project, directory, draft.name)
    await docker_cli.compose_build(file, project.name, draft.say, no_cache=options.no_cache, pull=options.pull)
    return {ref: (await draft.image(ref)).id for ref in built.values()}


def build_file(project: Project, directory: Path, name_of: Callable[[str], str]) -> bytes:
    """A Compose file with only what is to be built from the project in `directory`, without variables.

    `name_of` returns the name of each image.

    Services that share an image build it once: Compose labels it with the service, so that its ID would depend on
    which of them is built last.
    """
    services: dict[str, dict[str, Any]] = {}
    for name, service in sorted(project.services.items()):
        if service.build is not None:
            wanted = {"image": name_of(image_ref(project, name)), "build": msgspec.to_builtins(service.build)}
            services |= {name: wanted} if wanted not in services.values() else {}
    secrets = {key: msgspec.to_builtins(secret) for key, secret in project.secrets.items()}
    for secret in secrets.values():
        if secret.get("file"):
            name = os.path.relpath(secret["file"], project.working_dir)
            secret["file"] = os.path.normpath(above.find(directory, name))
    document = {"name": project.name, "services": services, "secrets": secrets}
    return msgspec.json.encode(document, order="sorted").replace(b"$", b"$$")
