"""The image chain, told from its end: to build a machine's image there must be dom0-base, for that dom0-rootfs.
Beside it, on nothing, the image of ambassadors.

An image whose label `dom0.inputs` says that it was made from what is there now is left alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dom0 import temporary
from dom0.engine.protocol import Engine
from dom0.engine.values import Image
from dom0.errors import Dom0Error, NotFound
from dom0.images import ambassador, archive, base, docker_cli, fetched, recipe, rootfs
from dom0.images.docker_cli import Say
from dom0.names import AMBASSADOR_IMAGE, BASE_IMAGE, ROOTFS_IMAGE
from dom0.plan.labels import INPUTS, ROOTFS_ID


async def build_base(engine: Engine, say: Say, *, no_cache: bool = False) -> Image:
    """dom0-base as it should be now, built if it is not; with `no_cache` in any case, from the packages of today.

    Raises Dom0Error.
    """
    inputs = recipe.base_inputs()
    if not no_cache and (found := await _made_from(engine, BASE_IMAGE, inputs)):
        return found
    _refuse_inside(inputs)
    fetched.require_pip()
    async with alone(say, BASE_IMAGE):
        below = await _build_rootfs(engine, say, no_cache=no_cache)
        found = await _made_from(engine, BASE_IMAGE, inputs)
        if no_cache or found is None or found.labels.get(ROOTFS_ID) != below.id:
            await base.build_base(below.id, inputs, say, no_cache=no_cache)
        return await engine.image(BASE_IMAGE)


async def build_ambassador(engine: Engine, say: Say, *, no_cache: bool = False) -> Image:
    """dom0-ambassador as it should be now, built if it is not; with `no_cache` in any case. Raises Dom0Error."""
    if recipe.BAKED.exists():
        return await _ambassador_inside(engine)
    inputs = recipe.ambassador_inputs()
    if not no_cache and (found := await _made_from(engine, AMBASSADOR_IMAGE, inputs)):
        return found
    fetched.require_pip()
    async with alone(say, AMBASSADOR_IMAGE):
        found = None if no_cache else await _made_from(engine, AMBASSADOR_IMAGE, inputs)
        if found is None:
            await ambassador.build_ambassador(inputs, say, no_cache=no_cache)
        return await engine.image(AMBASSADOR_IMAGE)


async def _ambassador_inside(engine: Engine) -> Image:
    """Inside a dom0 image there is no recipe: the image of ambassadors is the one that is here."""
    try:
        return await engine.image(AMBASSADOR_IMAGE)
    except NotFound as error:
        raise Dom0Error(
            f"{AMBASSADOR_IMAGE}: is not on this Engine",
            hint="run dom0 image build on a host with the dom0 package, or bring it: docker save, docker load",
        ) from error


async def _build_rootfs(engine: Engine, say: Say, *, no_cache: bool) -> Image:
    inputs = recipe.rootfs_inputs()
    if not no_cache and (found := await _made_from(engine, ROOTFS_IMAGE, inputs)):
        return found
    with temporary.directory("rootfs") as scratch:
        context = scratch / "context"
        context.mkdir()
        await _pack_rootfs(scratch, context / "rootfs.tar", say)
        dockerfile = recipe.data(ROOTFS_IMAGE) / "Dockerfile"
        made = docker_cli.DockerBuild(ROOTFS_IMAGE, context, ROOTFS_IMAGE, dockerfile, labels={INPUTS: inputs})
        await docker_cli.build(made, say)
    return await engine.image(ROOTFS_IMAGE)


async def _pack_rootfs(scratch: Path, tar: Path, say: Say) -> None:
    described = recipe.data(ROOTFS_IMAGE)
    if recipe.BASE_OS.exists():
        say(f"{ROOTFS_IMAGE}: cloning the file system of this host")
        await rootfs.clone(described, Path("/"), tar)
        return
    archives = await archive.debian_archives()
    say(f"{ROOTFS_IMAGE}: installing Debian {rootfs.main_suite(archives)} from {archives[0].uri}")
    await rootfs.debian(described, archives, scratch, tar)


async def _made_from(engine: Engine, tag: str, inputs: str) -> Image | None:
    try:
        image = await engine.image(tag)
    except NotFound:
        return None
    return image if image.labels.get(INPUTS) == inputs else None


def _refuse_inside(inputs: str) -> None:
    """Inside a dom0 image there is nothing to make dom0-base from."""
    if recipe.BAKED.exists():
        raise Dom0Error(
            f"{BASE_IMAGE}: the image that this dom0 came with is not on this Engine ({inputs[:19]})",
            hint="run dom0 build on a host with the dom0 package, or bring the image: docker save, docker load",
        )


@asynccontextmanager
async def alone(say: Say, what: str, place: str = "") -> AsyncIterator[None]:
    """One build of the chain at a time for each user, who has one cache; and one of the project at `place`."""
    name = f"lock-{hashlib.sha256(place.encode()).hexdigest()[:12]}" if place else "lock"
    path = fetched.cache_directory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{what}: waiting for another build of it")
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
