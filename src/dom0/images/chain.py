"""Builds the image chain: dom0-rootfs, and dom0-base on it. Beside it, from nothing, dom0-ambassador.

An image is built again when its label `dom0.inputs` is not the digest of its present inputs.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager

from dom0 import temporary
from dom0.engine.protocol import Engine, find_image
from dom0.engine.values import Image
from dom0.errors import Dom0Error
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
    if recipe.BAKED.exists():  # inside a dom0 image there is nothing to make dom0-base from
        raise Dom0Error(
            f"{BASE_IMAGE}: the image that this dom0 came with is not on this Engine ({inputs[:19]})",
            hint="run dom0 build on a host with the dom0 package, or bring the image: docker save, docker load",
        )
    fetched.require_pip()
    async with build_lock(say, BASE_IMAGE):
        below = await _build_rootfs(engine, say, no_cache=no_cache)
        found = await _made_from(engine, BASE_IMAGE, inputs)
        if no_cache or found is None or found.labels.get(ROOTFS_ID) != below.id:
            await base.build_base(below.id, inputs, say, no_cache=no_cache)
        return await engine.image(BASE_IMAGE)


async def build_ambassador(engine: Engine, say: Say, *, no_cache: bool = False) -> Image:
    """dom0-ambassador as it should be now, built if it is not; with `no_cache` in any case. Raises Dom0Error."""
    if recipe.BAKED.exists():
        if (here := await find_image(engine, AMBASSADOR_IMAGE)) is None:  # there is no recipe inside a dom0 image
            raise Dom0Error(
                f"{AMBASSADOR_IMAGE}: is not on this Engine",
                hint="run dom0 image build on a host with the dom0 package, or bring it: docker save, docker load",
            )
        return here
    inputs = recipe.ambassador_inputs()
    if not no_cache and (found := await _made_from(engine, AMBASSADOR_IMAGE, inputs)):
        return found
    fetched.require_pip()
    async with build_lock(say, AMBASSADOR_IMAGE):
        found = None if no_cache else await _made_from(engine, AMBASSADOR_IMAGE, inputs)
        if found is None:
            await ambassador.build_ambassador(inputs, say, no_cache=no_cache)
        return await engine.image(AMBASSADOR_IMAGE)


async def _build_rootfs(engine: Engine, say: Say, *, no_cache: bool) -> Image:
    inputs = recipe.rootfs_inputs()
    if not no_cache and (found := await _made_from(engine, ROOTFS_IMAGE, inputs)):
        return found
    with temporary.directory("rootfs") as scratch:
        context = scratch / "context"
        context.mkdir()
        directory, tar = recipe.data(ROOTFS_IMAGE), context / "rootfs.tar"
        archives = await archive.debian_archives()
        say(f"{ROOTFS_IMAGE}: installing Debian {rootfs.main_suite(archives)} from {archives[0].uri}")
        argv = rootfs.mmdebstrap(directory, archives, rootfs.write_sources(scratch, archives), tar)
        await rootfs.bootstrap(argv, scratch)
        dockerfile = directory / "Dockerfile"
        made = docker_cli.DockerBuild(ROOTFS_IMAGE, context, ROOTFS_IMAGE, dockerfile, labels={INPUTS: inputs})
        await docker_cli.build(made, say)
    return await engine.image(ROOTFS_IMAGE)


async def _made_from(engine: Engine, tag: str, inputs: str) -> Image | None:
    image = await find_image(engine, tag)
    return image if image and image.labels.get(INPUTS) == inputs else None


def build_lock(say: Say, what: str, directory: str = "") -> AbstractAsyncContextManager[None]:
    """Held during a build of the chain, of which each user has one cache, or of the project in `directory`."""
    name = f"lock-{hashlib.sha256(directory.encode()).hexdigest()[:12]}" if directory else "lock"
    return fetched.lock(name, lambda: say(f"{what}: waiting for another build of it"))
