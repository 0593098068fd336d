"""Over random histories of a project, a machine that writes into its files, and kills at any call: nothing is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dom0.agent.placement import OLD, TEMPORARY, Placement
from dom0.errors import ProjectError, UsageError

PATHS = ("a", "d", "d/b", "d/c")
CALLS = ("rename", "unlink", "rmdir", "mkdir", "link", "symlink", "chown", "fchmod", "fsync")  # what changes the disk

projects = st.fixed_dictionaries({path: st.sampled_from(["", "one", "two", "three"]) for path in PATHS})
"""The text of each file, "" for none; `d` is a file only where nothing is below it."""

machine_edits = st.tuples(st.sampled_from(["write", "remove"]), st.sampled_from(["a", "d/b", "d/c"]))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("project"), projects, st.integers(0, 40)),
        st.tuples(st.just("machine"), machine_edits, st.just(0)),
        st.tuples(st.just("take"), st.sampled_from(PATHS), st.integers(0, 40)),
        st.tuples(st.just("keep"), st.sampled_from(PATHS), st.integers(0, 10)),
    ),
    max_size=12,
)


class Killed(BaseException):
    """As by SIGKILL: nothing catches it."""


@contextmanager
def killed_at(call: int) -> Iterator[None]:
    """The process dies before its `call`th change of the disk; 0: it does not."""
    left = call

    def counted(name: str) -> object:
        real = getattr(os, name)

        def called(*args: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(*args, **named)

        return called

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(name))
        with suppress(Killed):
            yield


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.placement = Placement(root / "state" / "project")
        self.target = self.placement.target
        self.files = root / "0"
        self.files.mkdir()
        self.count = 0
        self.written: dict[str, str] = {}  # by the machine: path -> text, as long as nobody changed it explicitly

    def project(self, texts: dict[str, str], kill: int) -> None:
        self.count += 1
        files = self.root / str(self.count)
        files.mkdir()
        below = any(texts[path] for path in ("d/b", "d/c"))
        for path, text in texts.items():
            if text and not (path == "d" and below):
                (files / path).parent.mkdir(exist_ok=True)
                (files / path).write_text(text)
        self.place(files, kill)

    def place(self, files: Path, kill: int) -> None:
        before = self.files
        with killed_at(kill):
            try:
                self.placement.place(files)
            except ProjectError:  # a directory of the machine where the project has a file: back, as the agent goes
                return
            self.files = files
        if self.files is before and kill % 2:
            self.files = files  # or it was killed after that generation had become current

    def machine(self, edit: tuple[str, str]) -> None:
        what, path = edit
        place = self.target / path
        self.written.pop(path, None)
        if what == "remove":
            if place.is_file():
                place.unlink()
        elif self.target.is_dir() and not place.parent.is_file() and not place.is_dir():
            place.parent.mkdir(exist_ok=True)
            self.count += 1
            self.written[path] = f"precious {self.count}"
            place.write_text(self.written[path])

    def settle(self, what: str, path: str, kill: int) -> None:
        with killed_at(kill):
            try:
                getattr(self.placement, what)(self.files, [path])
            except UsageError:
                return

    def check(self) -> None:
        """Every text that the machine wrote last is where it wrote it, or beside it, where a person took another."""
        for path, text in self.written.items():
            found = {
                place.read_text()
                for place in (self.target / path).parent.glob("*")
                if place.name.startswith(Path(path).name)
            } | {place.read_text() for place in self.target.glob(f"d{OLD}*/{Path(path).name}*")}
            assert text in found, (path, text, found)


NONE = dict.fromkeys(PATHS, "")
TAKE_CUT_OFF: list[tuple[str, object, int]] = [
    ("project", NONE | {"a": "one", "d/c": "one"}, 0),
    ("project", NONE | {"d/c": "one"}, 6),
    ("take", "a", 11),
    ("machine", ("write", "a"), 0),
    ("keep", "a", 0),
]


@settings(max_examples=60, deadline=None)
@given(steps)
@example(TAKE_CUT_OFF)
def test_every_byte_that_the_machine_wrote_is_still_there(history: list[tuple[str, object, int]]) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        world = World(root)
        for what, argument, kill in history:
            if what == "project":
                world.project(argument, kill)  # type: ignore[arg-type]
            elif what == "machine":
                world.machine(argument)  # type: ignore[arg-type]
            else:
                world.settle(what, str(argument), kill)
            world.check()
        agent_starts_again(world)
    finally:
        shutil.rmtree(root)


def agent_starts_again(world: World) -> None:
    """What was cut off is finished, and then nothing is left to do, and nothing of ours without a name."""
    try:
        world.placement.place(world.files)
    except ProjectError:
        return
    world.check()
    assert not list(world.target.rglob(TEMPORARY))
    assert all(step.wanted == step.there for step in world.placement.place(world.files).values())


@settings(max_examples=60, deadline=None)
@given(projects, projects, st.integers(1, 60), st.booleans())
def test_a_placement_that_was_cut_off_is_finished_or_undone(
    first: dict[str, str], second: dict[str, str], kill: int, undone: bool
) -> None:
    """Where no machine changed anything, what lies there is what the project says, whichever one is current then."""
    root = Path(tempfile.mkdtemp())
    try:
        world = World(root)
        world.project(first, 0)
        one = world.files
        world.project(second, kill)
        files = one if undone else root / "2"
        world.placement.place(files)
        assert texts(world.target) == texts(files)
    finally:
        shutil.rmtree(root)


def texts(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
