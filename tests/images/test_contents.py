"""Which files a directory holds, their digest, their copy."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.errors import ProjectError
from dom0.images.contents import clone, copy, digest, entries

EPOCH = 1_000_000
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, as setcap writes it


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_text("one")
    (root / "run").write_text("#!/bin/sh")
    (root / "run").chmod(0o700)
    (root / "link").symlink_to("sub/../sub/file")
    return root


def point_elsewhere(link: Path) -> None:
    link.unlink()
    link.symlink_to("sub/file")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda tree: (tree / "sub" / "file").write_text("two"),
    "name": lambda tree: (tree / "run").rename(tree / "walk"),
    "mode": lambda tree: (tree / "run").chmod(0o755),
    "link": lambda tree: point_elsewhere(tree / "link"),
    "directory": lambda tree: (tree / "empty").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_with(change: str, tree: Path) -> None:
    before = digest(entries(tree))
    CHANGES[change](tree)
    assert digest(entries(tree)) != before


def test_the_digest_does_not_depend_on_when_the_files_were_written(tree: Path) -> None:
    before = digest(entries(tree))
    os.utime(tree / "run", (1, 1))
    assert digest(entries(tree)) == before


def test_two_files_are_told_from_one_that_looks_like_both(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
    (one / "a").write_text("x\0file 644 b\0y")
    (two / "a").write_text("x")
    (two / "b").write_text("y")
    assert digest(entries(one)) != digest(entries(two))


def test_a_copy_is_the_same_but_for_its_times(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    copy(entries(tree), target, time=EPOCH)
    assert digest(entries(target)) == digest(entries(tree))
    assert {int(path.lstat().st_mtime) for path in target.rglob("*")} == {EPOCH}


def test_an_edit_that_keeps_the_size_gives_the_copy_another_time_and_the_same_content_the_same(tmp_path: Path) -> None:
    """By size and time alone docker decides whether a file is sent anew."""
    times = []
    for number, text in enumerate(("v: 1", "v: 2", "v: 1")):
        source, target = tmp_path / f"source{number}", tmp_path / f"copy{number}"
        source.mkdir()
        (source / "file").write_text(text)
        copy(entries(source), target, time=EPOCH)
        times.append((target / "file").stat().st_mtime_ns)
    assert times[0] == times[2] != times[1]


@pytest.mark.parametrize("owned", [False, True])
def test_the_digest_knows_owners_and_capabilities_if_it_is_asked_to(tree: Path, owned: bool) -> None:
    digests = {digest(entries(tree), owned=owned)}
    os.chown(tree / "run", 1000, 1000)
    digests.add(digest(entries(tree), owned=owned))
    os.setxattr(tree / "run", "security.capability", CAPABILITY)
    digests.add(digest(entries(tree), owned=owned))
    assert len(digests) == (3 if owned else 1)


def test_a_clone_is_the_same_with_owners_rights_and_times(tree: Path, tmp_path: Path) -> None:
    for path, uid in ((tree / "sub", 1000), (tree / "run", 1001), (tree / "link", 1002)):
        os.chown(path, uid, uid, follow_symlinks=False)
    (tree / "run").chmod(0o4751)
    os.setxattr(tree / "run", "security.capability", CAPABILITY)
    (tree / "sub").chmod(0o1777)
    target = tmp_path / "clone"
    clone(entries(tree), target, durable=True)
    assert digest(entries(target), owned=True) == digest(entries(tree), owned=True)
    times = [[path.lstat().st_mtime_ns for path in sorted(root.rglob("*"))] for root in (tree, target)]
    assert times[0] == times[1]


def test_a_public_copy_can_be_read_by_everybody(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    (tree / "sub" / "file").chmod(0o600)
    copy(entries(tree), target, time=EPOCH, public=True)
    modes = {entry.name: entry.mode for entry in entries(target) if entry.kind != "link"}
    assert modes == {"run": 0o755, "sub": 0o755, "sub/file": 0o644}


def test_a_link_is_never_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tree / "out").symlink_to(tmp_path)
    assert "out/secret" not in {entry.name for entry in entries(tree)}


def test_a_pipe_is_refused_by_name_and_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(ProjectError, match="pipe: is a pipe or a device"):
        list(entries(tree))


def test_a_socket_is_left_out_as_docker_does(tree: Path) -> None:
    before = digest(entries(tree))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "s"))
        assert digest(entries(tree)) == before


def test_what_is_ignored_is_not_even_entered(tree: Path) -> None:
    os.mkfifo(tree / "sub" / "pipe")
    assert "sub/file" not in {entry.name for entry in entries(tree, lambda name: name == "sub")}


def test_an_exception_below_an_ignored_directory_is_found(tree: Path) -> None:
    found = entries(tree, lambda name: name == "sub", prune=False)
    assert {entry.name for entry in found} >= {"sub/file"}
