"""The boot record as a file: strict about what is a line, unmoved by what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.host.boot_record import LONGEST_TEXT, Mark, append, line, parse, read, read_all


def stages(content: bytes) -> list[str]:
    return [mark.stage for mark in parse(content)[0]]


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_line_is_seconds_stage_and_text() -> None:
    marks, unreadable = parse(b"-4.31\tfirmware\tACPI FPDT\n1.9\tkernel\n12.25\tservice:dom0-sshd\t\n")
    assert unreadable == 0
    assert marks == (
        Mark(at=-4.31, stage="firmware", text="ACPI FPDT"),
        Mark(at=1.9, stage="kernel"),
        Mark(at=12.25, stage="service:dom0-sshd"),
    )


def test_marks_come_in_the_order_of_their_times_whoever_wrote_first() -> None:
    assert stages(b"9.00\tservice:redis\t\n8.00\tdom0\t\n") == ["dom0", "service:redis"]


def test_a_last_line_without_an_end_does_not_count() -> None:
    assert parse(b"1.00\tkernel\t\n2.00\tservice:red") == ((Mark(at=1.0, stage="kernel"),), 0)
    assert parse(b"2.00\tkernel") == ((), 0)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"kernel\t1.00\t",
        b"1.00 kernel",
        b"1e3\tkernel\t",
        b"nan\tkernel\t",
        b"+1.00\tkernel\t",
        b"\xd9\xa1.0\tkernel\t",  # an Arabic digit
        b"99999999999\tkernel\t",
        b"-1.00\tkernel\t",
        b"1.00\tKernel\t",
        b"1.00\tservice:\t",
        b"1.00\tservice:../x\t",
        b"1.00\tservice:a b\t",
        b"1.00\t\xff\t",
        b"1.00\t" + b"k" * 500 + b"\t",
    ],
)
def test_what_is_no_line_is_counted_and_hides_no_other(text: bytes) -> None:
    assert parse(b"1.00\tkernel\t\n" + text + b"\n2.00\tinit\t\n") == (
        (Mark(at=1.0, stage="kernel"), Mark(at=2.0, stage="init")),
        1,
    )


def test_a_long_text_is_cut() -> None:
    marks, _ = parse(b"1.00\tkernel\t" + b"x" * 10_000 + b"\n")
    assert len(marks[0].text) == LONGEST_TEXT


@given(st.binary(max_size=300))
def test_any_content_is_read(content: bytes) -> None:
    marks, unreadable = parse(content)
    assert len(marks) + unreadable <= content.count(b"\n") + 1


@given(st.text(max_size=300), st.floats(0, 9e6))
def test_a_written_line_is_one_line_and_read_as_it_was_meant(text: str, at: float) -> None:
    written = line(Mark(at=at, stage="engine", text=text))
    assert written.count("\n") == 1
    marks, unreadable = parse(written.encode(errors="replace"))
    assert (len(marks), unreadable) == (1, 0)
    assert abs(marks[0].at - at) <= 0.01


def test_a_cut_off_line_does_not_become_a_whole_one_by_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "boot.record", b"1.00\tkernel\t\n2.00\tservice:web")  # of service:web-2
    append(path, [Mark(at=3.0, stage="ready")])
    assert stages(path.read_bytes()) == ["kernel", "ready"]


def test_a_record_is_added_to_and_never_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "boot.record", [Mark(at=3.0, stage="ready")])
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_a_plain_file_is_a_record(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read(tmp_path / "pipe") is None
    assert read(tmp_path / "nothing") is None
    (tmp_path / "link").symlink_to(write(tmp_path / "file", b"1.00\tkernel\t\n"))
    assert read(tmp_path / "link") is None
    assert read(tmp_path) is None


def test_the_running_boot_takes_the_place_and_number_of_its_copy(tmp_path: Path) -> None:
    write(tmp_path / "state/boot/0006.record", b"1.10\tkernel\t\n2.00\tready\t\n")
    write(tmp_path / "state/boot/0007.record", b"1.20\tkernel\t\n")
    write(tmp_path / "run/boot.record", b"1.20\tkernel\t\n2.20\tinit\t\n")
    records = read_all(tmp_path / "run", tmp_path / "state")
    assert [(record.number, record.running, len(record.marks)) for record in records] == [(6, False, 2), (7, True, 2)]


def test_a_running_boot_that_was_not_copied_yet_is_the_next_one(tmp_path: Path) -> None:
    write(tmp_path / "state/boot/0006.record", b"1.10\tkernel\t\n")
    write(tmp_path / "run/boot.record", b"1.20\tkernel\t\n")
    assert [record.number for record in read_all(tmp_path / "run", tmp_path / "state")] == [6, 7]


def test_a_login_sees_the_copies_beside_the_running_record(tmp_path: Path) -> None:
    write(tmp_path / "run/boot/0006.record", b"1.10\tkernel\t\n")
    write(tmp_path / "run/boot/0007.record", b"1.20\tkernel\t\n")
    write(tmp_path / "run/boot.record", b"1.20\tkernel\t\n2.20\tinit\t\n")
    records = read_all(tmp_path / "run", tmp_path / "state")
    assert [(record.number, record.running) for record in records] == [(6, False), (7, True)]


def test_copies_are_told_by_their_names(tmp_path: Path) -> None:
    for name in ("0010.record", "0009.record", ".0011.record.new", "x.record", "12.record", "0013.record.bak"):
        write(tmp_path / "state/boot" / name, b"1.10\tkernel\t\n")
    write(tmp_path / "state/boot/0014.record", b"no record\n")
    assert [record.number for record in read_all(tmp_path / "run", tmp_path / "state")] == [9, 10]


def test_without_any_record_there_is_none(tmp_path: Path) -> None:
    assert read_all(tmp_path / "run", tmp_path / "state") == ()
