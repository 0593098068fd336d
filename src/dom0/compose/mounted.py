"""The contents of files that a resolved project mounts: digests, and the profiles and keys that are used as text.

Compose compares paths only, and does not notice an edited config. Files outside the project belong to the host and may
not be visible here; they have no digest. Nor have files beyond the total size that an image may hold: they are no part
of the machine, and a sparse file of 200 GB would be read for minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from dom0.compose import above, x_dom0
from dom0.compose.files import Irregular, open_regular, read_regular, unreadable, way_out
from dom0.compose.findings import Finding, KeyPath, Locations, refuse
from dom0.compose.links import leaving
from dom0.compose.model import Project
from dom0.errors import ProjectError

MOST = 512_000_000  # bytes of all files together, as in images/weight.py
_PIECE = 1 << 20


class ProjectTree(msgspec.Struct, frozen=True):
    """The project's files: where they are now, and where containers will find them."""

    source: Path
    final: Path
    locations: Locations


def digests(project: Project, tree: ProjectTree) -> tuple[dict[str, str], tuple[str, ...]]:
    """Final path → sha256 of every config, secret and bind that is a file of the project; and warnings of others.

    Raises ProjectError.
    """
    found: dict[str, str] = {}
    words: dict[str, str] = {}
    left = MOST
    for path, key, required in named(project):
        target = Path(path)
        if not target.is_relative_to(tree.final) or path in found or path in words:
            continue
        name = str(target.relative_to(tree.final))
        if leaving(tree.source, name):
            continue
        file = above.find(tree.source, name)
        try:
            digest, size = _digest(file, key, tree, left, required=required)
        except _TooLarge as error:
            where = tree.locations.name(Finding(key, ""))
            words[path] = f"{where}: {error} to be read: another content of it makes no other container"
            continue
        left -= size
        if digest:
            found[path] = digest
    return found, tuple(words.values())


def named(project: Project) -> Iterator[tuple[str, KeyPath, bool]]:
    """Path, key, and whether it has to be a file, of all that is mounted."""
    for kind, objects in (("configs", project.configs), ("secrets", project.secrets)):
        for name, item in objects.items():
            if item.file:
                yield item.file, (kind, name, "file"), True
    for key, path in x_dom0.files_of(project.machine):
        yield f"{project.working_dir}/{path}", key, True
    for name, service in project.services.items():
        for number, volume in enumerate(service.volumes):
            if volume.type == "bind":
                yield volume.source, ("services", name, "volumes", str(number)), False


def key_of(path: KeyPath, project: Project) -> KeyPath:
    """The key that names the file whose digest stands at `path` of the project, else `path`."""
    return next((key for file, key, _ in named(project) if path[:2] == ("digests", file)), path)


class _TooLarge(Exception):
    pass


def _digest(file: Path, key: KeyPath, tree: ProjectTree, most: int, *, required: bool) -> tuple[str, int]:
    """And the size. Empty for what is no file: a required one may only be a symbolic link to a file of the host."""
    name = os.path.relpath(file, tree.source)
    try:
        with open_regular(file) as content:
            digest, read, size = hashlib.sha256(), 0, os.fstat(content.fileno()).st_size
            while size <= most and (piece := content.read(_PIECE)):
                digest.update(piece)
                read += len(piece)
                size = max(size, read)  # the file may grow meanwhile
    except Irregular as error:
        problem, hint = unreadable(error), "only a file can be a config or a secret; mount a directory under volumes:"
    except OSError as error:
        problem, hint = unreadable(error), way_out(error, file)
        required = required and not file.is_symlink()
    else:
        if size > most:
            raise _TooLarge(f"{name} is with {size / 1e6:.0f} MB too large")
        return digest.hexdigest(), read
    if required:
        raise _refused(tree, key, f"{name}: {problem}", hint)
    return "", 0


def profiles(project: Project, tree: ProjectTree) -> dict[str, str]:
    """Text of the seccomp profiles by the path as `security_opt` spells it. Raises ProjectError."""
    texts: dict[str, str] = {}
    for name, service in project.services.items():
        for number, option in enumerate(service.security_opt):
            kind, _, path = option.replace(":", "=", 1).partition("=")
            if kind != "seccomp" or path in ("", "unconfined", "builtin"):
                continue
            key, file = ("services", name, "security_opt", str(number)), Path(os.path.normpath(tree.source / path))
            if not file.is_relative_to(tree.source):
                hint = f"copy it into the project's directory, and write seccomp={file.name}"
                raise _refused(tree, key, f"{path} is outside the project", hint)
            try:
                texts[path] = read_regular(file, name=path, inside=tree.source).decode()
                json.loads(texts[path])
            except ProjectError as error:
                raise _refused(tree, key, error.message, error.hint) from error
            except (ValueError, RecursionError) as error:
                hint = "docs.docker.com/engine/security/seccomp shows one; unconfined does without"
                raise _refused(tree, key, f"{path} is not a seccomp profile in JSON", hint) from error
    return texts


def keys(project: Project, tree: ProjectTree) -> dict[str, str]:
    """Text of the files that `x-dom0.pull.verify` names, by their paths as written. Raises ProjectError."""
    pull = project.machine.pull if project.machine else None
    texts: dict[str, str] = {}
    for number, entry in enumerate(pull.verify if pull else ()):
        key = ("x-dom0", "pull", "verify", str(number), "key")
        try:
            content = read_regular(tree.source / entry.key, name=entry.key, inside=tree.source)
        except ProjectError as error:
            raise _refused(tree, key, error.message, error.hint) from error
        if b"PUBLIC KEY-----" not in content:
            raise _refused(tree, key, f"{entry.key} is no public key", "cosign generate-key-pair makes one")
        texts[entry.key] = content.decode(errors="replace")
    return texts


def _refused(tree: ProjectTree, key: KeyPath, what: str, hint: str = "") -> ProjectError:
    return refuse([Finding(key, what, hint)], tree.locations)
