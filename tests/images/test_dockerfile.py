"""What a Dockerfile stands on, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.compose.load import load
from dom0.errors import ProjectError
from dom0.images.dockerfile import PLAIN, builds_service, image_of_last_stage, images_below
from dom0.images.selection import check_builds
from dom0.names import PLACED


@pytest.fixture
def dockerfile(tmp_path: Path) -> Path:
    return tmp_path / PLAIN


@pytest.mark.parametrize(
    ("text", "below", "last"),
    [
        ("FROM farm/dom0\n", ("farm/dom0",), "farm/dom0"),
        (
            "FROM --platform=$P golang AS build\nfrom build as more\nFROM dom0-base\n",
            ("golang", "dom0-base"),
            "dom0-base",
        ),
        ("FROM dom0-base AS Box\nFROM busybox AS tools\nFROM box\n", ("dom0-base", "busybox", "box"), "dom0-base"),
        ("FROM dom0-base\nFROM busybox\n", ("dom0-base", "busybox"), "busybox"),
        ("ARG BASE=dom0-base\nFROM $BASE\n", (), ""),
        ("FROM scratch\n", (), ""),
        ("", (), ""),
        ("# FROM comment\nRUN echo FROM x\nFROM dom0-base", ("dom0-base",), "dom0-base"),
    ],
)
def test_the_images_below_are_read_from_the_dockerfile(
    dockerfile: Path, text: str, below: tuple[str, ...], last: str
) -> None:
    dockerfile.write_text(text)
    assert images_below(dockerfile) == below
    assert image_of_last_stage(dockerfile) == last


@pytest.mark.parametrize(
    "build",
    ["build: .", "build: ./", "build: {context: ., target: x}", "build: {context: web, dockerfile: ../Dockerfile}",
     "build: {args: {A: b}}", "build: {context: '${WHERE:-.}'}"],
)  # fmt: skip
async def test_a_service_is_built_from_the_plain_dockerfile_however_that_is_written(tmp_path: Path, build: str) -> None:
    (tmp_path / "compose.yaml").write_text(f"services: {{web: {{{build}}}}}\n")
    assert await builds_service(tmp_path)


@pytest.mark.parametrize(
    "build",
    ["build: web", "build: {context: ., dockerfile: web.dockerfile}", "build: {dockerfile_inline: FROM x}", "build: 7",
     "image: x"],
)  # fmt: skip
async def test_no_service_is_built_from_it(tmp_path: Path, build: str) -> None:
    (tmp_path / "compose.yaml").write_text(f"services: {{web: {{{build}}}}}\n")
    assert not await builds_service(tmp_path)


async def test_a_project_that_cannot_be_read_has_no_service_built_from_it(tmp_path: Path) -> None:
    assert not await builds_service(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {web: {build: .\n")
    assert not await builds_service(tmp_path)


@pytest.mark.parametrize(
    ("build", "line", "what"),
    [
        ("{context: web}", 5, "context: ROOT/web: there is no such directory"),
        ("{context: ../web}", 5, "context: ROOT/../web: there is no such directory"),
        ("{context: file}", 5, "context: ROOT/file: is not a directory"),
        ("{context: ., dockerfile: web.dockerfile}", 5, "dockerfile: ROOT/web.dockerfile: there is no such file"),
        (".", 5, "dockerfile: ROOT/Dockerfile: there is no such file"),
        (f"./{'a' * 300}", 5, f"context: ROOT/{'a' * 300}: there is no such directory"),
        (f"{{context: ., dockerfile: {'a' * 300}}}", 5, f"dockerfile: ROOT/{'a' * 300}: there is no such file"),
        ("{context: ., dockerfile: /}", 5, "dockerfile: /: there is no such file"),
    ],
)
async def test_a_build_of_what_is_not_there_is_refused_at_its_key(
    tmp_path: Path, build: str, line: int, what: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "Dockerfile.web").write_text("FROM scratch\n")
    (tmp_path / "compose.yaml").write_text(f"services:\n  ok:\n    image: x\n  web:\n    build: {build}\n")
    with pytest.raises(ProjectError) as refused:
        check_builds(await load(tmp_path, PLACED, hashed=False))
    path = str(tmp_path.parent / "web") if "../web" in what else str(tmp_path)
    expected = what.replace("ROOT/../web", path).replace("ROOT", path)
    assert refused.value.message == f"compose.yaml:{line}: services.web.build.{expected}"
    if "dockerfile:" in refused.value.hint:
        name = refused.value.hint.split()[2]
        (tmp_path / "compose.yaml").write_text(f"services: {{web: {{build: {{context: ., dockerfile: {name}}}}}}}\n")
        check_builds(await load(tmp_path, PLACED, hashed=False))


async def test_builds_of_what_is_there_or_elsewhere_are_not_refused(tmp_path: Path) -> None:
    (tmp_path / "dockerfile").write_text("FROM scratch\n")  # BuildKit takes this name too
    builds = (".", "https://host.invalid/x.git", "{dockerfile_inline: FROM scratch}")
    services = ", ".join(f"s{number}: {{build: {build}}}" for number, build in enumerate(builds))
    (tmp_path / "compose.yaml").write_text(f"services: {{{services}}}\n")
    check_builds(await load(tmp_path, PLACED, hashed=False))
