"""A blob on its way, through kills, power cuts and disks that lose or change what they have."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dom0.registry import journal
from dom0.registry.journal import CHUNK, JournalHead
from dom0.registry.partial import BLOB, LOCK, Partial, Stopped, peek
from dom0.testing.mutations import mutated

SIZE = 5 * CHUNK + 17
CONTENT = Random(1).randbytes(SIZE)  # noqa: S311 -- no secret
SHA256 = hashlib.sha256(CONTENT).digest()
BOOT, NEXT_BOOT = bytes(16), bytes(15) + b"\1"
GO_ON = threading.Event()

Open = Callable[..., Partial]


@pytest.fixture
def open_partial(tmp_path: Path) -> Iterator[Open]:
    """As a process would that comes after the one before was killed."""
    opened: list[Partial] = []

    def again(boot: bytes = BOOT) -> Partial:
        for partial in opened:
            partial.close()
        opened.append(Partial(tmp_path, SHA256, SIZE, boot=boot))
        return opened[-1]

    yield again
    for partial in opened:
        partial.close()


def put(partial: Partial, start: int, stop: int) -> None:
    """What two requests bring for the part that begins at `start`, in odd pieces."""
    at = partial.find(start).at
    while at < stop:
        at += partial.put(at, CONTENT[at : min(stop, at + 300_001)])


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def is_right(partial: Partial) -> bool:
    return all(b"".join(part.read()) == CONTENT[part.start : part.at] for part in partial.parts)


def end(partial: Partial, blob: Path) -> None:
    """Fetch what is missing, as often as something is."""
    while True:
        for part in tuple(partial.parts):
            put(partial, part.start, partial.stop(part))
        ending = partial.finish(blob, GO_ON)
        if ending == "done":
            break
        if ending == "wrong":
            partial.forget()
    assert blob.read_bytes() == CONTENT


def test_after_a_kill_all_that_was_written_is_there(open_partial: Open) -> None:
    put(open_partial(), 0, 2 * CHUNK + 5)
    partial = open_partial()
    assert partial.have == 2 * CHUNK + 5
    assert is_right(partial)


def test_after_a_power_cut_whole_chunks_are_there(open_partial: Open, tmp_path: Path) -> None:
    put(open_partial(), 0, 2 * CHUNK + 5)
    partial = open_partial(NEXT_BOOT)
    assert partial.have == 2 * CHUNK
    assert (tmp_path / "0").stat().st_size == 2 * CHUNK
    put(partial, 0, 2 * CHUNK + 7)
    assert open_partial(NEXT_BOOT).have == 2 * CHUNK + 7


def test_after_a_power_cut_nothing_is_kept_from_the_first_chunk_on_that_is_another(
    open_partial: Open, tmp_path: Path
) -> None:
    put(open_partial(), 0, 4 * CHUNK)
    with (tmp_path / "0").open("r+b") as file:
        file.seek(2 * CHUNK + 9)
        file.write(b"another")
    partial = open_partial(NEXT_BOOT)
    assert partial.have == 2 * CHUNK
    assert is_right(partial)


def test_chunks_whose_crcs_a_power_cut_took_are_kept(open_partial: Open, tmp_path: Path) -> None:
    put(open_partial(), 0, 4 * CHUNK + 3)
    os.truncate(tmp_path / "0.journal", journal.entry(1, 0)[1])
    os.truncate(tmp_path / "0.journal", journal.entry(3, 0)[1])  # as ext4 does: zeros instead of the last ones
    partial = open_partial(NEXT_BOOT)
    assert partial.have == 4 * CHUNK
    end(partial, tmp_path / BLOB)


def test_parts_that_come_in_any_order_become_the_blob(open_partial: Open, tmp_path: Path) -> None:
    partial = open_partial()
    put(partial, 4 * CHUNK, SIZE)
    put(partial, 2 * CHUNK, 4 * CHUNK)
    assert partial.have == SIZE - 2 * CHUNK
    put(partial, 0, 2 * CHUNK)
    assert partial.is_whole
    end(open_partial(), tmp_path / BLOB)
    assert names(tmp_path) == [BLOB]


def test_a_blob_of_nothing_is_one(tmp_path: Path) -> None:
    partial = Partial(tmp_path, hashlib.sha256().digest(), 0)
    assert partial.is_whole
    assert partial.finish(tmp_path / BLOB, GO_ON) == "done"
    assert (tmp_path / BLOB).read_bytes() == b""


def test_parts_take_no_more_than_is_missing(open_partial: Open) -> None:
    partial = open_partial()
    put(partial, 2 * CHUNK, 3 * CHUNK)
    assert partial.put(0, CONTENT[: 2 * CHUNK + 100]) == 2 * CHUNK
    assert partial.put(0, CONTENT[:CHUNK]) == 0
    assert partial.put(0, CONTENT) == SIZE - 3 * CHUNK
    assert partial.is_whole


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [
        ([(0, 1)], SIZE - CHUNK),
        ([(CHUNK + 5, 2 * CHUNK), (3 * CHUNK, 3 * CHUNK + 1)], SIZE - 2 * CHUNK),
        ([(CHUNK, 2 * CHUNK + 1)], SIZE - 2 * CHUNK),
        ([(SIZE - 1, SIZE)], SIZE - 17),
        ([(0, SIZE)], 0),
    ],
)
@pytest.mark.parametrize("is_killed", [False, True])
def test_of_wrong_stretches_only_the_chunks_that_they_are_in_are_missing_again(
    open_partial: Open, tmp_path: Path, wrong: list[tuple[int, int]], kept: int, is_killed: bool
) -> None:
    partial = open_partial()
    data = bytearray(CONTENT)
    for start, stop in wrong:
        data[start:stop] = bytes(stop - start)
    partial.put(0, bytes(data))
    assert partial.finish(tmp_path / BLOB, GO_ON) == "wrong"
    partial.forget(wrong)
    if is_killed:
        partial = open_partial()
    assert partial.have == kept
    end(partial, tmp_path / BLOB)


def test_other_bytes_become_no_blob(open_partial: Open, tmp_path: Path) -> None:
    partial = open_partial()
    put(partial, CHUNK, SIZE)
    partial.put(0, b"\0" * CHUNK)
    assert partial.finish(tmp_path / BLOB, GO_ON) == "wrong"
    partial.forget()
    assert names(tmp_path) == []
    end(partial, tmp_path / BLOB)


@pytest.mark.parametrize("name", ["0", str(3 * CHUNK)])
def test_of_a_chunk_that_the_disk_did_not_keep_only_what_follows_it_in_its_part_is_missing(
    open_partial: Open, tmp_path: Path, name: str
) -> None:
    partial = open_partial()
    put(partial, 3 * CHUNK, SIZE)
    put(partial, 0, 3 * CHUNK)
    with (tmp_path / name).open("r+b") as file:
        file.seek(CHUNK + 9)
        file.write(b"another")
    assert partial.finish(tmp_path / BLOB, GO_ON) == "damaged"
    assert partial.have >= 3 * CHUNK
    end(partial, tmp_path / BLOB)


def test_joining_goes_on_where_it_was_stopped(open_partial: Open, tmp_path: Path) -> None:
    partial = open_partial()
    put(partial, 2 * CHUNK, SIZE)
    put(partial, 0, 2 * CHUNK)

    class Third(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 4

    with pytest.raises(Stopped):
        partial.finish(tmp_path / BLOB, Third())
    again = open_partial()
    assert again.is_whole
    assert again.parts[0].at == 4 * CHUNK
    assert again.have == SIZE
    end(again, tmp_path / BLOB)


def spoil_head(journal_file: Path) -> None:
    journal_file.write_bytes(b"\xff" + journal_file.read_bytes()[1:])


def say_other_blob(journal_file: Path) -> None:
    journal_file.write_bytes(journal.encode(JournalHead(BOOT, bytes(32), SIZE, 0), []))


def make_link(journal_file: Path) -> None:
    target = journal_file.with_suffix("")
    target.rename(target.parent.parent / "elsewhere")
    target.symlink_to(target.parent.parent / "elsewhere")


def make_fifo(journal_file: Path) -> None:
    journal_file.unlink()
    os.mkfifo(journal_file)


def make_directory(journal_file: Path) -> None:
    journal_file.with_suffix("").unlink()
    (journal_file.with_suffix("") / "in").mkdir(parents=True)


def make_too_long(journal_file: Path) -> None:
    os.truncate(journal_file.with_suffix(""), SIZE + 1)


@pytest.mark.parametrize(
    "spoil", [spoil_head, say_other_blob, make_link, make_fifo, make_directory, make_too_long, Path.unlink]
)
def test_what_cannot_be_believed_is_thrown_away(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    directory = tmp_path / "of the blob"
    directory.mkdir()
    first = Partial(directory, SHA256, SIZE, boot=BOOT)
    put(first, 0, 2 * CHUNK)
    first.close()
    spoil(directory / "0.journal")
    partial = Partial(directory, SHA256, SIZE, boot=BOOT)
    assert partial.have == 0
    assert names(directory) == []
    end(partial, directory / BLOB)


def test_what_has_no_name_of_ours_is_removed(open_partial: Open, tmp_path: Path) -> None:
    put(open_partial(), 0, 5)
    for name in ("00", "-1", "1", str(9 * CHUNK), "0.journal.new", "x", LOCK, "7.journal"):
        (tmp_path / name).write_bytes(b"x")
    assert open_partial().have == 5
    assert names(tmp_path) == ["0", "0.journal", LOCK]


def test_how_much_there_is_can_be_said_without_opening_it(open_partial: Open, tmp_path: Path) -> None:
    assert peek(tmp_path) == (None, 0)
    partial = open_partial()
    put(partial, 2 * CHUNK, 3 * CHUNK)
    put(partial, 0, 7)
    assert peek(tmp_path) == (SIZE, CHUNK + 7)


class Looks(threading.Event):
    """Joining is stopped the `last` time that it looks whether it is to go on; `size`: most that was on the disk."""

    def __init__(self, directory: Path, last: int) -> None:
        super().__init__()
        self.directory = directory
        self.left = last
        self.size = 0

    def is_set(self) -> bool:
        self.left -= 1
        self.size = max(self.size, sum(path.stat().st_blocks * 512 for path in self.directory.iterdir()))
        return self.left == 0


def test_joining_takes_no_more_space_than_the_blob(open_partial: Open, tmp_path: Path) -> None:
    partial = open_partial()
    put(partial, 2 * CHUNK, SIZE)
    put(partial, 0, 2 * CHUNK)
    looks = Looks(tmp_path, -1)
    assert partial.finish(tmp_path / BLOB, looks) == "done"
    assert looks.size < SIZE + CHUNK


@pytest.mark.parametrize("boot", [BOOT, NEXT_BOOT])
@pytest.mark.parametrize("last", range(3, 7))
def test_a_part_whose_beginning_is_released_is_taken_up_again(
    open_partial: Open, tmp_path: Path, boot: bytes, last: int
) -> None:
    partial = open_partial()
    put(partial, CHUNK, 2 * CHUNK)
    put(partial, 2 * CHUNK, SIZE)
    put(partial, 0, CHUNK)
    with pytest.raises(Stopped):
        partial.finish(tmp_path / BLOB, Looks(tmp_path, last))
    again = open_partial(boot)
    assert again.have >= SIZE - SIZE % CHUNK
    assert is_right(again)
    end(again, tmp_path / BLOB)
    assert names(tmp_path) == [BLOB]


def test_what_the_first_part_loses_after_it_was_released_elsewhere_is_missing(
    open_partial: Open, tmp_path: Path
) -> None:
    partial = open_partial()
    put(partial, CHUNK, SIZE)
    put(partial, 0, CHUNK)
    with pytest.raises(Stopped):
        partial.finish(tmp_path / BLOB, Looks(tmp_path, 5))
    with (tmp_path / "0").open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"another")
    assert partial.finish(tmp_path / BLOB, GO_ON) == "damaged"
    assert partial.have == SIZE - 2 * CHUNK
    end(partial, tmp_path / BLOB)


class Lives(RuleBasedStateMachine):
    """Of one blob, through many processes and boots. The disk keeps what was waited for, and of the rest anything."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="dom0-partial-"))
        self.boots = 1
        self.open()

    def open(self) -> None:
        self.partial = Partial(self.directory, SHA256, SIZE, boot=self.boots.to_bytes(16, "big"))

    @rule(start=st.integers(0, 5), length=st.integers(1, 2 * CHUNK))
    def grow(self, start: int, length: int) -> None:
        if not any(part.start < start * CHUNK < part.at for part in self.partial.parts):
            part = self.partial.find(start * CHUNK)
            self.partial.put(part.at, CONTENT[part.at : part.at + length])

    @rule()
    def kill(self) -> None:
        have = self.partial.have
        self.partial.close()
        self.open()
        assert self.partial.have == have

    @rule(data=st.data())
    def cut_power(self, data: st.DataObject) -> None:
        before = self.partial.have, len(self.partial.parts)
        self.partial.close()
        for part in self.partial.parts:
            if part.size:
                self.lose(part.path, part.size, data)
        self.boots += 1
        self.open()
        assert before[0] - self.partial.have < CHUNK * before[1]
        assert is_right(self.partial)

    def lose(self, file: Path, size: int, data: st.DataObject) -> None:
        whole = size - size % CHUNK
        tail = data.draw(st.integers(0, size - whole))
        os.truncate(file, whole)
        with file.open("ab") as opened:
            opened.write(b"\xaa" * tail)
        noted = data.draw(st.integers(0, whole // CHUNK))
        os.truncate(file.with_suffix(".journal"), journal.entry(noted, 0)[1])
        os.truncate(file.with_suffix(".journal"), journal.entry(data.draw(st.integers(noted, whole // CHUNK)), 0)[1])

    @rule()
    def join(self) -> None:
        if self.partial.is_whole:
            self.finish()

    @rule(last=st.integers(1, 9))
    def join_and_stop(self, last: int) -> None:
        for part in tuple(self.partial.parts):
            put(self.partial, part.start, self.partial.stop(part))
        blob = self.directory / BLOB
        with contextlib.suppress(Stopped):
            assert self.partial.finish(blob, Looks(self.directory, last)) == "done"
            assert blob.read_bytes() == CONTENT
            blob.unlink()
            self.open()

    def finish(self) -> None:
        end(self.partial, self.directory / BLOB)
        (self.directory / BLOB).unlink()
        self.open()

    def teardown(self) -> None:
        try:
            self.finish()
            self.partial.close()
        finally:
            shutil.rmtree(self.directory)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)


def mutate(directory: Path, random: Random) -> None:
    """In one file, which may also be gone then."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    path = random.choice(files)
    if random.randrange(8) == 0:
        path.unlink()
    else:
        path.write_bytes(mutated(path.read_bytes(), [file.read_bytes() for file in files], random))


MUTATIONS = int(os.environ.get("DOM0_TEST_MUTATIONS", "20"))


def test_no_change_of_its_files_makes_a_wrong_blob(tmp_path: Path) -> None:
    random = Random(3)  # noqa: S311 -- no secret
    partial = Partial(tmp_path, SHA256, SIZE, boot=BOOT)
    put(partial, 2 * CHUNK, 3 * CHUNK + 9)
    put(partial, 0, CHUNK + 70_000)
    partial.close()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(MUTATIONS):
        for path in tmp_path.iterdir():
            path.unlink()
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        mutate(tmp_path, random)
        spoilt = Partial(tmp_path, SHA256, SIZE, boot=random.choice((BOOT, NEXT_BOOT)))
        end(spoilt, tmp_path / BLOB)
        spoilt.close()
