"""The initramfs: the root file system as one squashfs, and what mounts that: busybox, three modules, `init`.

It is not compressed: nearly all of its content is. It is reproducible: times, owners and order are fixed.
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
    """Write the initramfs to the file `archive`; `tree` is copied over the root file system at boot."""
    directory = scratch / "initramfs"
    for name in _MOUNT_POINTS:
        (directory / name).mkdir(parents=True)
    shutil.copyfile(recipe.directory / "init", directory / "init")
    (directory / "init").chmod(0o755)
    shutil.copytree(tree, directory / "tree", symlinks=True)
    (directory / "bin").mkdir()
    shutil.copy2(kernel.directory.parents[2] / "bin" / "busybox", directory / "bin" / "busybox")
    (directory / "bin" / "sh").symlink_to("busybox")
    for number, path in enumerate(modules.choose(kernel, recipe.first_modules)):
        name = Path(path).name.removesuffix(".xz")  # after a number: they are loaded in the order of their names
        modules.write_unpacked(kernel.directory / path, directory / "modules" / f"{number:02}-{name}")
    shutil.copyfile(squashfs, directory / SQUASHFS)
    stamp(directory)
    await write(directory, scratch / "names", archive)


async def write(directory: Path, names: Path, archive: Path) -> None:
    """Write all below `directory` to `archive`, which the kernel unpacks; `names` is a scratch file."""
    _list_names(directory, names)
    argv = ["cpio", "--create", "--format=newc", "--reproducible", "--owner=0:0", "--quiet", f"--directory={directory}"]
    with names.open("rb") as stdin, archive.open("wb") as stdout:
        await transfer(argv, stdin=stdin, stdout=stdout)


def _list_names(directory: Path, names: Path) -> None:
    """Names of all files for cpio, in the order of the archive."""
    found = sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
    names.write_text("".join(f"{name}\n" for name in found))
