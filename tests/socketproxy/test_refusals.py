"""The file of what was refused: bounded, whatever a client sends, and read while it grows."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from dom0.socketproxy import refusals
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusals import FILE, FULL, LONGEST, Reader, Refusals, RefusedRequest


def refusal(message: str, at: float = 1.0) -> RefusedRequest:
    grant = Grants(ports=("80/tcp",))
    return RefusedRequest(
        at=at, method="POST", path="/containers/create", message=message, field="F", value="1", grant=grant
    )


async def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    written = Refusals(tmp_path)
    written.note(refusal("one"))
    assert refusals.read(tmp_path) == [refusal("one")]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


async def test_a_client_forges_no_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    forged = "Labels.x\n2026-01-01 /guest: refused: \x1b[2Jnothing\u202e\u2028"
    written = Refusals(tmp_path)
    written.note(RefusedRequest(at=1.0, method="POST", path=f"/{forged}", message=forged, field=forged, value=forged))
    (found,) = refusals.read(tmp_path)
    for text in (found.path, found.message, found.field, found.value, caplog.records[0].getMessage()):
        assert text.isprintable(), text
    assert found.field == r"Labels.x\n2026-01-01 /guest: refused: \x1b[2Jnothing\u202e\u2028"


def test_what_an_older_server_has_written_is_read_on_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(msgspec.json.encode(refusal("one\n\x1b[2Jother")) + b"\n")
    assert [one.message for one in refusals.read(tmp_path)] == [r"one\n\x1b[2Jother"]


async def test_equal_ones_in_a_row_are_counted(tmp_path: Path) -> None:
    written = Refusals(tmp_path)
    for at in range(1000):
        written.note(refusal("again", at))
    written.note(refusal("other", 1001))
    written.note(refusal("again", 1002))
    written.note(refusal("again", 1003))
    written.close()
    assert [(one.message, one.at, one.times) for one in refusals.read(tmp_path)] == [
        ("again", 0, 1),
        ("again", 999, 999),
        ("other", 1001, 1),
        ("again", 1002, 1),
        ("again", 1003, 1),
    ]


async def test_counted_ones_are_written_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "COUNTED_FOR", 0.0)
    written = Refusals(tmp_path)
    for _ in range(3):
        written.note(refusal("again"))
    async with asyncio.timeout(60):
        while [one.times for one in refusals.read(tmp_path)] != [1, 2]:  # noqa: ASYNC110 -- a file tells nobody
            await asyncio.sleep(0.01)


async def test_no_client_fills_the_disk(tmp_path: Path) -> None:
    written = Refusals(tmp_path)
    for number in range(8000):
        written.note(refusal(f"{number} {'x' * 10_000}"))
    assert (tmp_path / FILE).stat().st_size + (tmp_path / f"{FILE}.1").stat().st_size <= 2 * FULL
    kept = refusals.read(tmp_path)
    assert len(kept) > 1000
    assert kept[-1].message.startswith("7999 ")
    assert len(kept[-1].message) == LONGEST


async def test_no_client_fills_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    written = Refusals(tmp_path)
    for _ in range(20):
        written.note(refusal("x" * 900_000))
    written.close()
    assert [len(record.message) <= LONGEST + 100 for record in caplog.records] == [True]


async def test_a_reader_follows_while_the_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "FULL", 1000)
    written = Refusals(tmp_path)
    with closing(Reader(tmp_path)) as reader:
        assert reader.read() == []
        for number in range(20):
            written.note(refusal(str(number)))
            assert [one.message for one in reader.read()] == [str(number)]
    assert (tmp_path / f"{FILE}.1").exists()


async def test_a_line_that_is_not_understood_is_left_out(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"at": 1}\n\xff\n{"message": "\xff"}\n')
    Refusals(tmp_path).note(refusal("one"))
    assert [one.message for one in refusals.read(tmp_path)] == ["one"]


async def test_without_a_place_to_write_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written = Refusals(tmp_path / "none")
    written.note(refusal("one"))
    written.note(refusal("other"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
