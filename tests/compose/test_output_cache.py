"""A project is read where it lies and as it lies in an image: what Compose is asked for the second time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.compose.load import load
from dom0.compose.output_cache import OutputCache
from dom0.compose.parser import find_plugin
from dom0.errors import ProjectError

FINAL = Path("/var/lib/dom0/project")
NAMED = """\
name: box
services: {a: {image: 'i:${TAG-1}', volumes: ['./data:/data', '$PWD/x:/x'], x-dom0: {health_gate: false}}}
"""
NAMELESS = "services: {a: {image: i, environment: {A: '${COMPOSE_PROJECT_NAME} $$HOME'}}}\n"

Asked = Callable[[], list[str]]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What Compose was started for since the last look."""
    log, plugin = tmp_path / "log", tmp_path / "docker" / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir(parents=True)
    real = find_plugin()
    told = 'case "$*" in *--hash*) echo hash;; *config*) echo config;; *) echo version;; esac'
    plugin.write_text(f'#!/bin/sh\n{told} >>{log}\nexec {real} "$@"\n')
    plugin.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    def asked() -> list[str]:
        words = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return sorted(words)

    return asked


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


@pytest.mark.parametrize(
    ("project", "image"),
    [
        (
            {"compose.yaml": NAMED, ".env": "TAG=7\n"},
            {"compose.d/50-box.yaml": NAMED, ".env": "TAG=7\n"},
        ),
        (
            {"compose.yaml": NAMELESS},
            {"compose.d/49-project.yaml": 'name: "project"\n', "compose.d/50-project.yaml": NAMELESS},
        ),
        (
            {"compose.yaml": NAMED, "compose.override.yaml": "services: {a: {command: [x]}}\n"},
            {"compose.d/50-box.yaml": NAMED, "compose.d/51-box.override.yaml": "services: {a: {command: [x]}}\n"},
        ),
    ],
    ids=["with a name", "with a name of its directory", "with an override"],
)
async def test_compose_is_asked_once_about_the_same_files(
    project: dict[str, str], image: dict[str, str], tmp_path: Path, asked: Asked
) -> None:
    cache = OutputCache()
    first = await load(write(tmp_path / "project", project), FINAL, cache=cache, hashed=False)
    assert not first.compose_hashes
    staged = write(tmp_path / "etc", image)
    found = await load(staged, FINAL, like=first, cache=cache)
    assert [word for word in asked() if word != "version"] == [
        "config",
        *["config"] * ("x-dom0" in str(project)),
        "hash",
    ]
    assert found == await load(staged, FINAL, like=first)
    assert found.compose_hashes


async def test_of_a_project_that_has_changed_since_the_hashes_are_its_own(tmp_path: Path) -> None:
    cache, others = OutputCache(), children()
    before = write(tmp_path / "project", {"compose.yaml": NAMED})
    await load(before, FINAL, cache=cache, hashed=False)
    staged = write(tmp_path / "etc", {"compose.d/50-box.yaml": NAMED.replace("data", "other")})
    found = await load(staged, FINAL, cache=cache)
    await cache.close()
    assert children() <= others
    assert found.compose_hashes == (await load(staged, FINAL)).compose_hashes
    assert found.compose_hashes != (await load(before, FINAL)).compose_hashes


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"compose.d/50-box.yaml": NAMED.replace("data", "other")}, "services.a"),
        ({".env": "TAG=8\n"}, "services.a.image"),
        ({"compose.d/49-box.yaml": 'name: "another"\n'}, ""),
        ({"compose.d/51-more.yaml": "services: {a: {command: [x]}}\n"}, "services.a.command"),
    ],
)
async def test_of_other_files_nothing_is_known(
    change: dict[str, str], refused: str, tmp_path: Path, asked: Asked
) -> None:
    cache = OutputCache()
    first = await load(write(tmp_path / "project", {"compose.yaml": NAMED, ".env": "TAG=7\n"}), FINAL, cache=cache)
    staged = write(tmp_path / "etc", {"compose.d/50-box.yaml": NAMED, ".env": "TAG=7\n"} | change)
    asked()
    if refused:
        with pytest.raises(ProjectError, match=refused):
            await load(staged, FINAL, like=first, cache=cache)
    else:
        await load(staged, FINAL, like=first, cache=cache)
    assert "config" in asked()


async def test_a_path_that_leaves_the_project_and_comes_back_by_its_name_is_read_anew(
    tmp_path: Path, asked: Asked
) -> None:
    text = "name: box\nservices: {a: {image: i, volumes: ['${UP}/project/data:/data']}}\n"
    cache = OutputCache()
    first = await load(write(tmp_path / "project", {"compose.yaml": text, ".env": "UP=..\n"}), FINAL, cache=cache)
    assert first.services["a"].volumes[0].source == str(FINAL / "data")
    staged = write(tmp_path / "etc", {"compose.d/50-box.yaml": text, ".env": "UP=..\n"})
    with pytest.raises(ProjectError):
        await load(staged, FINAL, like=first, cache=cache)


async def test_where_the_project_is_refused_no_compose_waits_for_it(tmp_path: Path) -> None:
    text = "name: box\nservices: {a: {image: i, ports: [nonsense]}}\n"
    others = children()
    with pytest.raises(ProjectError):
        await load(write(tmp_path / "project", {"compose.yaml": text}), FINAL)
    assert children() <= others


def children() -> set[str]:
    """The IDs of the processes that this one has started, and that have not ended."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
