"""A remembered digest is never another one than that of the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.images import digest_cache
from dom0.images.contents import digest, entries


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root / "tree"
        (self.root / "sub").mkdir(parents=True)
        self.file = self.root / "sub" / "file"
        self.file.write_text("one")
        (self.root / "link").symlink_to("sub/file")
        self.path = root / "cache" / "digest"
        self.read = 0
        self.text = "text"

    def look(self, *, rested: bool = True) -> str:
        """As a command does, a while after the last change; sees to it that the result is right."""
        found = list(entries(self.root))
        youngest = max(entry.found.st_ctime_ns for entry in found)
        now = youngest + (digest_cache.RESTED + 1 if rested else digest_cache.RESTED)
        made = digest_cache.remembered(self.path, found, self._compute, text=self.text, now=now)
        assert made == digest(entries(self.root), text=self.text)
        self._await_tick(youngest)
        return made

    def _await_tick(self, after: int) -> None:
        """Let no change have the time of the last one."""
        probe = self.root.parent / "probe"
        probe.touch()
        while probe.stat().st_ctime_ns <= after:
            probe.touch()

    def _compute(self) -> str:
        self.read += 1
        return digest(entries(self.root), text=self.text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_files_that_have_not_changed_are_read_once(tree: Tree) -> None:
    assert tree.look() == tree.look()
    assert tree.read == 1


def test_byte_code_beside_them_is_no_change(tree: Tree) -> None:
    tree.look()
    (tree.root / "sub" / "other").touch()
    (tree.root / "sub" / "other").unlink()
    tree.look()
    assert tree.read == 1


def rewrite_with_its_old_time(tree: Tree) -> None:
    """As `rsync --times`, or a person who hides it: only the time of the change of the inode tells."""
    before = tree.file.stat()
    tree.file.write_text("two")
    os.utime(tree.file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_one_of_the_same_size(tree: Tree) -> None:
    before, other = tree.file.stat(), tree.root.parent / "other"
    other.write_text("two")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(tree.file)


def point_elsewhere(tree: Tree) -> None:
    (tree.root / "link").unlink()
    (tree.root / "link").symlink_to("sub/elif")


def say_something_else(tree: Tree) -> None:
    tree.text = "other"


CHANGES: dict[str, Callable[[Tree], object]] = {
    "content": lambda tree: tree.file.write_text("longer"),
    "content, but neither size nor time": rewrite_with_its_old_time,
    "file": replace_by_one_of_the_same_size,
    "name": lambda tree: tree.file.rename(tree.root / "sub" / "elif"),
    "mode": lambda tree: tree.file.chmod(0o700),
    "mode of a directory": lambda tree: (tree.root / "sub").chmod(0o700),
    "one more": lambda tree: (tree.root / "new").touch(),
    "one less": lambda tree: tree.file.unlink(),
    "link": point_elsewhere,
    "text": say_something_else,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_of(change: str, tree: Tree) -> None:
    before = tree.look()
    CHANGES[change](tree)
    assert tree.look() != before
    assert tree.read == 2


def test_files_that_may_change_in_the_same_tick_are_not_remembered(tree: Tree) -> None:
    tree.look(rested=False)
    assert not tree.path.exists()
    tree.look()
    tree.look(rested=False)
    assert tree.read == 2


def truncations_and_flips(content: bytes) -> list[bytes]:
    cut = [content[:length] for length in range(len(content))]
    flipped = [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(len(content))]
    return [*cut, *flipped, content * 2, b"\0" * len(content), b"\xff", b" " * 4096]


def test_what_is_damaged_only_takes_time(tree: Tree) -> None:
    right = tree.look()
    for damaged in truncations_and_flips(tree.path.read_bytes()):
        tree.path.write_bytes(damaged)
        read = tree.read
        assert tree.look() == right
        assert tree.read == read + 1


def hand_on(path: Path) -> None:
    os.chown(path, 65534, 65534)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def occupy(path: Path) -> None:
    path.unlink()
    path.mkdir()


def block(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "others may write it": lambda path: path.chmod(0o622),
    "it is somebody else's": hand_on,
    "it is a link": link,
    "it is a directory": occupy,
    "it is a pipe": block,
}


@pytest.mark.parametrize("way", FOREIGN)
def test_it_is_not_used_where(way: str, tree: Tree) -> None:
    if way == "it is somebody else's" and os.geteuid() != 0:
        pytest.skip("needs root")
    tree.look()
    FOREIGN[way](tree.path)
    tree.look()
    assert tree.read == 2


def test_where_nothing_can_be_written_files_are_read_each_time(tree: Tree) -> None:
    tree.path.parent.write_text("a file where the cache is to be")
    tree.look()
    tree.look()
    assert tree.read == 2
