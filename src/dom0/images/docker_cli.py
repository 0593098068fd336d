"""`docker build`, `docker compose build` and `docker save`, for what the Engine's API alone does not do well:
contexts of many files, logins and secrets. A project without a Dockerfile of its own needs neither (see project.py).

Both use the same Engine as the API client, whatever builder or context a person has selected. A project can be built
without the buildx plugin, which dom0-base does not have; dom0-base cannot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from dom0 import temporary
from dom0.engine.address import find
from dom0.errors import Dom0Error
from dom0.images.build_log import BuildLog
from dom0.images.recipe import EPOCH
from dom0.run import capture, tell_lines

Say = Callable[[str], None]
"""Prints one line for people: what happens now."""


class BuildFailed(Dom0Error):
    """With the step that failed and all that it printed."""


def environment() -> dict[str, str]:
    """For docker: our Engine and its own builder, and no COMPOSE_ or BUILDX_ variables of the caller's shell.

    Attestations contain the time of the build: with them each build makes another image in containerd's store.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COMPOSE_", "BUILDX_"))}
    kept.pop("DOCKER_CONTEXT", None)
    address = find(None, os.environ, Path.home())
    return kept | {
        "DOCKER_HOST": address.text,
        "BUILDX_BUILDER": "default",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        "BUILDKIT_PROGRESS": "plain",
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }


class DockerBuild(msgspec.Struct, frozen=True):
    """Arguments of `docker build`. `what` is its name in messages."""

    what: str
    context: Path
    tag: str
    dockerfile: Path | None = None
    contexts: Mapping[str, Path] = {}
    labels: Mapping[str, str] = {}
    no_cache: bool = False
    pull: bool = False

    def command(self) -> list[str]:
        return [
            *("docker", "build"),
            *([f"--file={self.dockerfile}"] if self.dockerfile else []),
            f"--tag={self.tag}",
            *(["--no-cache"] if self.no_cache else []),
            *(["--pull"] if self.pull else []),
            *(f"--build-context={name}={path}" for name, path in self.contexts.items()),
            *(f"--label={key}={value}" for key, value in self.labels.items()),
            str(self.context),
        ]


async def save(references: Sequence[str], file: Path) -> None:
    """Write these images to the tar `file`. Raises CommandFailed."""
    await capture(["docker", "save", f"--output={file}", *references], env=environment())


async def build(recipe: DockerBuild, say: Say) -> None:
    """Build and tag an image; reports slow steps. Raises BuildFailed.

    Only the Engine knows the image's ID: with containerd's store docker prints the ID of a part of it.
    """
    await _run(recipe.what, recipe.command(), say)


async def extract(image: str, path: str, into: Path) -> Path:
    """Copy the file at `path` out of the image of that name. Needs buildx. Raises BuildFailed."""
    with temporary.directory("build") as scratch:
        name = Path(path).name
        (scratch / "Dockerfile").write_text(f"FROM scratch\nCOPY --from={image} {path} /{name}\n")
        await _run(image, ["docker", "build", f"--output={into}", str(scratch)], silent)
    return into / name


async def compose_build(file: bytes, what: str, say: Say, *, no_cache: bool, pull: bool) -> None:
    """Build and tag the images of a Compose file; reports slow steps. Raises BuildFailed."""
    argv = ["docker", "compose", "--file=-", "--project-directory=/", "build"]
    argv += ["--no-cache"] if no_cache else []
    argv += ["--pull"] if pull else []
    await _run(what, argv, say, stdin=file)


def silent(line: str) -> None:
    pass


async def _run(what: str, argv: Sequence[str], say: Say, *, stdin: bytes | None = None) -> None:
    log = BuildLog()

    def read(line: str) -> None:
        for text in log.read(line, time.monotonic()):
            say(f"{what}: {text}")

    if await tell_lines(argv, read, env=environment(), stdin=stdin) != 0:
        raise BuildFailed(f"{what}: the build failed\n{log.failure()}", hint="the cause is named near the end")
