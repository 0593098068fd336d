"""Which files of a project its image holds: those that .dockerignore does not exclude, and what the machine needs.

Most `.dockerignore` files were written for the build of a service, and exclude `.env` and env files. The files that the
project is read from, configs, secrets and files that services bind are taken all the same. A directory that services
bind is taken without the files in it that .dockerignore names: on the machine it is empty at first, or has what was
placed there before.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from dom0.compose import above, links, mounted
from dom0.compose.findings import Finding, refuse
from dom0.compose.model import Project, ServiceVolume
from dom0.compose.x_dom0 import files_of
from dom0.images import weight
from dom0.images.dockerfile import PLAIN
from dom0.images.fingerprint import NEVER, selected
from dom0.images.ignore import Ignore, literal


def kept(project: Project, directory: Path, ignore: Ignore, *, in_place: bool = False) -> tuple[str, ...]:
    """What the machine needs of all that `ignore` excludes, with its parent directories; and of what is above.

    With a `/` at its end what services bind, of which an allow-list for some build says nothing; with `/.` a Compose
    file that is a link out of the project, and a file in its image. Some of all that may not be there yet: when it
    comes, it is taken.
    `in_place`: the project was taken over, and what services bind stays where it is.
    """
    objects = (*project.configs.values(), *project.secrets.values())
    devices = (volume.driver_opts.get("device", "") for volume in project.volumes.values())
    bound = {*_inside(project, (volume.source for volume in _binds(project))), *_inside(project, devices)}
    needed = {  # relative paths; some of them may not be there
        *project.opened,
        *_inside(project, (item.file for item in objects if item.file)),
        *bound,
        *(os.path.normpath(path) for path in project.contents),
        *(path for _, path in files_of(project.machine)),
        *_dotenvs(project),
    }
    found = {part for name in needed if not above.is_above(name) for part in _on_the_way(directory, name)}
    names = {*filter(ignore, found), *filter(above.is_above, needed)}
    if not in_place and ignore.lines != ignore.named.lines:
        for name in bound:
            *_, real = _on_the_way(directory, name)  # where a link leads
            names.add(f"{real}/")
    names |= {f"{name}/." for name in _compose_files(project) if links.leaving(directory, name)}
    return tuple(sorted(names))


def private(project: Project, directory: Path, ignore: Ignore) -> tuple[str, ...]:
    """The secrets, env files and `.env`, as files and not as links to them; see images/private.py."""
    secrets = _inside(project, (item.file for item in project.secrets.values() if item.file))
    compose_files = _compose_files(project)
    found: dict[str, bool] = {}
    unused = (name for name in project.secret_files if not _leads_out(name) and not ignore(name))
    own = (path for _, path in files_of(project.machine))
    for name in (*project.env_files, *secrets, *unused, *own, *_dotenvs(project)):
        *_, real = ("", *_on_the_way(directory, name))
        path = above.find(directory, real)
        if real and real not in compose_files and path.is_file() and not path.is_symlink():
            found[real] = found.get(real, False) or ignore.lets_in(name) or ignore.lets_in(real)
    return tuple(sorted(name for name, is_let_in in found.items() if not is_let_in))


def _compose_files(project: Project) -> set[str]:
    return set(project.opened) - set(project.env_files)


def writable_binds(project: Project, directory: Path) -> tuple[str, ...]:
    """The directories that services bind writable. In a project that was taken over they stay where they are, in the
    project's own directory, and their content is data, which is not in the image.
    """
    return _directories(project, directory, (volume for volume in _binds(project) if not volume.read_only))


def _directories(project: Project, directory: Path, binds: Iterable[ServiceVolume]) -> tuple[str, ...]:
    names = set(_inside(project, (volume.source for volume in binds)))
    return tuple(sorted(name for name in names if above.find(directory, name).is_dir()))


def words(
    project: Project, directory: Path, names: Sequence[str], apart: tuple[str, ...] | None = None
) -> Iterator[str]:
    """Messages on data: how much of it goes into the image, and which does not.

    `names`: as `kept` says; `apart`: as `writable_binds`, in a project that was taken over. Raises ProjectError for
    more than an image may hold.
    """
    written = writable_binds(project, directory)
    sizes = weight.check(directory, selected(directory, names, writable_binds=apart or ()))
    yield from weight.words(directory, sizes, [n for n in written if n not in (apart or ()) and not above.is_around(n)])
    for name in names:
        if f"{name}/" in names and any(path.startswith(f"{name}/") for path in sizes):
            cure = f"in .dockerignore a last line {literal(name)} keeps it out"
            yield f"{name}: services bind it, so it goes into the image; {cure}"
    bare = {*names} - {str(parent) for name in sizes for parent in PurePath(name).parents}
    for name in _directories(project, directory, _binds(project) if apart is None else ()):
        *_, real = _on_the_way(directory, name)
        if (path := above.find(directory, real)).is_symlink():  # it leads out of the project
            continue
        with os.scandir(path) as found:
            entries = [(f"{real}/{entry.name}", entry) for entry in found if entry.name not in NEVER]
            emptied = {path for path, entry in entries if path in bare and entry.is_dir(follow_symlinks=False)}
            if any(path not in sizes or path in emptied for path, _ in entries):
                yield (
                    f"{name}: what .dockerignore names stays out of the image; "
                    f"the machine's own is {Path(project.working_dir, name)}"
                    + ("" if name in written else f"; services only read it: a last line !{real} brings it")
                )


def check_links(project: Project, directory: Path) -> None:
    """Raises ProjectError where a link leads out of the project to somewhere else than on the machine, which keeps the
    project in another place.
    """
    paths = [(path, key) for path, key, _ in mounted.named(project)]
    for volume, told in project.volumes.items():
        paths.append((told.driver_opts.get("device", ""), ("volumes", volume, "driver_opts", "device")))
    found = []
    for path, key in paths:
        for name in _inside(project, [path]):
            way = links.leaving(directory, name)
            if links.is_circle(above.find(directory, name)):
                what = f"{name} is a symbolic link that leads back to itself"
                found.append(Finding(key, what, "put the file or directory itself there"))
            elif way and not way.target.startswith("/"):
                what = f"{way.link} is a link to {way.target}, which the machine does not have"
                place, link = (os.path.realpath(directory / path) for path in (name, way.link))
                absolute = shlex.join(["ln", "-sfn", link, str(directory / way.link)])
                hint = f"write {place}, its path on the host, or make the link absolute: {absolute}"
                if key[0] == "x-dom0":
                    hint = "put the file itself into the project"
                found.append(Finding(key, what, hint))
    if found:
        raise refuse(found, project.locations)


def check_builds(project: Project) -> None:
    """Raises ProjectError where a service is to be built from a directory or a Dockerfile that is not there."""
    found = []
    for name, build in ((name, service.build) for name, service in project.services.items()):
        if build is None or not (context := Path(build.context)).is_absolute():  # of another host
            continue
        path, file = ("services", name, "build"), context / (build.dockerfile or PLAIN)
        if not os.path.isdir(context):  # noqa: PTH112 -- Path's raises an error for a name that is too long
            what = "is not a directory" if os.path.lexists(context) else "there is no such directory"
            hint = "make it, correct the path, or take build: out and name an image: that is built already"
            found.append(Finding((*path, "context"), f"{context}: {what}", hint))
        elif not build.dockerfile_inline and not any(map(os.path.isfile, (file, file.parent / file.name.lower()))):
            named = sorted(path.name for path in context.glob("*ockerfile*"))
            hint = f"write dockerfile: {named[0]} under build:" if named else "make it, or write dockerfile: NAME"
            found.append(Finding((*path, "dockerfile"), f"{file}: there is no such file", hint))
    if found:
        raise refuse(found, project.locations)


def _dotenvs(project: Project) -> Iterator[str]:
    """The `.env` of directories around the project that services bind: like the project's they may hold passwords."""
    bound = _inside(project, (volume.source for volume in _binds(project)))
    yield from (f"{name}/.env" for name in bound if above.is_around(name))


def _binds(project: Project) -> Iterator[ServiceVolume]:
    for service in project.services.values():
        yield from (volume for volume in service.volumes if volume.type == "bind")


def _inside(project: Project, paths: Iterable[str]) -> Iterator[str]:
    """Those inside the project, relative to it; without the project's directory itself."""
    root = PurePath(project.working_dir)
    for path in map(PurePath, paths):
        if path != root and path.is_relative_to(root):
            yield str(path.relative_to(root))


def _on_the_way(directory: Path, name: str) -> Iterator[str]:
    """`name` and its parent directories that are there, and for each of them that is a link also its target."""
    for depth in range(1, len(PurePath(name).parts) + 1):
        part = PurePath(*PurePath(name).parts[:depth])
        path = above.find(directory, str(part))
        if not os.path.lexists(path):
            yield name
            return
        yield str(part)
        if path.is_symlink() and not links.is_circle(path):
            leads_to = os.path.relpath(os.path.realpath(path), directory)
            if not _leads_out(leads_to):
                yield from _on_the_way(directory, str(leads_to / PurePath(name).relative_to(part)))
            return


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in PurePath(name).parts
