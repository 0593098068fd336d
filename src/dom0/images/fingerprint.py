"""Decides in milliseconds whether a dom0 image is what its project would be built into. Reads files, asks no Engine.

The image has labels with the digest of all its inputs (`dom0.inputs`), and with the service images that were built with
it and their contexts (`dom0.builds`); with the present IDs of its base images that is enough.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from dom0.compose import above
from dom0.errors import ProjectError
from dom0.images import private, weight
from dom0.images.contents import Ignored, TreeEntry, digest, entries, file_entry, named, top
from dom0.images.dockerfile import MACHINES, PLAIN, images_below
from dom0.images.ignore import LONGEST, Ignore, literal
from dom0.images.recipe import base_inputs
from dom0.names import BASE_IMAGE
from dom0.plan.labels import BUILDS, DOCKERFILE, IMAGES, IN_PLACE, INPUTS, KEPT, PROJECT

IGNORE = ".dockerignore"
NEVER = (IGNORE, ".git")  # no part of an image
ELSEWHERE = ""  # a directory outside the project, or a remote one, whose changes are not seen
WHOLE = "."  # the project's directory, with its own .dockerignore
OURS = "/dom0"  # no directory: an image that is made from dom0 itself, whose digest is among the inputs anyway

Builds = Mapping[str, str]
"""Reference of a service's image -> its build context, relative to the project; or ELSEWHERE, WHOLE, OURS."""


class BuildInputs(NamedTuple):
    """What an image was built from, by its labels; see `plan.labels`."""

    builds: Builds
    dockerfile: str = ""
    kept: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    project: str = ""  # its name
    writable_binds: tuple[str, ...] | None = None  # None: the project is not taken over


def references(directory: Path, labels: Mapping[str, str]) -> tuple[str, ...]:
    """The images whose IDs `is_current` compares: those that were built with an image, and those that it stands on."""
    return (*(builds_of(labels) or ()), *parents_of(directory, dockerfile_of(labels)))


def is_current(
    directory: Path, labels: Mapping[str, str], present: Mapping[str, str], taken_over: Collection[str] = ()
) -> bool:
    """Whether an image with `labels` is what `directory` would become. `present`: its `references` -> ID, "" for none.

    `taken_over`: names of the projects that dom0 took over from Docker Compose there. Raises ProjectError for a
    directory that cannot be read.
    """
    builds, built = builds_of(labels), images_of(labels)
    if builds is None or ELSEWHERE in builds.values():
        return False
    if any(not present[ref] or present[ref] != built.get(ref, present[ref]) for ref in builds):
        return False
    made = BuildInputs(
        builds,
        dockerfile_of(labels),
        _names(labels, KEPT),
        private.of_image(labels),
        labels.get(PROJECT, ""),
        _names(labels, IN_PLACE) if IN_PLACE in labels else None,
    )
    if not made.dockerfile and (made.writable_binds is not None) is not (made.project in taken_over):
        return False
    parents = {ref: present[ref] for ref in parents_of(directory, made.dockerfile)}
    return labels.get(INPUTS) == inputs_digest(directory, parents, made)


def builds_of(labels: Mapping[str, str]) -> Builds | None:
    """The service images that were built with an image; None without a valid label."""
    return _mapping(labels, BUILDS)


def dockerfile_of(labels: Mapping[str, str]) -> str:
    """The Dockerfile of the project that an image was made with, "" for none."""
    return labels.get(DOCKERFILE, "")


def _names(labels: Mapping[str, str], label: str) -> tuple[str, ...]:
    names = _json(labels, label)
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _json(labels: Mapping[str, str], label: str) -> Any:
    try:
        return json.loads(labels.get(label, ""))
    except ValueError:
        return None


def images_of(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Reference of each service image that was built with a dom0 image -> its ID."""
    return _mapping(labels, IMAGES) or {}


def _mapping(labels: Mapping[str, str], label: str) -> dict[str, str] | None:
    found = _json(labels, label)
    return found if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()) else None


def inputs_digest(directory: Path, parents: Mapping[str, str], made: BuildInputs) -> str:
    """Digest of the project, the images below it and dom0 itself."""
    if not made.dockerfile:
        weight.check(
            directory, selected(directory, made.kept, writable_binds=made.writable_binds or ())
        )  # before anything is read
    contexts = tuple(f"{context}/" for context in made.builds.values() if context not in (OURS, WHOLE))
    apart = private.digest(directory, made.private, made.project)
    around = [".", *filter(above.is_around, made.kept)]
    ignored = [read_ignore(above.find(directory, name)).lines for name in around]  # the image says them: left_out.py
    told = json.dumps([base_inputs(), dict(parents), made, apart, ignored], sort_keys=True)
    writable_binds = (
        () if WHOLE in made.builds.values() else made.writable_binds or ()
    )  # the service's image may hold it
    found = selected(directory, (MACHINES, PLAIN, *made.kept), contexts, writable_binds)
    counted = (entry for entry in found if entry.name not in made.private)
    return digest([top(directory), *counted], text=told, owned=True)


def selected(
    directory: Path, kept: Iterable[str], contexts: tuple[str, ...] = (), writable_binds: Iterable[str] = ()
) -> Iterator[TreeEntry]:
    """What `read_ignore` does not exclude, what is `kept` all the same, and all in `contexts` (which end with `/`).

    Of a directory that is `kept` with a `/`, all but what a line of .dockerignore names; of a link with `/.` the file
    that it leads to.
    """
    ignore, needed = read_ignore(directory, writable_binds), frozenset(kept)
    named_ones, whole = ignore.named, tuple(name for name in needed if name.endswith("/"))

    def left_out(name: str) -> bool:
        if not ignore(name) or name in needed or f"{name}/".startswith(contexts):
            return False
        return not f"{name}/".startswith(whole) or named_ones(name)

    for entry in entries(directory, left_out, prune=not contexts and not whole and not ignore.has_exceptions):
        is_followed = f"{entry.name}/." in needed and Path(entry.path).is_file()
        yield file_entry(entry.name, Path(entry.path).resolve()) if is_followed else entry
    yield from _above(directory, needed.difference(whole), left_out)


def _above(directory: Path, needed: Collection[str], left_out: Ignored) -> Iterator[TreeEntry]:
    """What is `needed` of the files above the project, with its parent directories. Nothing in an unpacked image."""
    found: dict[str, TreeEntry] = {}
    if os.path.lexists(directory / above.PARENT):
        return
    for name in filter(above.is_above, needed):
        for part in map(str, PurePath(name).parents[:-1]):
            found |= {entry.name: entry for entry in islice(named(part, above.find(directory, part), left_out), 1)}
        path = above.find(directory, name)
        below = _around(directory, name, path, left_out) if above.is_around(name) else named(name, path, left_out)
        found |= {entry.name: entry for entry in below}
    yield from (found[name] for name in sorted(found))


def _around(directory: Path, name: str, path: Path, left_out: Ignored) -> Iterator[TreeEntry]:
    """A directory around the project, without what its own .dockerignore excludes. The one in it on the way to the
    project stays empty: the project has another name in an image.
    """
    ignore, (inward, _) = read_ignore(path), next(above.within(directory, above.levels(name)))

    def is_out(whole: str) -> bool:
        inner = whole.removeprefix(f"{name}/")
        if inner == inward:
            return False
        return PurePath(inner).parts[0] in (inward, above.PARENT) or ignore(inner) or left_out(whole)

    yield from named(name, path, is_out, prune=not ignore.has_exceptions)


def read_ignore(directory: Path, writable_binds: Iterable[str] = ()) -> Ignore:
    """What is not in the project's image: what its .dockerignore excludes, that file, git's own directory, and in the
    directories `writable_binds` all without an exception in .dockerignore.
    """
    path = directory / IGNORE
    try:
        text = path.read_text() if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path}: cannot be read: {error}") from error
    if len(text) > LONGEST:
        raise ProjectError(f"{path}: is larger than {LONGEST} bytes", hint="name directories, not single files")
    lines = (f"{literal(name)}/*" for name in writable_binds)
    return Ignore("\n".join([*lines, *NEVER, text]), where=str(path))


def parents_of(directory: Path, dockerfile: str) -> tuple[str, ...]:
    """The images that the project's image is built on: what its Dockerfile says, else dom0-base."""
    return images_below(directory / dockerfile) if dockerfile else (BASE_IMAGE,)
