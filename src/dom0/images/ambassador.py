"""Builds dom0-ambassador, an image with what one process needs and nothing else: small and quick to start.

Debian's packages are unpacked, not installed: no apt, no dpkg, no perl, and no package scripts are run. The lower layer
has their files that ambassadors use; the upper one has wheels, dom0's own code and byte code, so that another version
of dom0 is a small download.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from dom0 import temporary
from dom0.images import contents, docker_cli, fetched, rootfs
from dom0.images.archive import Archive, debian_archives, version_in
from dom0.images.docker_cli import Say
from dom0.images.recipe import EPOCH, ambassador_files, data
from dom0.names import AMBASSADOR_IMAGE
from dom0.plan.labels import INPUTS

PYTHON = r"/usr/bin/python(3\.\d+)$"


async def build_ambassador(inputs: str, say: Say, *, no_cache: bool) -> None:
    """Build dom0-ambassador. Raises Dom0Error."""
    say(f"{AMBASSADOR_IMAGE}: unpacking Debian packages and wheels")
    with temporary.directory("ambassador") as scratch:
        context, agent = scratch / "context", scratch / "agent"
        shutil.copytree(data(AMBASSADOR_IMAGE), context)
        tar = context / "rootfs.tar"
        archives = await debian_archives()
        await rootfs.bootstrap(mmdebstrap(archives, rootfs.write_sources(scratch, archives), tar), scratch)
        with tarfile.open(tar) as unpacked:
            python = version_in(unpacked.getnames(), PYTHON)
        contents.copy(ambassador_files(), agent / "dom0", time=EPOCH, public=True)
        recipe = docker_cli.DockerBuild(
            AMBASSADOR_IMAGE,
            context,
            contexts={"python": await fetched.wheels(AMBASSADOR_IMAGE, python), "agent": agent},
            labels={INPUTS: inputs},
            tag=AMBASSADOR_IMAGE,
            no_cache=no_cache,
        )
        await docker_cli.build(recipe, say)


def mmdebstrap(archives: Sequence[Archive], sources: Path, tar: Path) -> list[str]:
    recipe = data(AMBASSADOR_IMAGE)
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        f"--include={','.join((recipe / 'packages').read_text().split())}",
        *(f"--setup-hook={command}" for command in rootfs.keyring_hooks(archives)),
        f"--extract-hook=upload {shlex.quote(str(recipe / 'steps' / 'reduce.sh'))} /reduce.sh",
        '--extract-hook=chroot "$1" sh /reduce.sh',
        rootfs.main_suite(archives),
        str(tar),
        str(sources),
    ]
