"""Builds dom0-base: Debian packages, wheels and the agent on dom0-rootfs. They are fetched on the host, which reaches
its package sources and the Python index, and cached until the list of them changes.
"""

from __future__ import annotations

from pathlib import Path

import dom0
from dom0 import temporary
from dom0.images import archive, contents, docker_cli, fetched
from dom0.images.docker_cli import Say
from dom0.images.recipe import BAKED, EPOCH, agent_files, data, examples
from dom0.names import BASE_IMAGE, ROOTFS_IMAGE
from dom0.plan.labels import COMPOSE, INPUTS, ROOTFS_ID


async def build_base(rootfs_id: str, inputs: str, say: Say, *, no_cache: bool) -> None:
    """Build dom0-base on the present dom0-rootfs."""
    say(f"{BASE_IMAGE}: fetching Debian packages")
    names = (data(BASE_IMAGE) / "packages").read_text().split()

    async def fetch(into: Path) -> None:
        with temporary.directory("status") as scratch:
            status = await docker_cli.extract(ROOTFS_IMAGE, "/var/lib/dpkg/status", scratch)
            await archive.download(names, await archive.debian_archives(), status, into)

    packages = await fetched.cached("packages", f"{rootfs_id} {names}", fetch, anew=no_cache)
    say(f"{BASE_IMAGE}: fetching wheels")
    files = [package.name for package in packages.iterdir()]
    wheels = await fetched.wheels(BASE_IMAGE, archive.version_in(files, r"^python(3\.\d+)-minimal_"))
    compose = archive.version_in(files, "^docker-compose_(.+?)_")
    with temporary.directory("agent") as agent:
        # The package dom0 as it is installed in the image.
        code = agent / "dom0"
        contents.copy(agent_files(), code, time=EPOCH, public=True)
        (code / "data").mkdir()
        contents.copy(contents.entries(examples()), code / "data" / "examples", time=EPOCH, public=True)
        (code / BAKED.name).write_text(f"{inputs}\n")
        metadata = agent / f"dom0-{dom0.__version__}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: dom0\nVersion: {dom0.__version__}\n")
        recipe = docker_cli.DockerBuild(
            BASE_IMAGE,
            data(BASE_IMAGE),
            contexts={"packages": packages, "python": wheels, "agent": agent},
            labels={INPUTS: inputs, ROOTFS_ID: rootfs_id, COMPOSE: compose},
            tag=BASE_IMAGE,
            no_cache=no_cache,
        )
        await docker_cli.build(recipe, say)
