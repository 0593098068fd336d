"""The project's files below /var/lib/dom0/project, and what containers that have it bound may have done there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.agent.placement import OLD, RECORD, TEMPORARY, Placement
from dom0.agent.three_way import FileAction
from dom0.durable import Unwritable
from dom0.errors import ProjectError, UsageError
from dom0.images import left_out

WEB = "conf/web.conf"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    (directory / "conf").mkdir(parents=True)
    (directory / WEB).write_text("one")
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "state" / "project"


@pytest.fixture
def place(files: Path, target: Path) -> Callable[[], dict[str, FileAction]]:
    """What was done, where it was more than nothing."""

    def place() -> dict[str, FileAction]:
        steps = Placement(target).place(files)
        return {path: step.action for path, step in steps.items() if step.action is not FileAction.NOTHING}

    return place


Place = Callable[[], dict[str, FileAction]]


def test_files_modes_and_links_arrive(files: Path, target: Path, place: Place) -> None:
    (files / "run.sh").write_text("#!/bin/sh")
    (files / "run.sh").chmod(0o755)
    (files / "link").symlink_to(WEB)
    place()
    assert (target / "link").readlink() == Path(WEB)
    assert (target / "link").read_text() == "one"
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755


def test_owners_and_modes_arrive_also_of_directories_and_of_empty_ones(files: Path, target: Path, place: Place) -> None:
    (files / "data").mkdir(mode=0o770)
    (files / "data").chmod(0o2770)
    for path, uid in ((files, 1000), (files / "data", 1001), (files / WEB, 1002)):
        os.chown(path, uid, uid + 1)
    files.chmod(0o750)
    place()
    found = [(path.stat().st_uid, path.stat().st_gid) for path in (target, target / "data", target / WEB)]
    assert found == [(1000, 1001), (1001, 1002), (1002, 1003)]
    assert [path.stat().st_mode & 0o7777 for path in (target, target / "data")] == [0o750, 0o2770]


def test_an_owner_that_the_machine_changed_stays_and_a_new_content_comes(
    files: Path, target: Path, place: Place
) -> None:
    place()
    os.chown(target / WEB, 911, 911)
    os.chown(target / "conf", 911, 911)
    (files / WEB).write_text("two")
    (files / WEB).chmod(0o600)
    assert place() == {WEB: FileAction.UPDATE}
    found = (target / WEB).stat()
    assert ((target / WEB).read_text(), found.st_uid, found.st_mode & 0o777) == ("two", 911, 0o600)
    assert (target / "conf").stat().st_uid == 911


def test_an_unchanged_file_keeps_its_inode_and_a_changed_one_is_replaced_whole(
    files: Path, target: Path, place: Place
) -> None:
    place()
    before = (target / WEB).stat().st_ino
    place()
    assert (target / WEB).stat().st_ino == before
    with (target / WEB).open() as bound:
        (files / WEB).write_text("two")
        place()
        assert (bound.read(), (target / WEB).read_text()) == ("one", "two")


def test_what_the_machine_changed_is_never_overwritten_and_named_where_the_project_changed_too(
    files: Path, target: Path, place: Place
) -> None:
    place()
    (target / WEB).write_text("precious")
    assert place() == {WEB: FileAction.KEEP}
    (files / WEB).write_text("two")
    assert [place(), place()] == [{WEB: FileAction.CONFLICT}, {WEB: FileAction.CONFLICT}]
    assert (target / WEB).read_text() == "precious"


def test_what_the_machine_removed_does_not_come_back(files: Path, target: Path, place: Place) -> None:
    place()
    (target / WEB).unlink()
    assert place() == {WEB: FileAction.KEEP}
    (files / "conf" / "more.conf").write_text("x")
    assert place() == {WEB: FileAction.KEEP, "conf/more.conf": FileAction.CREATE}
    assert not (target / WEB).exists()


def test_a_directory_that_the_machine_removed_comes_back_only_for_what_is_new_in_it(
    files: Path, target: Path, place: Place
) -> None:
    place()
    (target / WEB).unlink()
    (target / "conf").rmdir()
    assert place() == {"conf": FileAction.KEEP, WEB: FileAction.KEEP}
    (files / "conf" / "more.conf").write_text("x")
    place()
    assert [path.name for path in (target / "conf").iterdir()] == ["more.conf"]


def test_what_a_generation_no_longer_brings_goes_unless_the_machine_changed_it(
    files: Path, target: Path, place: Place
) -> None:
    (files / "old.conf").write_text("x")
    (files / "app.db").write_text("default")
    (files / "data").mkdir()
    place()
    (target / "data" / "db").write_text("precious")
    (target / "app.db").write_text("precious")
    for name in ("old.conf", "app.db"):
        (files / name).unlink()
    (files / "data").rmdir()
    place()
    assert not (target / "old.conf").exists()
    assert [(target / name).read_text() for name in ("data/db", "app.db")] == ["precious", "precious"]
    (target / "data" / "db").unlink()
    place()
    assert (target / "data").is_dir()


def test_what_is_in_a_directory_whose_content_the_project_left_out_stays(
    files: Path, target: Path, place: Place
) -> None:
    (files / "data" / "year").mkdir(parents=True)
    (files / "data" / "year" / "photo").write_text("of nobody else")
    place()
    shutil.rmtree(files / "data" / "year")
    assert place()["data/year/photo"] is FileAction.KEEP
    assert (target / "data" / "year" / "photo").read_text() == "of nobody else"
    (files / "data" / "new").write_text("the project's")
    assert "data/year/photo" not in place()
    assert (target / "data" / "year" / "photo").read_text() == "of nobody else"


def test_what_dockerignore_leaves_out_of_what_services_bind_stays(files: Path, target: Path, place: Place) -> None:
    """In an allow-list, say, or of single files: what nobody has changed is in use all the same."""
    (files / "conf" / "changed").write_text("one")
    (files / "unbound").write_text("one")
    place()
    (target / "conf" / "changed").write_text("mine")
    for name in (WEB, "conf/changed", "unbound"):
        (files / name).unlink()
    (files / left_out.FILE).write_text('[{"bind": "conf", "top": ".", "lines": ["**/*", "!other"]}]')
    place()
    assert ((target / WEB).read_text(), (target / "conf" / "changed").read_text()) == ("one", "mine")
    assert not (target / "unbound").exists()
    assert not (target / left_out.FILE).exists()
    (files / left_out.FILE).unlink()
    place()
    assert (target / WEB).read_text() == "one", "from then on it is data"


def test_an_empty_directory_that_the_engine_made_gives_way_but_not_one_with_data(
    files: Path, target: Path, place: Place
) -> None:
    (target / WEB).mkdir(parents=True)
    place()
    assert (target / WEB).read_text() == "one"
    (files / WEB).write_text("two")
    (target / WEB).unlink()
    (target / WEB).mkdir()
    (target / WEB / "data").write_text("precious")
    with pytest.raises(ProjectError, match="there is a directory"):
        place()


def test_a_file_and_a_directory_follow_each_other(files: Path, target: Path, place: Place) -> None:
    place()
    (files / WEB).unlink()
    (files / "conf").rmdir()
    (files / "conf").write_text("a file")
    place()
    assert (target / "conf").read_text() == "a file"
    (files / "conf").unlink()
    (files / "conf").mkdir()
    (files / WEB).write_text("again")
    place()
    assert (target / WEB).read_text() == "again"


@pytest.mark.parametrize("where", ["conf", WEB])
def test_a_link_that_a_container_laid_leads_nothing_outside(
    files: Path, target: Path, place: Place, where: str
) -> None:
    outside = target.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "web.conf").write_text("somebody's")
    target.mkdir(parents=True)
    (target / where).parent.mkdir(exist_ok=True)
    (target / where).symlink_to(outside if where == "conf" else outside / "web.conf")
    assert place() == {where: FileAction.CONFLICT}
    assert (outside / "web.conf").read_text() == "somebody's"
    Placement(target).take(files, [where])
    assert (target / WEB).read_text() == "one"
    assert (target / f"{where}{OLD}").is_symlink()
    (target / WEB).unlink()
    (target / "conf").rename(target / "away")
    (target / "conf").symlink_to(outside)
    (files / WEB).unlink()
    place()
    assert (outside / "web.conf").read_text() == "somebody's"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(files: Path, target: Path, place: Place) -> None:
    (target / "conf").mkdir(parents=True)
    os.mkfifo(target / WEB)
    assert place() == {WEB: FileAction.CONFLICT}
    Placement(target).take(files, [WEB])
    assert (target / WEB).read_text() == "one"


def test_a_file_of_another_size_is_not_read(files: Path, target: Path, place: Place) -> None:
    place()
    with (target / WEB).open("r+") as sparse:
        sparse.truncate(2**40)
    assert place() == {WEB: FileAction.KEEP}


def test_what_is_damaged_or_missing_makes_the_machine_right(files: Path, target: Path, place: Place) -> None:
    place()
    target.with_name(RECORD).write_bytes(b"\0\0")
    (target / WEB).write_text("precious")
    assert place() == {WEB: FileAction.CONFLICT}
    target.with_name(RECORD).unlink()
    assert place() == {WEB: FileAction.CONFLICT}
    assert (target / WEB).read_text() == "precious"


def test_the_list_of_an_earlier_dom0_says_what_was_placed(files: Path, target: Path, place: Place) -> None:
    """Its agent put every file in its place at every start, so what differs has been changed since."""
    place()
    target.with_name(RECORD).write_text(json.dumps([WEB]))
    place()
    (files / WEB).write_text("two")
    assert place() == {WEB: FileAction.UPDATE}


def test_a_name_that_is_no_utf_8_is_a_name(files: Path, target: Path, place: Place) -> None:
    name = os.fsdecode(b"na\xefve")
    (files / name).write_text("one")
    place()
    (target / name).write_text("precious")
    assert place() == {name: FileAction.KEEP}


def test_a_directory_that_cannot_be_made_is_told(target: Path, place: Place) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("a file")
    with pytest.raises(Unwritable, match="project: cannot be written"):
        place()


def test_the_projects_version_is_taken_and_the_machines_is_kept_beside_it(
    files: Path, target: Path, place: Place
) -> None:
    place()
    for text in ("first", "second"):
        (target / WEB).write_text(text)
        Placement(target).take(files, [WEB])
        assert (target / WEB).read_text() == "one"
    kept = sorted((path.name, path.read_text()) for path in (target / "conf").iterdir())
    assert kept == [("web.conf", "one"), (f"web.conf{OLD}", "first"), (f"web.conf{OLD}.1", "second")]
    assert place() == {}


def test_a_removed_file_is_taken_back_and_a_whole_directory_at_once(files: Path, target: Path, place: Place) -> None:
    (files / "conf" / "more.conf").write_text("x")
    place()
    (target / WEB).unlink()
    (target / "conf" / "more.conf").write_text("precious")
    Placement(target).take(files, ["conf"])
    assert [(target / "conf" / name).read_text() for name in ("web.conf", "more.conf")] == ["one", "x"]
    assert (target / "conf" / f"more.conf{OLD}").read_text() == "precious"


def test_the_machines_version_is_kept_until_the_project_says_something_new(
    files: Path, target: Path, place: Place
) -> None:
    place()
    (target / WEB).write_text("precious")
    (files / WEB).write_text("two")
    place()
    Placement(target).keep(files, [WEB])
    assert place() == {WEB: FileAction.KEEP}
    (files / WEB).write_text("three")
    assert place() == {WEB: FileAction.CONFLICT}
    assert (target / WEB).read_text() == "precious"


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "nope", "", "conf/../conf/web.conf", "conf/"])
def test_only_files_of_the_project_can_be_named(files: Path, target: Path, place: Place, path: str) -> None:
    place()
    for act in (Placement(target).take, Placement(target).keep):
        with pytest.raises(UsageError, match="is no file of the project"):
            act(files, [path])


def test_what_a_kill_left_without_its_name_is_removed(files: Path, target: Path, place: Place) -> None:
    place()
    (files / WEB).write_text("two")
    record = json.loads(target.with_name(RECORD).read_text())
    record[WEB].append(None)
    target.with_name(RECORD).write_text(json.dumps(record))
    (target / "conf" / TEMPORARY).write_text("half")
    place()
    assert [path.name for path in (target / "conf").iterdir()] == ["web.conf"]
