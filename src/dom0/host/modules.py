"""Kernel modules: which files a list of names and patterns means, with all that these need. `depmod` reads and writes
the tables; modules are stored as the kernel loads them, because the file system around them compresses better.
"""

from __future__ import annotations

import fnmatch
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.images.archive import environment
from dom0.run import capture

_TABLES = ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin", "modules.order")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The one kernel in a tree of unpacked packages. `needs`: path of a module, relative -> paths that it needs."""

    release: str
    image: Path
    directory: Path
    needs: dict[str, tuple[str, ...]]
    built_in: frozenset[str]


async def find_kernel(unpacked: Path) -> Kernel:
    """Raises Dom0Error if there is none, or more than one."""
    images = sorted((unpacked / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise Dom0Error(f"os/packages: brings {len(images)} kernels instead of one")
    release = images[0].name.removeprefix("vmlinuz-")
    directory = unpacked / "usr/lib/modules" / release
    await _depmod(unpacked, release)
    lines = (line.split(":") for line in (directory / "modules.dep").read_text().splitlines())
    needs = {module: tuple(needed.split()) for module, needed in lines}
    built_in = frozenset(_name(line) for line in (directory / "modules.builtin").read_text().splitlines())
    return Kernel(release, images[0], directory, needs, built_in)


def choose(kernel: Kernel, wanted: Iterable[str]) -> list[str]:
    """Paths of the modules that `wanted` means and of those that they need, each after what it needs.

    Raises Dom0Error for a name that the kernel does not have.
    """
    paths = {_name(path): path for path in kernel.needs}
    chosen: dict[str, None] = {}
    for word in wanted:
        pattern = word.replace("-", "_")
        matching = sorted(fnmatch.filter(paths, pattern))
        if not matching and pattern not in kernel.built_in:
            raise Dom0Error(f"os/modules: kernel {kernel.release} has no module {word}", hint="take it out of the list")
        for name in matching:
            for path in (*reversed(kernel.needs[paths[name]]), paths[name]):  # depmod lists the farthest last
                chosen[path] = None
    return list(chosen)


async def place(kernel: Kernel, paths: Iterable[str], root: Path) -> None:
    """Copy modules below `root`, and write the tables by which `modprobe` finds them."""
    directory = root / "usr/lib/modules" / kernel.release
    directory.mkdir(parents=True)
    for path in paths:
        write_unpacked(kernel.directory / path, directory / path.removesuffix(".xz"))
    for table in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (directory / table).write_bytes((kernel.directory / table).read_bytes())
    await _depmod(root, kernel.release)
    for file in directory.glob("modules.*"):
        if file.name not in _TABLES:
            file.unlink()


def write_unpacked(module: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = module.read_bytes()
    target.write_bytes(lzma.decompress(content) if module.suffix == ".xz" else content)


async def _depmod(root: Path, release: str) -> None:
    await capture(["depmod", "--basedir", str(root), "--moduledir", "/usr/lib/modules", release], env=environment())


def _name(path: str) -> str:
    return Path(path).name.partition(".ko")[0].replace("-", "_")
