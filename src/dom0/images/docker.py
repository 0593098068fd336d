"""`docker build` and `docker compose build`: building is the one thing the Engine's API alone does not do well.

Both talk to the Engine that the API client talks to, whatever builder or context a person has selected.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dom0.engine.address import find
from dom0.images.recipe import EPOCH
from dom0.run import CommandFailed, Output, capture

_SHOWN = 40  # lines of a failed build's log


def environment() -> dict[str, str]:
    """For docker: our Engine and its own builder. The variables of the caller's shell reach no build."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("COMPOSE_", "BUILDX_"))}
    kept.pop("DOCKER_CONTEXT", None)
    address = find(None, os.environ, Path.home())
    return kept | {"DOCKER_HOST": address.text, "BUILDX_BUILDER": "default", "SOURCE_DATE_EPOCH": str(EPOCH)}


async def build(
    context: Path,
    *,
    dockerfile: Path | None = None,
    contexts: Mapping[str, Path] | None = None,
    labels: Mapping[str, str] | None = None,
    tag: str = "",
    no_cache: bool = False,
) -> str:
    """Build an image and return its ID. Raises CommandFailed with the end of the build's log."""
    with tempfile.TemporaryDirectory(prefix="dom0-build-") as scratch:
        id_file = Path(scratch) / "id"
        argv = ["docker", "build", "--progress=plain", f"--iidfile={id_file}"]
        argv += [f"--file={dockerfile}"] if dockerfile else []
        argv += [f"--tag={tag}"] if tag else []
        argv += ["--no-cache"] if no_cache else []
        argv += [f"--build-context={name}={path}" for name, path in (contexts or {}).items()]
        argv += [f"--label={key}={value}" for key, value in (labels or {}).items()]
        await _run([*argv, str(context)])
        return id_file.read_text().strip()


async def extract(image: str, path: str, into: Path) -> Path:
    """Copy the file at `path` out of `image`, without a container."""
    with tempfile.TemporaryDirectory(prefix="dom0-build-") as scratch:
        (Path(scratch) / "Dockerfile").write_text(f"FROM scratch\nCOPY --from={image} {path} /\n")
        await _run(["docker", "build", "--progress=plain", f"--output={into}", scratch])
    return into / Path(path).name


async def _run(argv: Sequence[str], *, cwd: Path | None = None) -> Output:
    try:
        return await capture(argv, env=environment(), cwd=cwd)
    except CommandFailed as error:
        end = "\n".join(error.stderr.splitlines()[-_SHOWN:])
        raise CommandFailed(error.argv, error.code, end) from error
