"""The journal after kills, power cuts, full disks and other writers: numbers grow, and what is lost is said."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from dom0.agent import journal
from dom0.agent.events import Entry, Kind
from dom0.agent.journal import MOST, SPAN, Journal
from dom0.testing import loop
from dom0.testing.possible import require
from dom0.testing.power_cut import Disk

BOOT, NEXT_BOOT = "aaaaaaaa", "bbbbbbbb"


OPENED: list[Journal] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No test leaves a descriptor to those that come with few."""
    yield
    while OPENED:
        OPENED.pop()._forget_files()


def opened(state: Path, boot: str = BOOT) -> Journal:
    OPENED.append(Journal(state, now=lambda: 1.0, boot=boot))
    return OPENED[-1]


def note(to: Journal, *names: object) -> None:
    for name in names:
        to.note("start-container", f"box-{name}", f"start box-{name}", "created")


def entries(state: Path, after: int = 0) -> list[Entry]:
    return list(journal.read(state / "events", after))


def why_it_waits(writer: Journal) -> str:
    return writer.unwritten.message if writer.unwritten else ""


def subjects(state: Path, after: int = 0) -> list[str]:
    return [one.subject for one in entries(state, after)]


def segments(state: Path) -> list[Path]:
    return sorted((state / "events").iterdir())


def assert_ordered(state: Path) -> None:
    numbers = [one.seq for one in entries(state)]
    assert numbers == sorted(set(numbers))


def test_what_is_noted_can_be_read_at_once_by_root_alone(tmp_path: Path) -> None:
    note(opened(tmp_path), "a", "b")
    assert [(one.seq, one.subject, one.actor) for one in entries(tmp_path)] == [
        (1, "box-a", "dom0"),
        (2, "box-b", "dom0"),
    ]
    assert subjects(tmp_path, after=1) == ["box-b"]
    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o700
    assert segments(tmp_path)[0].stat().st_mode & 0o777 == 0o600


def test_the_next_agent_of_a_boot_goes_on_with_the_number_and_the_file(tmp_path: Path) -> None:
    for name in "abc":
        one = opened(tmp_path)
        note(one, name)
        one.close()
    assert [(one.seq, one.subject) for one in entries(tmp_path)] == [(1, "box-a"), (2, "box-b"), (3, "box-c")]
    assert len(segments(tmp_path)) == 1


def test_another_boot_leaves_out_every_number_that_a_power_cut_may_have_lost(tmp_path: Path) -> None:
    note(opened(tmp_path), *range(10))
    os.truncate(segments(tmp_path)[0], 0)  # of which a reader has heard
    after = opened(tmp_path, NEXT_BOOT)
    note(after, "later")
    assert [(one.seq, one.subject) for one in entries(tmp_path, after=10)] == [(SPAN + 1, "box-later")]


def test_two_writers_at_once_never_give_a_number_twice(tmp_path: Path) -> None:
    old, new = opened(tmp_path), opened(tmp_path)
    for number in range(0, 100, 2):
        note(old, number)
        note(new, number + 1)
    assert subjects(tmp_path) == [f"box-{number}" for number in range(100)]
    assert [one.seq for one in entries(tmp_path)] == list(range(1, 101))


def test_who_finds_somebody_else_writing_waits_without_a_problem(tmp_path: Path) -> None:
    one = opened(tmp_path)
    note(one, "a")
    other = os.open(tmp_path / "events", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    note(one, "b")
    assert (subjects(tmp_path), one.unwritten) == (["box-a"], None)
    os.close(other)
    one.tick()
    assert subjects(tmp_path) == ["box-a", "box-b"]


def test_the_oldest_segments_go_and_who_asks_for_what_was_in_them_is_told(tmp_path: Path) -> None:
    one = opened(tmp_path)
    for number in range(2500):
        one.note("create-container", f"box-{number}", "x" * 1000, "y" * 1000)
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= MOST + 8192
    kept = entries(tmp_path)
    assert kept[-1].subject == "box-2499"
    assert kept[0].seq % SPAN == 1
    gap, first, *_ = entries(tmp_path, after=3)
    assert (gap.kind, first) == (Kind.ENTRIES_LOST, kept[0])
    assert 3 < gap.seq < first.seq
    assert_ordered(tmp_path)


def test_a_machine_that_boots_in_a_loop_keeps_what_was_before(tmp_path: Path) -> None:
    note(opened(tmp_path), "before")
    for boot in range(200):
        one = opened(tmp_path, f"{boot:08x}")
        note(one, "boot")
        one.close()
    assert subjects(tmp_path)[0] == "box-before"
    for boot in range(200, 600):
        one = opened(tmp_path, f"{boot:08x}")
        note(one, "boot")
        one.close()
    assert len(segments(tmp_path)) <= journal.MOST_SEGMENTS
    assert_ordered(tmp_path)


@pytest.mark.parametrize("left", range(1, 110, 7))
def test_an_entry_that_was_cut_off_is_dropped_and_that_is_said(tmp_path: Path, left: int) -> None:
    note(opened(tmp_path), "a", "b")
    whole = segments(tmp_path)[0].read_bytes().splitlines(keepends=True)
    segments(tmp_path)[0].write_bytes(whole[0] + whole[1][:left])
    note(opened(tmp_path), "c")
    assert [one.kind for one in entries(tmp_path)] == ["start-container", Kind.ENTRIES_LOST, "start-container"]
    assert subjects(tmp_path) == ["box-a", "journal", "box-c"]
    assert_ordered(tmp_path)


def test_an_entry_that_lacks_its_end_of_line_alone_is_whole(tmp_path: Path) -> None:
    note(opened(tmp_path), "a", "b")
    os.truncate(segments(tmp_path)[0], segments(tmp_path)[0].stat().st_size - 1)
    assert subjects(tmp_path) == ["box-a", "box-b"]
    note(opened(tmp_path), "c")
    assert [(one.seq, one.subject) for one in entries(tmp_path)] == [(1, "box-a"), (2, "box-b"), (3, "box-c")]


@pytest.mark.parametrize(
    "garbage", [b"\0" * 5000, b"{}\n" * 10, b'{"seq": "x"}\n', b"\xff\xfe\n\n", b"[" * 100_000 + b"\n"]
)
def test_what_is_none_of_ours_is_passed_over(tmp_path: Path, garbage: bytes) -> None:
    note(opened(tmp_path), "a")
    with segments(tmp_path)[0].open("ab") as file:
        file.write(garbage)
    note(opened(tmp_path), "b")
    note(opened(tmp_path, NEXT_BOOT), "c")
    assert [name for name in subjects(tmp_path) if name != "journal"] == ["box-a", "box-b", "box-c"]
    assert_ordered(tmp_path)


@pytest.mark.parametrize("damaged", ["box-a", "box-c"])
def test_a_byte_that_was_damaged_hides_its_entry_alone(tmp_path: Path, damaged: str) -> None:
    note(opened(tmp_path), "a", "b", "c")
    lines = segments(tmp_path)[0].read_bytes()
    segments(tmp_path)[0].write_bytes(lines.replace(damaged.encode(), b"box-\xff"))
    note(opened(tmp_path), "d")
    assert set(subjects(tmp_path)) - {"journal"} == {"box-a", "box-b", "box-c", "box-d"} - {damaged}
    assert_ordered(tmp_path)


@pytest.mark.timeout(60)
def test_a_number_that_was_damaged_hides_nothing_and_holds_up_nobody(tmp_path: Path) -> None:
    note(opened(tmp_path), "a", "b", "c")
    lines = segments(tmp_path)[0].read_bytes()
    segments(tmp_path)[0].write_bytes(lines.replace(b'"seq":2', b'"seq":99999999999999999'))
    note(opened(tmp_path), "d", "e")
    assert subjects(tmp_path) == ["box-a", "box-c", "box-d", "box-e"]
    assert_ordered(tmp_path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("left", range(4))
def test_losses_are_said_at_the_end_of_a_segment_too(tmp_path: Path, left: int) -> None:
    (tmp_path / "events").mkdir()
    last = msgspec.json.encode(Entry(seq=SPAN - left, time=1.0, kind="start-container", subject="last", text=""))
    (tmp_path / "events" / f"00000000-{BOOT}.ndjson").write_bytes(last + b'\n{"seq":')
    one = opened(tmp_path)
    one._lost = 3
    note(one, "a", "b")
    assert [name for name in subjects(tmp_path) if name != "journal"] == ["last", "box-a", "box-b"]
    assert "3 entries could not be written, and are lost" in [entry.text for entry in entries(tmp_path)]
    assert_ordered(tmp_path)


def test_a_directory_that_somebody_has_removed_is_made_again_and_numbers_go_on(tmp_path: Path) -> None:
    one = opened(tmp_path)
    note(one, "a", "b")
    for path in segments(tmp_path):
        path.unlink()
    (tmp_path / "events").rmdir()
    note(one, "c", "d")
    assert subjects(tmp_path) == ["box-c", "box-d"]
    assert entries(tmp_path)[0].seq > 2


def test_entries_of_a_newer_agent_are_read_as_far_as_they_are_understood(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    line = b'{"seq": 1, "time": 2.0, "kind": "dream", "subject": "sheep", "text": "counted sheep", "colour": "white"}\n'
    (tmp_path / "events" / f"00000000-{BOOT}.ndjson").write_bytes(line)
    note(opened(tmp_path), "a")
    assert subjects(tmp_path) == ["sheep", "box-a"]


# disks and descriptors


def test_a_full_disk_stops_nothing_and_all_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    """The kernel writes a part of a line before it says that there is no room."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    one = opened(tmp_path)
    note(one, "a")
    size = segments(tmp_path)[0].stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limit[1]))
    try:
        note(one, "b", "c")
        assert why_it_waits(one)
        assert segments(tmp_path)[0].stat().st_size == size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    one.tick()
    assert not why_it_waits(one)
    assert subjects(tmp_path) == ["box-a", "box-b", "box-c"]


def test_no_descriptor_left_is_a_problem_until_there_is_one(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    one = opened(tmp_path)
    with Path("/dev/null").open() as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno(), limit[1]))
        try:
            note(one, "a")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert "Too many open files" in why_it_waits(one)
    one.tick()
    assert (why_it_waits(one), subjects(tmp_path)) == ("", ["box-a"])


def test_a_segment_that_cannot_be_read_takes_no_descriptor_with_every_entry(tmp_path: Path) -> None:
    """As on a broken disk: it can be opened."""
    one = opened(tmp_path)
    (tmp_path / "events").mkdir()
    os.mkfifo(tmp_path / "events" / f"00000000-{BOOT}.ndjson")
    before = len(list(Path("/proc/self/fd").iterdir()))
    note(one, *range(10))
    assert why_it_waits(one)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_finds_no_room_for_too_long_is_counted_and_said(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("in the way")
    one = opened(tmp_path)
    note(one, *range(journal.MOST_WAITING + 44))
    (tmp_path / "events").unlink()
    one.tick()
    first, *others = entries(tmp_path)
    assert (first.kind, first.text) == (Kind.ENTRIES_LOST, "44 entries could not be written, and are lost")
    assert len(others) == journal.MOST_WAITING


# kills and power cuts

WRITER = """
import os, sys
from pathlib import Path
from dom0.agent.journal import Journal
one = Journal(Path(sys.argv[1]), now=lambda: 1.0, boot="aaaaaaaa")
for name in "abc":
    one.note("start-container", f"box-{name}", "start", "created")
    os.write(1, name.encode())
"""


@pytest.mark.parametrize("call", ["write", "flock", "?mkdir,?mkdirat"])
def test_a_kill_at_any_call_loses_nothing_that_was_noted(tmp_path: Path, call: str) -> None:
    """The kernel kills the writer at its `call` number `at`; strace(1) counts each system call for itself."""
    for at in range(1, 20):
        state = tmp_path / str(at)
        kill = [f"-etrace={call}", f"-einject={call}:signal=KILL:when={at}"]
        argv = ["strace", "-qqq", "-o", "/dev/null", *kill, sys.executable, "-B", "-c", WRITER, str(state)]
        noted = subprocess.run(argv, stdout=subprocess.PIPE, check=False).stdout.decode()
        note(opened(state), "later")
        found = subjects(state)
        assert found[:-1] in ([f"box-{name}" for name in noted], [f"box-{name}" for name in "abc"[: len(noted) + 1]])
        assert found[-1] == "box-later"
        assert [one.seq for one in entries(state)] == list(range(1, len(found) + 1))
        if noted == "abc":
            break
    assert noted == "abc"
    assert at > 1


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("asked", [0, 1, 20])
def test_a_power_cut_makes_no_number_that_was_told_another_entrys(kind: Literal["ext4", "xfs"], asked: int) -> None:
    require(loop.missing(), "tests that cut the power of a disk")
    with Disk(kind) as disk:
        before = opened(disk.path)
        told: list[Entry] = []
        for number in range(20):
            note(before, number)
            if asked and number % (20 // asked) == 0:
                told += before.read(told[-1].seq if told else 0, 1000)
        disk.cut()
        note(before, "lost")
        before._forget_files()
        disk.start()
        after = opened(disk.path, NEXT_BOOT)
        note(after, "later")
        last = told[-1].seq if told else 0
        assert "box-later" in [one.subject for one in after.read(last, 1000)]
        kept = {one.seq: one for one in entries(disk.path)}
        assert all(kept.get(one.seq, one) == one for one in told)
        assert_ordered(disk.path)


def test_events_are_counted_by_kind_and_each_kind_begins_with_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path, now=lambda: 1000.0, boot="0" * 8)
    assert set(journal.noted.values()) == {0}
    for _ in range(20):  # of which not all are written
        journal.note(Kind.CONTAINER_EXITED, "web", "web exited")
    journal.note("start-container", "web", "start")
    assert (journal.noted["container-exited"], journal.noted["start-container"], journal.noted["login"]) == (20, 1, 0)
