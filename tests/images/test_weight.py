"""Data is no part of a project: what an image would swallow is said, and refused in time."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dom0.compose.load import load
from dom0.errors import ProjectError
from dom0.images import fingerprint, selection, weight
from dom0.names import PLACED

COMPOSE = "name: box\nservices: {a: {image: i, volumes: ['./data:/data', './conf:/conf:ro']}}\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    for name in ("data", "conf"):
        (tmp_path / name).mkdir()
    return tmp_path


def sparse(path: Path, size: int) -> None:
    """A file of that size that takes no room."""
    path.touch()
    os.truncate(path, size)


def paste(text: str) -> None:
    """Do what a message says."""
    command = text.partition("keep it out: ")[2].splitlines()[0]
    subprocess.run(command, shell=True, check=True)  # noqa: S602 -- as a person would


async def words(directory: Path) -> list[str]:
    project = await load(directory, PLACED, hashed=False)
    kept = selection.kept(project, directory, fingerprint.read_ignore(directory))
    return list(selection.words(project, directory, kept))


async def test_a_small_project_is_not_worth_a_word(directory: Path) -> None:
    sparse(directory / "data" / "table", weight.MUCH // 2)
    assert await words(directory) == []


async def test_much_data_of_a_service_is_named_with_the_line_that_keeps_it_out(directory: Path) -> None:
    sparse(directory / "data" / "table", 300_000_000)
    [word] = await words(directory)
    assert word.startswith("data: 300 MB go into the image, and services write there")
    paste(word)
    assert await words(directory) == [
        "data: what .dockerignore names stays out of the image; the machine's own is /var/lib/dom0/project/data"
    ]


async def test_a_directory_that_stays_out_of_a_bound_one_is_named_too(directory: Path) -> None:
    sparse(directory / "data" / "readme", 1)
    (directory / "data" / "rows").mkdir()
    (directory / ".dockerignore").write_text("data/rows\n")
    [word] = await words(directory)
    assert word.startswith("data: what .dockerignore names stays out of the image;")


async def test_a_directory_that_services_only_read_and_dockerignore_leaves_out_is_named_with_what_brings_it(
    directory: Path,
) -> None:
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, volumes: ['./www:/www:ro']}}\n")
    (directory / "www").mkdir()
    (directory / "www" / "index.html").touch()
    (directory / ".dockerignore").write_text("www\n")
    [word] = await words(directory)
    assert word.endswith("; services only read it: a last line !www brings it")
    (directory / ".dockerignore").write_text("www\n!www\n")
    assert await words(directory) == []


async def test_what_goes_into_the_image_beside_an_allow_list_is_named_with_the_line_that_keeps_it_out(
    directory: Path,
) -> None:
    sparse(directory / "data" / "key", 1)
    (directory / ".dockerignore").write_text("*\n!src\n")
    [word] = await words(directory)
    assert word == "data: services bind it, so it goes into the image; in .dockerignore a last line data keeps it out"
    (directory / ".dockerignore").write_text("*\n!src\ndata\n")
    [word] = await words(directory)
    assert word.startswith("data: what .dockerignore names stays out of the image;")
    (directory / ".dockerignore").write_text("*\n!src\n!data\n")
    assert await words(directory) == []


@pytest.mark.parametrize("leads_to", ["versions/2", "/var"])
async def test_of_a_bound_link_nothing_is_said_where_dockerignore_leaves_nothing_out(
    directory: Path, leads_to: str
) -> None:
    (directory / "compose.yaml").write_text("name: box\nservices: {a: {image: i, volumes: ['./now:/now']}}\n")
    (directory / "versions" / "2").mkdir(parents=True)
    (directory / "versions" / "2" / "page").touch()
    (directory / "now").symlink_to(leads_to)
    assert await words(directory) == []


async def test_much_of_anything_else_is_named_too(directory: Path) -> None:
    sparse(directory / "film", 70_000_000)
    sparse(directory / "conf" / "map", 90_000_000)
    [word] = await words(directory)
    assert word.startswith("160 MB of files go into the image: conf 90 MB, film 70 MB;")


async def test_more_than_an_image_may_hold_is_refused_before_it_is_read(directory: Path) -> None:
    sparse(directory / "data" / "it's [all]", 200 * 10**9)
    with pytest.raises(ProjectError, match=r"200\.0 GB would go into the machine's image, 512 MB is the most: data 2"):
        await words(directory)
    with pytest.raises(ProjectError) as caught:
        fingerprint.inputs_digest(directory, {}, fingerprint.BuildInputs({}))
    paste(caught.value.hint)
    assert len(await words(directory)) == 1


async def test_the_line_that_keeps_a_file_out_means_that_file_alone(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    sparse(tmp_path / "it's [all] *", weight.MOST + 1)
    sparse(tmp_path / "it's a thing", 1)
    with pytest.raises(ProjectError) as caught:
        await words(tmp_path)
    paste(caught.value.hint)
    names = {entry.name for entry in fingerprint.selected(tmp_path, ())}
    assert names == {"compose.yaml", "it's a thing"}
