"""Builds the base OS: a UKI of kernel and initramfs, which contains a squashfs with files of Debian packages.

Packages, squashfs and UKI are cached under the digest of their inputs: without a change nothing is built again, and a
change of our own programs packs only the initramfs again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import msgspec

import dom0
from dom0 import temporary
from dom0.host import uki
from dom0.images import contents, fetched
from dom0.images.archive import environment
from dom0.images.recipe import EPOCH
from dom0.names import OS_VERSION
from dom0.osimage import initramfs, manifest, modules, packages, rescue, root, squash
from dom0.osimage.recipe import OsRecipe
from dom0.run import capture

Say = Callable[[str], None]
UKI, LINUX, INITRD = "dom0-os.efi", "linux", "initrd"
COMMAND_LINE = "console=tty0 console=ttyS0 quiet loglevel=4 panic=10 dom0.medium=LABEL=DOM0-BOOT"
"""The kernel command line in the UKI. Boot loaders that load kernel and initrd separately pass their own."""


def command_line(recipe: OsRecipe) -> str:
    """Timers of an emulated machine on a busy host come late; the kernel takes that for broken ones, and panics."""
    may_be_emulated = (recipe.architecture.name, recipe.flavour) == ("amd64", "vm")
    return f"{COMMAND_LINE} no_timer_check" if may_be_emulated else COMMAND_LINE


class BuiltOs(msgspec.Struct, frozen=True):
    """A directory with `dom0-os.efi`, its digest beside it, `linux`, `initrd` and `manifest.json`."""

    directory: Path
    manifest: manifest.Manifest


async def build(recipe: OsRecipe, say: Say, *, no_cache: bool = False, with_rescue: bool = True) -> BuiltOs:
    """Build the base OS unless the cache has it; with `no_cache` always, from the newest packages.

    Raises Dom0Error.
    """
    kind = f"{recipe.architecture.name}-{recipe.flavour}"
    # All flavours of an architecture share a cached rescue image.
    lock = f"os-{recipe.architecture.name}.lock"
    async with fetched.lock(lock, lambda: say("base OS: waiting for another build of it")):
        os.umask(0o022)  # the image keeps the modes of the files that are made here
        found = await packages.fetch(kind, recipe.packages, recipe.architecture.name, anew=no_cache)
        rescue_image = await rescue.build(recipe, say, anew=no_cache) if with_rescue else None
        names = [package.name for package in found]
        rescue_key = rescue_image.parent.name if rescue_image else None
        key = f"{dom0.__version__} {uki.DIGESTS} {command_line(recipe)} {recipe.inputs()} {names} {rescue_key}"

        async def make(into: Path) -> None:
            say(f"base OS {version_of(key)}: {len(found)} packages, {recipe.architecture.name}, {recipe.flavour}")
            await _make(recipe, found, rescue_image, version_of(key), into, say)

        directory = await fetched.cached(f"os-{kind}", key, make, anew=no_cache)
    return BuiltOs(directory, manifest.decode((directory / manifest.FILE).read_bytes()))


def export(built: BuiltOs, directory: Path) -> None:
    """Copy the files to `directory`. Old ones are replaced when all new ones are on the disk."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dom0-os-", dir=directory) as scratch:
        names = sorted(file.name for file in built.directory.iterdir())
        for name in names:
            shutil.copyfile(built.directory / name, Path(scratch, name))
            with Path(scratch, name).open("rb") as opened:
                os.fsync(opened.fileno())
        for name in names:
            Path(scratch, name).replace(directory / name)


def version_of(key: str) -> str:
    """The content of /etc/dom0-os: another one for other inputs."""
    return f"{dom0.__version__}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


async def _make(
    recipe: OsRecipe,
    found: Sequence[Path],
    rescue_image: Path | None,
    version: str,
    into: Path,
    say: Say,
) -> None:
    with temporary.directory("os") as scratch:
        unpacked = scratch / "packages"
        unpacked.mkdir()
        await packages.unpack(found, unpacked)
        kernel = await modules.find_kernel(unpacked)
        chosen = modules.choose(kernel, (*recipe.first_modules, *recipe.modules))
        squashfs = await _squashfs(recipe, found, unpacked, kernel, scratch, say)
        shutil.copyfile(kernel.image, into / LINUX)
        tree = _make_tree(recipe, version, rescue_image, scratch)
        await initramfs.pack(recipe, kernel, tree, squashfs, scratch, into / INITRD)
        await _unify(recipe, unpacked, kernel, tree, into)
        artifacts = tuple(_artifact(into / name) for name in (UKI, LINUX, INITRD))
        (into / f"{UKI}.sha256").write_text(f"{artifacts[0].sha256}  {UKI}\n")
        (into / manifest.FILE).write_bytes(
            manifest.encode(
                manifest.Manifest(
                    version=version,
                    architecture=recipe.architecture.name,
                    flavour=recipe.flavour,
                    kernel=kernel.release,
                    packages=tuple(map(_entry, found)),
                    modules=tuple(sorted(chosen)),
                    artifacts=artifacts,
                    rescue=_artifact(rescue_image).size if rescue_image else 0,
                )
            )
        )


async def _squashfs(
    recipe: OsRecipe,
    found: Sequence[Path],
    unpacked: Path,
    kernel: modules.Kernel,
    scratch: Path,
    say: Say,
) -> Path:
    """The large part, without our own programs."""

    async def make(into: Path) -> None:
        say("root file system: compressing it, which takes a minute or two")
        directory = scratch / "root"
        await root.populate(recipe, unpacked, kernel, directory)
        await squash.squash(directory, into / squash.SQUASHFS)

    key = f"{recipe.root_inputs()} {[package.name for package in found]}"
    kind = f"os-root-{recipe.architecture.name}-{recipe.flavour}"
    return await fetched.cached(kind, key, make) / squash.SQUASHFS


def _make_tree(recipe: OsRecipe, version: str, rescue_image: Path | None, scratch: Path) -> Path:
    """Our own programs and settings, the rescue image, and the version of the base OS."""
    tree = scratch / "tree"
    contents.copy(contents.entries(recipe.directory / "tree"), tree, time=EPOCH, public=True)
    if rescue_image is not None:
        (tree / "usr/share/dom0").mkdir(parents=True)
        shutil.copyfile(rescue_image, tree / "usr/share/dom0" / rescue.ARCHIVE)
    (tree / OS_VERSION.relative_to("/")).write_text(f"{version}\n")
    (tree / "etc/os-release").write_text(
        f'ID=dom0\nID_LIKE=debian\nNAME="dom0 base OS"\nPRETTY_NAME="dom0 base OS {version}"\nVERSION_ID={version}\n'
    )
    return tree


async def _unify(recipe: OsRecipe, unpacked: Path, kernel: modules.Kernel, tree: Path, into: Path) -> None:
    efi = recipe.architecture.efi
    stub = unpacked / "usr/lib/systemd/boot/efi" / f"linux{efi}.efi.stub"
    made = into / UKI
    argv = [
        *(
            "ukify",
            "build",
            f"--linux={into / LINUX}",
            f"--initrd={into / INITRD}",
            f"--cmdline={command_line(recipe)}",
        ),
        *(f"--os-release=@{tree / 'etc/os-release'}", f"--uname={kernel.release}", f"--efi-arch={efi}"),
        *(f"--stub={stub}", f"--output={made}"),
    ]
    # ukify is started by the first python3 on the PATH, and needs Debian's.
    env = environment() | {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "SOURCE_DATE_EPOCH": str(EPOCH)}
    await capture(argv, env=env)
    # Over sections as they lie in a UKI, where ukify may have added to them.
    await capture([*argv, f"--section={uki.DIGESTS}:{uki.digests(made)}"], env=env)


def _entry(package: Path) -> manifest.PackageEntry:
    """By its name NAME_VERSION_ARCHITECTURE.deb, where %3a is the colon of an epoch."""
    name, version, _ = package.name.split("_")
    return manifest.PackageEntry(name=name, version=unquote(version), size=package.stat().st_size)


def _artifact(file: Path) -> manifest.Artifact:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return manifest.Artifact(name=file.name, size=file.stat().st_size, sha256=digest)
