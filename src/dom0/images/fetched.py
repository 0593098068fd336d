"""The cache of what builds fetch, and the wheels in it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dom0 import flock, temporary
from dom0.errors import Dom0Error
from dom0.images.recipe import data
from dom0.names import BASE_IMAGE, cache_directory
from dom0.run import capture, sync

_PAUSE = 0.2  # seconds between two tries to get a lock
_GLIBC = (17, 28, 34)  # minor versions that wheels are built for; Debian's own is newer than all of them

ADD_PIP = "beside dom0: uv tool install --with pip dom0; or Debian's own: apt-get install python3-venv"


async def wheels(image: str, python: str) -> Path:
    """A directory with the packages in the lock file of `image`, for Python `python` (`3.13`). Raises Dom0Error."""
    lock = data(image) / "requirements.lock"
    machine = os.uname().machine

    async def fetch(into: Path) -> None:
        with temporary.directory("pip") as scratch:
            argv = [
                *(*await _pip(scratch), "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
                *("--require-hashes", "--no-deps", "--only-binary=:all:"),
                # For another Python than the one that runs.
                *(f"--platform=manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)),
                f"--platform=manylinux2014_{machine}",
                *(f"--python-version={python}", f"--target={into}", f"--requirement={lock}"),
            ]
            await capture(argv)

    return await cached(f"wheels-{image}", f"{lock.read_text()} {python} {machine}", fetch)


def lacks_pip() -> bool:
    """Whether this Python can install no packages: some installers of dom0 (uv tool) leave pip out."""
    return not any(importlib.util.find_spec(name) for name in ("pip", "ensurepip"))


def require_pip() -> None:
    """Raises Dom0Error, before a build does anything."""
    if lacks_pip():
        raise Dom0Error(f"{sys.executable}: has no pip, which fetches the packages of {BASE_IMAGE}", hint=ADD_PIP)


async def _pip(scratch: Path) -> list[str]:
    """The command pip: that of this Python, else a fresh one in `scratch`."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    await capture([sys.executable, "-m", "venv", str(scratch)])
    return [str(scratch / "bin" / "python"), "-m", "pip"]


async def cached(kind: str, key: str, fetch: Callable[[Path], Awaitable[None]], *, anew: bool = False) -> Path:
    """The directory that `fetch` fills, made once for each `key`. Of every kind only the latest one is kept."""
    top = cache_directory() / kind
    wanted = top / hashlib.sha256(key.encode()).hexdigest()[:16]
    if anew or not wanted.is_dir():
        top.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=top))
        try:
            await fetch(fresh)
            await sync(fresh)  # a directory with its final name counts as complete
            _replace_all(top, fresh, wanted)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return wanted


def _replace_all(top: Path, fresh: Path, wanted: Path) -> None:
    for old in top.iterdir():
        if old != fresh:
            shutil.rmtree(old)
    fresh.rename(wanted)


@asynccontextmanager
async def lock(name: str, on_wait: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock `name` in the cache. `on_wait` is called once where another process has it."""
    path = cache_directory() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as opened:
        waits = False
        while not flock.try_lock(opened.fileno()):  # again and again: a thread that waits in flock cannot be cancelled
            if not waits:
                on_wait()
            waits = True
            await asyncio.sleep(_PAUSE)
        yield
