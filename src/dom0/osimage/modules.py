"""Kernel modules: names and patterns to files, with their dependencies. `depmod` reads and writes the tables.
Modules are stored uncompressed, because the squashfs compresses better.
"""

from __future__ import annotations

import fnmatch
import lzma
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error
from dom0.images.archive import environment
from dom0.run import capture

_TABLES = ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin", "modules.order")


class Kernel(msgspec.Struct, frozen=True):
    """The kernel in a tree of unpacked packages. Paths of modules are relative to `directory`; `needs` are a module's
    dependencies, `asks` its soft dependencies (`softdep` in modprobe.d(5)), as ext4 has one for checksums.
    """

    release: str
    image: Path
    directory: Path
    needs: dict[str, tuple[str, ...]]
    asks: dict[str, tuple[str, ...]]
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
    return Kernel(release, images[0], directory, needs, asks_of(directory, needs), built_in)


def choose(kernel: Kernel, wanted: Iterable[str]) -> list[str]:
    """Paths of the modules that match `wanted` and of their dependencies, each after what it depends on.

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
            _add(kernel, paths[name], chosen)
    return list(chosen)


def _add(kernel: Kernel, path: str, chosen: dict[str, None]) -> None:
    for needed in (*reversed(kernel.needs[path]), path):  # depmod lists the farthest last
        if needed not in chosen:
            chosen[needed] = None
            for asked in kernel.asks.get(needed, ()):
                _add(kernel, asked, chosen)


def asks_of(directory: Path, modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Path of a module -> paths of its soft dependencies, from `modules.softdep`. That names modules, or their
    aliases in `modules.alias`.
    """
    paths = {_name(path): path for path in modules}
    meant: dict[str, list[str]] = {name: [path] for name, path in paths.items()}
    for _, *alias, name in _words(directory / "modules.alias"):  # some have spaces
        meant.setdefault(" ".join(alias).replace("-", "_"), []).append(paths[name])
    asks: dict[str, tuple[str, ...]] = {}
    for _, name, *words in _words(directory / "modules.softdep"):
        found = (path for word in words for path in meant.get(word.replace("-", "_"), ()))
        asks[paths[name]] = (*asks.get(paths[name], ()), *found)
    return asks


def _words(table: Path) -> list[list[str]]:
    return [line.split() for line in table.read_text().splitlines() if line and not line.startswith("#")]


async def install(kernel: Kernel, paths: Iterable[str], root: Path) -> None:
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
