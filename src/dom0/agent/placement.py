"""Puts the project's files where containers can bind them: the same path inside the root container and on the host.

What a generation brought is replaced or taken away by the next one; what else lies there (data that containers wrote
into `./data`) is nobody's to touch. The manifest says which is which.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dom0.agent.store import read_json, write_json
from dom0.errors import ProjectError

MANIFEST = ".dom0-files.json"


def place(files: Path, target: Path) -> None:
    """Make `target` hold every file of `files`; safe to repeat after a kill at any point."""
    target.mkdir(parents=True, exist_ok=True)
    before = set(read_json(target / MANIFEST, list[str]) or [])
    wanted = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_symlink() or not path.is_dir()}
    write_json(target / MANIFEST, sorted(before | wanted))
    for relative in sorted(wanted):
        _place_file(files / relative, target / relative)
    for relative in sorted(before - wanted):
        (target / relative).unlink(missing_ok=True)
    write_json(target / MANIFEST, sorted(wanted))


def _place_file(source: Path, target: Path) -> None:
    """An unchanged file keeps its inode: running containers have it bound."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_symlink() and target.is_file() and not target.is_symlink():
        same_mode = target.stat().st_mode == source.stat().st_mode
        if same_mode and target.read_bytes() == source.read_bytes():
            return
    if target.is_dir() and not target.is_symlink():
        _remove_empty(target)
    temporary = target.with_name(f".{target.name}.dom0-new")
    temporary.unlink(missing_ok=True)
    shutil.copy2(source, temporary, follow_symlinks=False)
    temporary.replace(target)


def _remove_empty(directory: Path) -> None:
    """The Engine makes a directory where a bind's file was missing; anything in it is somebody's data."""
    try:
        directory.rmdir()
    except OSError as error:
        hint = f"move it away: mv {directory} {directory}.old"
        raise ProjectError(f"{directory}: the project has a file here, but there is a directory", hint=hint) from error
