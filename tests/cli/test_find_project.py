"""Which directory a command without one is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.cli.unchanged import find_project
from dom0.errors import UsageError


@pytest.mark.parametrize("name", ["compose.yaml", "docker-compose.yml", "Dockerfile.dom0"])
def test_a_directory_with_a_compose_file_is_a_project(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert find_project(None) == tmp_path


def test_so_is_one_whose_env_file_names_its_compose_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("COMPOSE_FILE=base.yaml:site.yaml\n")
    monkeypatch.chdir(tmp_path)
    assert find_project(None) == tmp_path


def test_a_directory_with_other_variables_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("EDITOR=vi\n")
    monkeypatch.chdir(tmp_path)
    assert find_project(None) is None


def test_a_directory_that_is_not_there_is_refused_with_a_command_to_paste(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        find_project(tmp_path / "my box")
    assert refused.value.hint == f"make a project there: dom0 init '{tmp_path}/my box'"
