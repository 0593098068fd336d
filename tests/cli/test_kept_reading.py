"""What a build has read of a project is kept for the image that came of it, and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.cli import kept_reading
from dom0.compose.model import Project
from dom0.engine.values import Image
from dom0.images.built import Built

PROJECT = Project(name="box", environment={"WORD": "secret"})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a machine whose dom0 has run."""
    monkeypatch.setenv("DOM0_STATE", str(tmp_path))
    monkeypatch.setenv("DOM0_RUN", str(tmp_path))
    (tmp_path / "generations").mkdir()
    return tmp_path


def built(image_id: str, project: Project | None = PROJECT) -> Built:
    return Built(Image(id=image_id, tags=()), changed=True, project=project)


def test_it_is_found_for_its_image_alone(state: Path) -> None:
    kept_reading.keep(built("sha256:1"))
    assert kept_reading.find("sha256:1") == PROJECT
    assert kept_reading.find("sha256:2") is None


def test_none_but_root_reads_the_values_in_it(state: Path) -> None:
    kept_reading.keep(built("sha256:1"))
    assert (state / kept_reading.FILE).stat().st_mode & 0o777 == 0o600


def test_the_latest_is_kept(state: Path) -> None:
    kept_reading.keep(built("sha256:1"))
    kept_reading.keep(built("sha256:2"))
    assert kept_reading.find("sha256:1") is None


def test_a_build_that_has_read_nothing_leaves_it(state: Path) -> None:
    kept_reading.keep(built("sha256:1"))
    kept_reading.keep(built("sha256:2", None))
    assert kept_reading.find("sha256:1") == PROJECT


@pytest.mark.parametrize("content", [b"", b"[]", b'{"image": "sha256:1", "project": {"name": 3}}'])
def test_a_damaged_one_is_none(state: Path, content: bytes) -> None:
    (state / kept_reading.FILE).write_bytes(content)
    assert kept_reading.find("sha256:1") is None


def test_where_no_dom0_has_run_nothing_is_kept(state: Path) -> None:
    (state / "generations").rmdir()
    kept_reading.keep(built("sha256:1"))
    assert list(state.iterdir()) == []


def test_it_is_not_of_another_machine(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_reading.keep(built("sha256:1"))
    monkeypatch.delenv("DOM0_RUN")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert kept_reading.find("sha256:1") is None
