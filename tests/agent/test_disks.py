"""What the agent says of the disks of a machine with the base OS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dom0.agent import disks
from dom0.health import Severity


def document(run: Path, kind: str, *problems: tuple[str, str]) -> None:
    (run / "os").mkdir(parents=True, exist_ok=True)
    told = [{"code": code, "text": text} for code, text in problems]
    (run / "os/disks.json").write_text(json.dumps({"data": {"kind": kind}, "problems": told, "devices": []}))


def codes(run: Path, state: Path) -> list[str]:
    return [problem.code for problem in disks.problems(run, state)]


def test_a_host_with_another_linux_has_none(tmp_path: Path) -> None:
    assert disks.problems(tmp_path, tmp_path) == ()


def test_data_in_memory_is_a_warning_with_its_reason(tmp_path: Path) -> None:
    document(tmp_path, "memory", ("data-in-memory", "DATA IN MEMORY: no disk"))
    (found,) = disks.problems(tmp_path, tmp_path)
    assert (found.code, found.severity, found.title) == ("data-in-memory", Severity.WARNING, "DATA IN MEMORY: no disk")


def test_whatever_else_the_base_os_met_is_told(tmp_path: Path) -> None:
    document(tmp_path, "disk", ("data-disk", "mended"), ("a-code-of-tomorrow", "something"))
    assert codes(tmp_path, tmp_path) == ["data-disk", "data-disk"]


def test_a_full_disk_is_one_while_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by the base OS at boot; somebody has tidied up since, or filled it since."""
    document(tmp_path, "disk", ("data-full", "full"))
    assert codes(tmp_path, tmp_path) == []
    monkeypatch.setattr(disks, "LEAST_FREE", 1 << 62)
    assert codes(tmp_path, tmp_path) == ["data-full"]


def test_a_damaged_document_ends_nothing(tmp_path: Path) -> None:
    document(tmp_path, "disk")
    (tmp_path / "os/disks.json").write_text("{")
    assert disks.problems(tmp_path, tmp_path) == ()


def test_a_disk_that_is_nearly_full_is_a_warning_once_for_each_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "FILLING_FREE", 0)
    assert disks.filling((tmp_path, tmp_path / "gone")) == ()
    monkeypatch.setattr(disks, "FILLING_FREE", 1 << 62)
    monkeypatch.setattr(disks, "FILLING_SHARE", 1.0)
    (found,) = disks.filling((tmp_path, tmp_path.parent, tmp_path / "gone"))
    assert (found.code, found.severity, found.subject) == ("disk-filling", Severity.WARNING, str(tmp_path))
    monkeypatch.setattr(disks, "FILLING_SHARE", 0.0)
    assert disks.filling((tmp_path,)) == ()
