"""Finds and copies the shared libraries that programs need. None is run, so that they may be of any architecture."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.osimage.recipe import Architecture
from dom0.run import capture

_NEEDED = re.compile(r"\(NEEDED\)\s.*\[([^]]+)\]")
_FILE = re.compile(r"^File: (.*)$")


def programs(root: Path) -> list[Path]:
    """The programs and libraries below `root`, by their first bytes."""
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as opened:
                if opened.read(4) == b"\x7fELF":
                    found.append(path)
    return found


async def libraries(programs: Iterable[Path], directory: Path) -> list[Path]:
    """The files of `directory` that `programs` need, and those that these need. Raises Dom0Error if one is missing."""
    found: dict[str, Path] = {}
    waiting = list(programs)
    while waiting:
        asked, waiting = waiting, []
        for program, names in (await _needed(asked)).items():
            for name in names:
                if name in found:
                    continue
                found[name] = directory / name
                if not found[name].exists():
                    hint = "name its package in os/packages"
                    raise Dom0Error(f"{program}: needs {name}, which no package brings", hint=hint)
                waiting.append(found[name])
    return list(found.values())


async def add_libraries(programs: Iterable[Path], unpacked: Path, architecture: Architecture, root: Path) -> None:
    """To `root`, under the names that programs need, which are links in Debian's packages. Raises Dom0Error."""
    directory = unpacked / architecture.libraries
    for library in await libraries(programs, directory):
        target = root / architecture.libraries / library.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)
    loader = root / "usr" / architecture.loader
    loader.parent.mkdir(parents=True, exist_ok=True)
    if not loader.exists():
        shutil.copy2((directory / loader.name).resolve(), loader)


async def _needed(files: Iterable[Path]) -> dict[str, list[str]]:
    """File -> names of libraries, without files that need none."""
    paths = [str(file) for file in files]
    printed = await capture(["readelf", "--dynamic", "--wide", *paths, "/dev/null"], check=False)
    needed: dict[str, list[str]] = {}
    file = ""
    for line in printed.stdout.splitlines():
        if of := _FILE.match(line):
            file = of[1]
        elif name := _NEEDED.search(line):
            needed.setdefault(file, []).append(name[1])
    return needed
