"""What the agent tells of the project's files, and what is settled by a person."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0.agent.file_status import FileInfo, FileState
from dom0.agent.files import MOST_PROBLEMS, Files
from dom0.agent.placement import versions_of
from dom0.agent.progress import Changes
from dom0.errors import UsageError
from dom0.health import Severity


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "conf").mkdir(parents=True)
    (directory / "conf" / "a").write_text("1\n2\n3\n")
    (directory / "conf" / "b").write_text("b")
    return directory


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    return tmp_path / "state" / "project"


@pytest.fixture
def changed() -> Changes:
    return Changes()


@pytest.fixture
def files(project: Path, placed: Path, changed: Changes) -> Files:
    found = Files(placed, changed)
    found.place(project)
    return found


def states(infos: list[FileInfo]) -> dict[str, FileState]:
    return {info.path: info.state for info in infos}


def test_only_what_the_machine_changed_is_listed(files: Files, project: Path, placed: Path) -> None:
    assert files.survey() == []
    (placed / "conf" / "a").write_text("mine")
    (placed / "conf" / "b").unlink()
    (placed / "conf" / "new").write_text("data")
    os.chown(placed / "conf", 911, 911)
    assert states(files.survey()) == {"conf/a": FileState.CHANGED, "conf/b": FileState.REMOVED}
    (project / "conf" / "a").write_text("theirs")
    files.place(project)
    assert states(files.survey()) == {"conf/a": FileState.CONFLICT, "conf/b": FileState.REMOVED}


def test_a_conflict_is_a_warning_until_it_is_settled_also_by_hand(
    files: Files, project: Path, placed: Path, changed: Changes
) -> None:
    (placed / "conf" / "a").write_text("mine")
    (project / "conf" / "a").write_text("theirs")
    files.place(project)
    (problem,) = files.problems
    assert (problem.code, problem.subject, problem.severity) == ("file-conflict", "conf/a", Severity.WARNING)
    files.keep(["conf/a"])
    assert (files.problems, changed.count) == ((), 1)
    (project / "conf" / "a").write_text("newer")
    files.place(project)
    (placed / "conf" / "a").write_text("newer")
    assert files.survey() == []
    assert not files.problems


def test_many_conflicts_are_counted(files: Files, project: Path, placed: Path) -> None:
    for side in (placed, project):
        (side / "many").mkdir()
        for number in range(MOST_PROBLEMS + 3):
            (side / "many" / str(number)).write_text(str(side))
    files.place(project)
    assert len(files.problems) == MOST_PROBLEMS + 1
    assert "3 more files" in files.problems[-1].title


def test_a_difference_is_shown_as_take_would_make_it(files: Files, project: Path, placed: Path) -> None:
    (placed / "conf" / "a").write_text("1\nmine\n3\n")
    (placed / "conf" / "a").chmod(0o600)
    os.chown(placed / "conf" / "a", 911, 912)
    found = files.diff("conf/a")
    assert found.state is FileState.CHANGED
    assert found.diff.splitlines() == [
        "--- machine/conf/a",
        "+++ project/conf/a",
        "@@ -1,3 +1,3 @@",
        " 1",
        "-mine",
        "+2",
        " 3",
    ]
    assert found.notes == ("mode: machine 600, project 644", "owner: machine 911:912, project 0:0")
    assert files.diff("conf/b").diff == ""


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"x" * (2 * 1024 * 1024)])
def test_what_is_no_text_or_large_is_only_said_to_differ(files: Files, placed: Path, content: bytes) -> None:
    (placed / "conf" / "a").write_bytes(content)
    found = files.diff("conf/a")
    assert (found.diff, found.notes) == ("", ("binary or large files differ",))


def test_a_link_that_a_container_laid_is_told_and_not_followed(files: Files, placed: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (placed / "conf" / "a").unlink()
    (placed / "conf" / "a").symlink_to(tmp_path / "secret")
    found = files.diff("conf/a")
    assert (found.diff, found.notes) == ("", ("machine: link; project: file",))


@pytest.mark.parametrize("path", ["", "..", "../placed.json", "/etc/passwd", "conf/../conf/a", "conf/new"])
def test_only_files_of_the_project_have_a_difference(files: Files, placed: Path, path: str) -> None:
    (placed / "conf" / "new").write_text("data")
    with pytest.raises(UsageError, match="is no file of the project"):
        files.diff(path)


def test_a_plan_says_what_placing_would_do_and_does_nothing(files: Files, project: Path, placed: Path) -> None:
    (placed / "conf" / "a").write_text("mine")
    (project / "conf" / "a").write_text("theirs")
    (project / "conf" / "b").unlink()
    (project / "conf" / "c").write_text("new")
    planned = states(files.preview(versions_of(project)))
    assert planned == {"conf/a": FileState.CONFLICT, "conf/b": FileState.REMOVE, "conf/c": FileState.CREATE}
    assert sorted(path.name for path in (placed / "conf").iterdir()) == ["a", "b"]
    files.place(project)
    assert [path for path in planned if (placed / path).exists()] == ["conf/a", "conf/c"]


def test_before_the_first_generation_there_is_nothing_to_settle(placed: Path, changed: Changes) -> None:
    files = Files(placed, changed)
    for ask in (files.survey, lambda: files.take(["a"]), lambda: files.diff("a")):
        with pytest.raises(UsageError, match="no generation yet"):
            ask()
