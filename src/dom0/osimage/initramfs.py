"""The initramfs: the root file system as one squashfs, and around it what mounts that: busybox, three modules, `init`.

It is not compressed, since nearly all of it is. Same files, same bytes: times, owners and order are fixed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dom0.osimage import modules
from dom0.osimage.recipe import OsRecipe
from dom0.osimage.squash import SQUASHFS, stamp
from dom0.run import transfer

_MOUNT_POINTS = ("dev", "proc", "sys", "run", "lower", "upper", "root")


async def pack(
    recipe: OsRecipe, kernel: modules.Kernel, tree: Path, squashfs: Path, scratch: Path, archive: Path
) -> None:
    """Write the initramfs to the file `archive`; `tree` is laid over the root file system."""
    directory = scratch / "initramfs"
    for name in _MOUNT_POINTS:
        (directory / name).mkdir(parents=True)
    shutil.copyfile(recipe.directory / "init", directory / "init")
    (directory / "init").chmod(0o755)
    shutil.copytree(tree, directory / "tree", symlinks=True)
    _place_busybox(kernel, directory)
    _place_modules(recipe, kernel, directory / "modules")
    shutil.copyfile(squashfs, directory / SQUASHFS)
    stamp(directory)
    await write(directory, scratch / "names", archive)


def _place_busybox(kernel: modules.Kernel, directory: Path) -> None:
    (directory / "bin").mkdir()
    busybox = kernel.directory.parents[2] / "bin" / "busybox"
    shutil.copy2(busybox, directory / "bin" / "busybox")
    (directory / "bin" / "sh").symlink_to("busybox")


def _place_modules(recipe: OsRecipe, kernel: modules.Kernel, directory: Path) -> None:
    """Under names that sort in the order in which they have to be loaded."""
    for number, path in enumerate(modules.choose(kernel, recipe.first_modules)):
        name = Path(path).name.removesuffix(".xz")
        modules.write_unpacked(kernel.directory / path, directory / f"{number:02}-{name}")


async def write(directory: Path, names: Path, archive: Path) -> None:
    """All below `directory` as an archive that the kernel unpacks; `names` is a file for our use."""
    _list_names(directory, names)
    argv = ["cpio", "--create", "--format=newc", "--reproducible", "--owner=0:0", "--quiet", f"--directory={directory}"]
    with names.open("rb") as stdin, archive.open("wb") as stdout:
        await transfer(argv, stdin=stdin, stdout=stdout)


def _list_names(directory: Path, names: Path) -> None:
    """Names of all files for cpio, which takes them in the order they are given."""
    found = sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
    names.write_text("".join(f"{name}\n" for name in found))
