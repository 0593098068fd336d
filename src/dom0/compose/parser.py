"""Runs the reference parser, `docker compose config`, isolated from everything but the project.

The plugin runs standalone: without the docker CLI in front it takes half the time, and the CLI would not find plugins
with an empty DOCKER_CONFIG. It sees copies of the files that `files` has read and measured, in a directory of our own,
the view: nothing can replace them meanwhile, the output does not depend on where the project lies, and a path that
leads out with `..` differs from an absolute one (the view lies deep in an empty directory).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from dom0 import temporary
from dom0.errors import Dom0Error, ProjectError
from dom0.run import CommandFailed, Output, capture

MAX_OUTPUT = 32 * 1024 * 1024
MAX_MEMORY = 2 * 1024 * 1024 * 1024  # bytes; it takes some 50 MB, and 300 where a service publishes every port
TIMEOUT = 60.0  # seconds; it takes 0.03 to 0.1 of them, and four where a service publishes every port
OLDEST = (2, 24)  # the first with !override; it prints everything that docs/reference/compose.md lists

INSTALL = "install it: apt-get install docker-compose (Debian) or docker-compose-plugin (Docker's packages)"

_DEPTH = 24  # more `..` than this lead out of the view unnoticed
_DIRECTORIES = (  # where the docker CLI looks for plugins, in its order
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",  # what ~ means on the machine
    "COMPOSE_EXPERIMENTAL_GIT_REMOTE": "false",
    "COMPOSE_EXPERIMENTAL_OCI_REMOTE": "false",
    "COMPOSE_COMPATIBILITY": "false",
    "COMPOSE_ENV_FILES": "",
}
_QUICK = {"GOGC": "off", "GOMEMLIMIT": "512MiB"}  # of Go's runtime: garbage is collected above that size
# A docker context, so that no variable of the project's could be it. Compose asks an Engine what it is, for which that
# starts two programs.
_NO_ENGINE = {"Name": "none", "Endpoints": {"docker": {"Host": "unix:///dev/null"}}}
_TEXTS = "x-texts"
_WARNING = re.compile(r'^time="[^"]*" level=warning msg="(?P<text>(?:[^"\\]|\\.)*)"$')


class Rejected(Exception):
    """Compose does not accept the project; its own words, paths as in the view."""

    def __init__(self, words: str, warnings: tuple[str, ...]) -> None:
        super().__init__(words)
        self.words = words
        self.warnings = warnings


class View(msgspec.Struct, frozen=True):
    """`root` is the project as Compose sees it, `scratch` a directory for its files."""

    root: Path
    scratch: Path

    def fill(self, copies: Mapping[str, bytes]) -> None:
        """Put the files that Compose may open below `root`, by their relative paths."""
        for name, content in copies.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def inside(self, path: str) -> str | None:
        """The path relative to the project (`.` is the project itself), None if it lies elsewhere."""
        root, path = str(self.root), os.path.normpath(path)
        if path == root or path.startswith(f"{root}/"):
            return os.path.relpath(path, root)
        return None


@contextmanager
def view_of(name: str) -> Iterator[View]:
    """Of a project in a directory called `name`, empty at first."""
    with temporary.directory("compose") as scratch:
        root = scratch.joinpath(*["_"] * _DEPTH, name)
        root.mkdir(parents=True)
        yield View(root, scratch)


class Parser(msgspec.Struct, frozen=True):
    plugin: Path
    environment: Mapping[str, str]
    profiles: Sequence[str] = ()
    on_start: Callable[[], None] | None = None  # called after each start of Compose

    def hurried(self, texts: Iterable[bytes]) -> Parser:
        """Without what costs time and changes no output, where none of `texts` may refer to the variables for that.

        Go's collector takes a quarter of Compose's time, which exits before it needs the memory.
        """
        is_named = any(name.encode() in text for text in texts for name in _QUICK)
        return self if is_named else replace(self, environment={**self.environment, **_QUICK})

    async def version(self) -> str:
        """As Compose prints it, `2.26.1`. ProjectError: too old, or no Compose at all."""
        output = await self._run(["version", "--short"], Path("/"))
        text = output.stdout.strip().removeprefix("v")
        numbers = re.match(r"(\d+)\.(\d+)", text)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise Dom0Error(f"{self.plugin}: Docker Compose {text or '?'} is too old, {wanted} is needed", hint=INSTALL)
        return text

    async def interpolate(self, view: View, texts: Sequence[str], env_files: Sequence[bytes]) -> list[str]:
        """`texts` with their variables replaced by Compose's own rules; later `env_files` override earlier ones.

        Raises Rejected; its words name a text as `x-texts.[0]`.
        """
        with tempfile.TemporaryDirectory(dir=view.scratch) as name:
            directory, arguments = Path(name), []
            project = directory / "probe.yaml"
            project.write_bytes(msgspec.json.encode({"name": "probe", _TEXTS: texts}))
            for number, content in enumerate(env_files):
                file = directory / f"{number}.env"
                file.write_bytes(content)
                arguments += ["--env-file", str(file)]
            text, _ = await self._config([*arguments, *self._project(directory, [project])], view, directory, "json")
        found: list[str] = msgspec.json.decode(text.replace("$$", "$"))[_TEXTS]
        return found

    async def config(
        self, view: View, layers: Sequence[Path], form: Literal["yaml", "json"]
    ) -> tuple[str, tuple[str, ...]]:
        """The resolved project as text, `$` still doubled, and the warnings. Raises Rejected."""
        return await self._config(self._project(view.root, layers), view, view.scratch, form)

    async def _config(
        self, arguments: Sequence[str], view: View, directory: Path, form: str
    ) -> tuple[str, tuple[str, ...]]:
        result = directory / f"resolved.{form}"
        output = await self._run([*arguments, "config", "--format", form, "--output", str(result)], view.root)
        warnings, rest = split_warnings(output.stderr)
        if output.code:
            raise Rejected(rest, warnings)
        size = result.stat().st_size
        if size > MAX_OUTPUT:
            raise ProjectError(
                f"the project grows to {size} bytes when Docker Compose resolves it, {MAX_OUTPUT} is the most",
                hint="look at env_file and port ranges, they are written out for every service",
            )
        return result.read_text(encoding="utf-8", errors="replace"), warnings

    async def hashes(self, view: View, resolved: Awaitable[bytes]) -> dict[str, str]:
        arguments = [*self._project(view.root, [Path("-")]), "config", "--hash", "*"]
        output = await self._run(arguments, view.root, resolved)
        if output.code:
            warnings, rest = split_warnings(output.stderr)
            raise Rejected(rest, warnings)
        rows = (line.split() for line in output.stdout.splitlines())
        return {row[0]: row[1] for row in rows if len(row) == 2}

    def _project(self, directory: Path, layers: Sequence[Path]) -> list[str]:
        files = [argument for layer in layers for argument in ("--file", str(layer))]
        profiles = [argument for profile in self.profiles for argument in ("--profile", profile)]
        return [*files, "--project-directory", str(directory), *profiles]

    async def _run(self, arguments: Sequence[str], directory: Path, stdin: Awaitable[bytes] | None = None) -> Output:
        argv = [str(self.plugin), *arguments]
        try:
            return await capture(
                argv,
                cwd=directory,
                env=self.environment,
                stdin=stdin,
                timeout=TIMEOUT,
                memory=MAX_MEMORY,
                check=False,
                on_start=self.on_start,
            )
        except CommandFailed as error:
            raise ProjectError(f"Docker Compose cannot read the project: {error.message}") from error


class Hashing:
    """A `docker compose config --hash` that is started before its input is known: starting takes most of its time.

    What its input will say of variables is in `texts`.
    """

    def __init__(self, texts: Iterable[bytes]) -> None:
        self._texts = tuple(texts)
        self._project: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._hashes = asyncio.create_task(self._run())
        self._hashes.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # perhaps never awaited

    def of(self, resolved: str) -> asyncio.Task[dict[str, str]]:
        """Of each service: what `docker compose up` would write on its containers. Raises Rejected.

        (Except where a service shares a namespace of another one: there Compose hashes the container's ID too.)
        """
        self._project.set_result(resolved.encode())
        return self._hashes

    async def cancel_unused(self) -> None:
        if not self._project.done():
            self._hashes.cancel()
            await asyncio.gather(self._hashes, return_exceptions=True)

    async def _run(self) -> dict[str, str]:
        with view_of("project") as view:  # no .env is there
            parser = find_parser(view, profiles=["*"], variables={}).hurried(self._texts)
            return await parser.hashes(view, self._project)


def find_parser(
    view: View,
    *,
    profiles: Sequence[str],
    variables: Mapping[str, str],
    on_start: Callable[[], None] | None = None,
) -> Parser:
    """Raises Dom0Error when the plugin is not installed, ProjectError for an impossible variable."""
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise ProjectError(f"environment: {name!r} cannot be the name or has no usable value")
    settings = view.scratch / "docker"
    context = settings / "contexts" / "meta" / hashlib.sha256(b"none").hexdigest()
    context.mkdir(parents=True)
    (context / "meta.json").write_bytes(msgspec.json.encode(_NO_ENGINE))
    (settings / "config.json").write_bytes(msgspec.json.encode({"currentContext": "none"}))
    fixed = _ENVIRONMENT | {"DOCKER_CONFIG": str(settings), "PWD": str(view.root)}
    return Parser(find_plugin(), {**variables, **fixed}, tuple(profiles), on_start)


def find_plugin() -> Path:
    own = os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser()
    for directory in (f"{own}/cli-plugins", *_DIRECTORIES):
        plugin = Path(directory, "docker-compose")
        if os.access(plugin, os.X_OK) and plugin.is_file():
            return plugin
    if standalone := shutil.which("docker-compose"):
        return Path(standalone)
    raise Dom0Error("docker compose: the plugin is not installed", hint=INSTALL)


def split_warnings(stderr: str) -> tuple[tuple[str, ...], str]:
    """The warnings, and the other lines."""
    warnings, rest = [], []
    for line in stderr.splitlines():
        if match := _WARNING.match(line):
            warnings.append(match["text"].replace('\\"', '"').replace("\\\\", "\\"))
        elif line.strip():
            rest.append(line)
    return tuple(warnings), "\n".join(rest)
