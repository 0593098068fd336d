"""Installs the launcher on another Linux, and removes it.

A receipt beside the programs, in the format of sha256sum, lists what was installed. Only files that still have the
digest in it are replaced or removed; files that were changed, or were there before, stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error
from dom0.names import OS_VERSION
from dom0.package_data import os_recipe

UNIT = "dom0.service"
PROGRAMS = ("usr/lib/dom0/launch", "usr/lib/dom0/mark")  # of the base OS's, those that a foreign host needs
RECEIPT = "usr/lib/dom0/installed"
_UNIT_FILE = f"etc/systemd/system/{UNIT}"
_WANTED = f"etc/systemd/system/multi-user.target.wants/{UNIT}"  # what `systemctl enable` would make
_EXECUTABLE, _PLAIN = 0o755, 0o644


class InstalledFile(msgspec.Struct, frozen=True):
    """A file or, without a mode, a link; its path is relative to the root."""

    path: str
    content: bytes
    mode: int = 0

    @property
    def digest(self) -> str:
        return digest(self.content)


class Removal(msgspec.Struct, frozen=True):
    """`remove` is still as it was installed; `keep` was changed since."""

    remove: tuple[str, ...]
    keep: tuple[str, ...]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# pure


def plan_install(
    wanted: Iterable[InstalledFile], found: Mapping[str, bytes], installed: Mapping[str, str], root: Path
) -> tuple[InstalledFile, ...]:
    """What has to be written below `root`: `found` are the present files, `installed` the digests in the receipt.

    Raises Dom0Error for a present file that dom0 did not install.
    """
    due = tuple(file for file in wanted if found.get(file.path) != file.content)
    for file in due:
        there = found.get(file.path)
        if there is None:
            continue
        path = root / file.path
        move = f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}"
        if file.path not in installed:
            raise Dom0Error(f"{path}: is there, and dom0 did not install it", hint=move)
        if digest(there) != installed[file.path]:
            raise Dom0Error(f"{path}: was changed since dom0 installed it", hint=f"keep the change elsewhere: {move}")
    return due


def plan_removal(found: Mapping[str, bytes], installed: Mapping[str, str]) -> Removal:
    there = [path for path in installed if path in found]
    same = tuple(path for path in there if digest(found[path]) == installed[path])
    return Removal(remove=same, keep=tuple(path for path in there if path not in same))


# files


def files() -> tuple[InstalledFile, ...]:
    """What belongs on a host. Raises Dom0Error where the recipe of the base OS is missing."""
    recipe = os_recipe()
    return (
        *(InstalledFile(path, (recipe / "tree" / path).read_bytes(), _EXECUTABLE) for path in PROGRAMS),
        InstalledFile(_UNIT_FILE, (recipe / "foreign" / _UNIT_FILE).read_bytes(), _PLAIN),
        InstalledFile(_WANTED, f"/{_UNIT_FILE}".encode()),
    )


def install(root: Path) -> tuple[str, ...]:
    """Below `root`; returns the paths that were written, none if all is there. Raises Dom0Error, OSError."""
    if (root / OS_VERSION.relative_to("/")).exists():
        raise Dom0Error("install-host: this host runs the base OS, which has its launcher", hint="dom0 status")
    wanted, before = files(), _read_receipt(root)
    due = plan_install(wanted, _look(root, [file.path for file in wanted]), before, root)
    for file in due:
        _write(root, file)
    if before != (now := {file.path: file.digest for file in wanted}):
        _write_receipt(root, now)  # last: after a kill the next install accepts what is as wanted
    return tuple(file.path for file in due)


def uninstall(root: Path) -> Removal:
    """Raises OSError."""
    installed = _read_receipt(root)
    plan = plan_removal(_look(root, installed), installed)
    for path in plan.remove:
        (root / path).unlink()
    if plan.keep:
        _write_receipt(root, {path: installed[path] for path in plan.keep})
    else:
        (root / RECEIPT).unlink(missing_ok=True)
    for path in (*plan.remove, RECEIPT):
        with contextlib.suppress(OSError):  # a directory with other files stays
            (root / path).parent.rmdir()
    return plan


def _look(root: Path, paths: Iterable[str]) -> dict[str, bytes]:
    found = {}
    for path in paths:
        file = root / path
        if file.is_symlink():
            found[path] = os.fsencode(file.readlink())
        elif file.exists():
            found[path] = file.read_bytes()
    return found


def _write(root: Path, file: InstalledFile) -> None:
    """Atomically: the old file or the new one is there, also after a power cut."""
    target = root / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    if file.mode:
        with fresh.open("wb") as opened:
            opened.write(file.content)
            os.fchmod(opened.fileno(), file.mode)
            opened.flush()
            os.fsync(opened.fileno())  # or a power cut may leave the name without the content
    else:
        fresh.symlink_to(file.content.decode())
    fresh.replace(target)


def _read_receipt(root: Path) -> dict[str, str]:
    """Path -> digest. Invalid lines are ignored."""
    receipt = root / RECEIPT
    if not receipt.exists():
        return {}
    known = {file.path for file in files()}
    lines = (line.split("  /", 1) for line in receipt.read_text().splitlines())
    return {words[1]: words[0] for words in lines if len(words) == 2 and words[1] in known}


def _write_receipt(root: Path, digests: Mapping[str, str]) -> None:
    text = "".join(f"{value}  /{path}\n" for path, value in sorted(digests.items()))
    _write(root, InstalledFile(RECEIPT, text.encode(), _PLAIN))
