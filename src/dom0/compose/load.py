"""Reads the files of a project into one resolved Project; `docker compose config` resolves.

Read the files, each of limited size → let Compose resolve them → put the final paths in → refuse what cannot run →
digests of the contents and Compose's own hashes. Changes nothing and asks no Engine.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from dom0.compose import above, around, checks, mounted, resolved, support, x_dom0
from dom0.compose.complaints import AN_ENV_FILE, blame, understand
from dom0.compose.difference import difference
from dom0.compose.files import LAYERS, ProjectFiles, read_project, unreadable
from dom0.compose.findings import Finding, refuse
from dom0.compose.model import Project
from dom0.compose.output_cache import ComposeOutput, OutputCache
from dom0.compose.parser import Hashing, Parser, Rejected, View, find_parser, view_of
from dom0.compose.references import plain, services
from dom0.compose.tags import Reset
from dom0.errors import Dom0Error, ProjectError
from dom0.wording import excerpt

A = TypeVar("A")
B = TypeVar("B")

_ENVIRONMENT = "x-dom0-environment"  # in our own last layer: name -> ["set" or "", value]
_MOST_TRIED = 64  # files that are read one by one to find the one that Compose does not name
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PROFILE = re.compile(r"\*|[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)


async def load(
    source: Path,
    final: Path,
    *,
    profiles: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    hashed: bool = True,
    like: Project | None = None,
    cache: OutputCache | None = None,
    on_one_host: bool = True,
) -> Project:
    """The project in the directory `source`, with paths as they will be once its files are placed at `final`.

    `source` holds a compose.yaml, or the layers of an image in compose.d. Variables come from the project's `.env` and
    from `env`, never from this process. Without `hashed` there are no `compose_hashes`, which need another run of
    Compose; `cache` is shared with other readings of the project. `on_one_host`: its containers share that one's ports.
    Raises ProjectError with everything that is wrong, or with the first key that differs from the project `like`;
    Dom0Error when Compose is missing or the disk is full.
    """
    for profile in profiles:
        if not _PROFILE.fullmatch(profile):
            raise ProjectError(f"profile {excerpt(profile)!r}: this cannot be a profile's name")
    try:
        with view_of(_directory_name(source)) as view:
            on_start = cache.started.set if cache else None
            parser = find_parser(view, profiles=profiles, variables=env or {}, on_start=on_start)
            files = await read_project(source, parser, view)
            in_image = files.layers[0].startswith(f"{LAYERS}/")  # where the directory's name is not the project's
            if in_image and not any(document.get("name") for document in files.layer_documents):
                raise ProjectError(
                    f"{LAYERS}: none of the files says name:", hint="name: mybox as the first line of one"
                )
            view.fill(files.copies)
            parser = parser.hurried(files.copies.values())
            project = await _resolve(files, view, parser, final, hashed=hashed, cache=cache, on_one_host=on_one_host)
            if like and (path := difference(like, project)):
                key = mounted.key_of(path, project)
                raise refuse([Finding(key, "is not what it is in the project")], files.locations)
            return project
    except OSError as error:
        raise Dom0Error(f"{error.filename or source}: {unreadable(error)}") from error


async def read_documents(source: Path) -> list[dict[str, Any]]:
    """What the project's own Compose files say, lowest first, before anything is resolved. Raises ProjectError."""
    with view_of(_directory_name(source)) as view:
        parser = find_parser(view, profiles=(), variables={})
        return list((await read_project(source, parser, view)).layer_documents)


def _directory_name(source: Path) -> str:
    return source.resolve().name or "project"


async def _resolve(
    files: ProjectFiles,
    view: View,
    parser: Parser,
    final: Path,
    *,
    hashed: bool,
    cache: OutputCache | None,
    on_one_host: bool,
) -> Project:
    own = _own_document(files)
    layer = msgspec.json.encode(own) if own else b""
    hashing: Hashing | None = None
    try:
        output = cache.find(files, view, layer) if cache else None
        if output is None:
            hashing = Hashing(files.copies.values()) if hashed or cache else None
            output = await _run_compose(files, view, parser, layer)
            if cache:
                cache.store(output, files, view, layer)
        data = await asyncio.to_thread(resolved.parse_with_own, output.json, output.yaml)
        resolved.fill_in_defaults(data, output.version)
        resolved.restore_empty_lists(data, own)
        data = _with_final_paths(data, files, view, final)
        accepted = _accepted(data, files, output.warnings, on_one_host=on_one_host)
        project = replace(accepted, working_dir=str(final))
        tree = mounted.ProjectTree(files.root, final, files.locations)
        hashed_as, ((digests, unread), profiles, keys) = await _both(
            _hashes(resolved.for_hashing(data), hashing, cache, wanted=hashed),
            asyncio.to_thread(
                lambda: (mounted.digests(project, tree), mounted.profiles(project, tree), mounted.keys(project, tree))
            ),
        )
    except Rejected as rejected:
        raise await _explained(rejected, files, view, parser) from rejected
    finally:
        if hashing is not None:
            await hashing.cancel_unused()
    named = [posixpath.join(*parts) for parts in _file_objects(files, "secrets", "file") if "$" not in parts[1]]
    return replace(
        project,
        disabled=tuple(sorted(files.services - set(project.services))),
        compose_hashes={name: hashed_as[name] for name in project.services} if hashed else {},
        compose_version=output.version,
        config_files=tuple(str(final / layer) for layer in files.layers),
        opened=tuple(sorted(map(above.inner, files.copies))),
        env_files=tuple(sorted(map(above.inner, files.copies.keys() - {source.name for source in files.sources}))),
        secret_files=tuple(sorted({above.inner(posixpath.normpath(name)) for name in named})),
        contents=profiles,
        keys=keys,
        digests=digests,
        warnings=(
            *(excerpt(_as_written(words, view)) for words in dict.fromkeys(output.warnings)),
            *(f"{files.locations.name(finding)}: {finding.what}" for finding in support.ignored(data)),
            *unread,
        ),
        lines=dict(files.locations.files),
        extends=dict(files.locations.extends),
    )


async def _run_compose(files: ProjectFiles, view: View, parser: Parser, own: bytes) -> ComposeOutput:
    """YAML too where a service has x-dom0, which Compose leaves out of its JSON."""
    layers = [view.root / layer for layer in files.layers]
    if own:
        layers.append(view.scratch / "own.yaml")
        layers[-1].write_bytes(own)
    defined = (service for document in files.documents for _, service in services(document))
    with_yaml = any(isinstance(service, dict) and x_dom0.KEY in service for service in defined)
    as_json = _both(parser.version(), parser.config(view, layers, "json"))
    if with_yaml:
        (version, (json, warnings)), (yaml, _) = await _both(as_json, parser.config(view, layers, "yaml"))
        return ComposeOutput(version, json, yaml, warnings)
    version, (json, warnings) = await as_json
    return ComposeOutput(version, json, "", warnings)


async def _hashes(text: str, hashing: Hashing | None, cache: OutputCache | None, *, wanted: bool) -> dict[str, str]:
    """Not `wanted`: {}, but Compose starts, as the next reading with this cache will want them."""
    task = cache.hashes.get(text) if cache else None
    if task is None and (wanted or cache):
        task = (hashing or Hashing([text.encode()])).of(text)
    if task and cache:
        cache.hashes[text] = task
    return await task if task and wanted else {}


def _own_document(files: ProjectFiles) -> dict[str, Any]:
    """A layer on top of the project's, for what Compose does not do: merge x-dom0, and print the variables that configs
    and secrets name.
    """
    sections = [document[x_dom0.KEY] for document in files.layer_documents if x_dom0.KEY in document]
    layer: dict[str, Any] = {}
    if sections:
        merged: Any = {}
        for section in sections:
            merged = x_dom0.merge(merged, section)
        if merged is not Reset:
            layer[resolved.MERGED] = merged
    named = (name for kind in ("configs", "secrets") for _, name in _file_objects(files, kind, "environment"))
    if names := sorted({name for name in named if _VARIABLE.fullmatch(name)}):
        layer[_ENVIRONMENT] = {name: [f"${{{name}+set}}", f"${{{name}-}}"] for name in names}
    return layer


def _file_objects(files: ProjectFiles, kind: str, key: str) -> Iterator[tuple[str, str]]:
    """The directory of the Compose file, and what its configs or secrets (`kind`) say under `key`.

    Of those too that no service uses, which Compose does not print.
    """
    for source in files.sources:
        for document in source.documents:
            section = plain(document.get(kind))
            for item in section.values() if isinstance(section, dict) else ():
                if isinstance(item, dict) and isinstance(item.get(key), str):
                    yield posixpath.dirname(source.name), item[key]


def _with_final_paths(data: dict[str, Any], files: ProjectFiles, view: View, final: Path) -> Any:
    """Changes `data` too. Texts that are no paths have the project's directory where a file says `${PWD}`."""
    escaped: list[Finding] = []
    taken: list[str] = []

    def paths(path: str, where: tuple[str, ...]) -> str:
        inside = view.inside(path)
        if inside is None and path.startswith(f"{view.scratch}/"):
            shown = os.path.relpath(path, view.root)
            name = above.inner(shown)
            fits = where[0] == "services" or not above.is_around(name)
            is_new = where[2:3] == ("volumes",) and above.is_free(files.root, shown)
            if is_new or (fits and above.may_take(files.root, shown)):
                taken.append(name)
                return str(final / name)
            escaped.append(Finding(where, *_escape(shown, files)))
        elif (placed := Path(os.path.normpath(path))).is_relative_to(final / above.PARENT):
            what = f"{placed} is where dom0 places what is above the project"
            escaped.append(Finding(where, what, "write the path with ../, as Compose has it"))
        return path if inside is None else os.path.normpath(final / inside)

    def contexts(path: str, where: tuple[str, ...]) -> str:
        is_of_view = path.startswith(f"{view.scratch}/")
        return os.path.normpath(files.root / os.path.relpath(path, view.root)) if is_of_view else path

    for service in (data.get("services") or {}).values():
        service.pop("develop", None)  # for `docker compose watch` alone, and full of paths
        if "build" in service:
            service["build"] = resolved.with_text(service["build"], str(view.root), str(files.root))
    resolved.relocate(data, paths, contexts)
    if escaped:
        raise refuse(escaped, files.locations)
    around.add_mounts(data, files.root, final, [*taken, *map(above.inner, files.copies)])
    return resolved.with_text(data, str(view.root), str(final))


def _escape(path: str, files: ProjectFiles) -> tuple[str, str]:
    """What is wrong with `path`, which begins with `..`, and what to do."""
    what, place = f"{path} leads out of the project", above.find(files.root, above.inner(path))
    if link := next((part for part in (*reversed(place.parents), place) if part.is_symlink()), None):
        what += f": {os.path.relpath(link, files.root)} is a link to {link.readlink()}"
        real = Path(os.path.realpath(place))
        inside = os.path.relpath(real, files.root)
        if real.is_relative_to(files.root):
            return what, f"write ./{inside}"
        is_taken = above.may_take(files.root, inside) or above.is_free(files.root, inside)
        return what, f"write {inside}" if is_taken else f"write {real}, its path on the host"
    top = files.root.joinpath(*[".."] * path.split("/").count("..")).resolve()
    layers = [str((files.root / layer).relative_to(top)) for layer in files.layers]
    include = layers[0] if len(layers) == 1 else f"{{path: [{', '.join(layers)}]}}"
    wider = f"make {top} the project, with a compose.yaml that says include: [{include}], or "
    return what, (
        "the machine gets the project's directory, and what it binds above it in the same git work tree: "
        f"{'' if above.is_home(top) else wider}move the files here, or write an absolute path of the host, as {place}"
    )


def _accepted(data: dict[str, Any], files: ProjectFiles, warnings: Sequence[str], *, on_one_host: bool) -> Project:
    if lost := list(resolved.lost_keys(data)):
        raise refuse(lost, files.locations)
    known = data.get(_ENVIRONMENT) or {}
    used = {item.get("environment") for kind in ("configs", "secrets") for item in (data.get(kind) or {}).values()}
    environment = {name: value for name, (is_set, value) in known.items() if is_set and name in used}
    project = replace(resolved.project_of(data, files.locations), environment=environment)
    if wrong := [*support.refused(data), *checks.findings(project, on_one_host=on_one_host)]:
        documents = list(files.documents)
        raise refuse([blame(finding, warnings, documents) for finding in wrong], files.locations)
    return project


async def _explained(rejected: Rejected, files: ProjectFiles, view: View, parser: Parser) -> ProjectError:
    documents = list(files.documents)
    finding = blame(understand(_as_written(rejected.words, view), documents), rejected.warnings, documents)
    if finding.file.startswith(AN_ENV_FILE):
        sources = {source.name for source in files.sources}
        for name, content in list(files.copies.items())[:_MOST_TRIED]:
            try:
                if name not in sources:
                    await parser.interpolate(view, ["x"], [content])
            except Rejected:
                finding = replace(finding, file=finding.file.replace(AN_ENV_FILE, name))
    if quoted := re.search(r'"(.+)"', finding.what) if finding.file in files.copies else None:
        lines = enumerate(files.copies[finding.file].decode(errors="replace").splitlines(), 1)
        finding = replace(finding, line=next((number for number, text in lines if quoted[1] in text), 0))
    if not finding.file:  # it counts the entries of lists in each file
        file, line = files.locations.find(finding.path, merged=False)
        finding = replace(finding, file=file, line=line)
    return refuse([finding], files.locations)


def _as_written(words: str, view: View) -> str:
    root = str(view.root)
    for shown, written in (
        (f"{root}/", ""),
        (root, "."),
        (f"{view.root.parent}/", "../"),
        (resolved.MERGED, x_dom0.KEY),
    ):
        words = words.replace(shown, written)
    return words


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Both results, or the first error. The other one is not cancelled: it still uses the view's files."""
    one, two = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(two, BaseException):
        raise two
    return one, two
