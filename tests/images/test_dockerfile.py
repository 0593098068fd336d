"""What a Dockerfile stands on, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.images.dockerfile import PLAIN, builds_service, image_of_last_stage, images_below


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
