"""The project's files below /var/lib/dom0/project, and what containers that have it bound may have done there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0.agent.placement import LIST, place
from dom0.agent.store import Unwritable
from dom0.errors import ProjectError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    (directory / "conf").mkdir(parents=True)
    (directory / "conf" / "web.conf").write_text("one")
    return directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "state" / "project"


def test_files_modes_and_links_arrive(files: Path, target: Path) -> None:
    (files / "run.sh").write_text("#!/bin/sh")
    (files / "run.sh").chmod(0o755)
    (files / "link").symlink_to("conf/web.conf")
    place(files, target)
    assert (target / "link").readlink() == Path("conf/web.conf")
    assert (target / "link").read_text() == "one"
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755


def test_an_unchanged_file_keeps_its_inode_and_a_changed_one_is_replaced_whole(files: Path, target: Path) -> None:
    place(files, target)
    before = (target / "conf" / "web.conf").stat().st_ino
    place(files, target)
    assert (target / "conf" / "web.conf").stat().st_ino == before
    with (target / "conf" / "web.conf").open() as bound:
        (files / "conf" / "web.conf").write_text("two")
        place(files, target)
        assert (bound.read(), (target / "conf" / "web.conf").read_text()) == ("one", "two")


def test_what_a_generation_no_longer_brings_goes_and_what_containers_wrote_stays(files: Path, target: Path) -> None:
    (files / "old.conf").write_text("x")
    place(files, target)
    (target / "data").mkdir()
    (target / "data" / "db").write_text("precious")
    (files / "old.conf").unlink()
    place(files, target)
    assert not (target / "old.conf").exists()
    assert (target / "data" / "db").read_text() == "precious"


def test_an_empty_directory_that_the_engine_made_gives_way_but_not_one_with_data(files: Path, target: Path) -> None:
    (target / "conf" / "web.conf").mkdir(parents=True)
    place(files, target)
    assert (target / "conf" / "web.conf").read_text() == "one"
    (target / "conf" / "web.conf").unlink()
    (target / "conf" / "web.conf").mkdir()
    (target / "conf" / "web.conf" / "data").write_text("precious")
    with pytest.raises(ProjectError, match="there is a directory"):
        place(files, target)


@pytest.mark.parametrize("where", ["conf", "conf/web.conf"])
def test_a_link_that_a_container_laid_leads_nothing_outside(files: Path, target: Path, where: str) -> None:
    outside = target.parent / "outside"
    outside.mkdir(parents=True)
    (outside / "web.conf").write_text("somebody's")
    target.mkdir(parents=True)
    (target / where).parent.mkdir(exist_ok=True)
    (target / where).symlink_to(outside if where == "conf" else outside / "web.conf")
    place(files, target)
    assert (outside / "web.conf").read_text() == "somebody's"
    assert (target / "conf" / "web.conf").read_text() == "one"
    (files / "conf" / "web.conf").unlink()
    (target / "conf" / "web.conf").unlink()
    (target / "conf").rmdir()
    (target / "conf").symlink_to(outside)
    place(files, target)
    assert (outside / "web.conf").read_text() == "somebody's"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(files: Path, target: Path) -> None:
    (target / "conf").mkdir(parents=True)
    os.mkfifo(target / "conf" / "web.conf")
    place(files, target)
    assert (target / "conf" / "web.conf").read_text() == "one"


def test_a_damaged_list_costs_nothing_but_tidiness(files: Path, target: Path) -> None:
    place(files, target)
    target.with_name(LIST).write_bytes(b"\0\0")
    place(files, target)
    assert (target / "conf" / "web.conf").read_text() == "one"


def test_a_directory_that_cannot_be_made_is_told(files: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("a file")
    with pytest.raises(Unwritable, match="project: cannot be written"):
        place(files, target)
