"""The state file: whole or not at all, and believed only where it can be true."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.ambassador.messages import Receipt
from dom0.ambassador.sources import Fixed, Followed, Named
from dom0.ambassador.state import StateDamaged, StateFile, Stored, Undoable
from dom0.forward.drain import Drain
from dom0.forward.table import Down, Listener, Protocol, Route, Target, table

REDIS = Listener(Protocol.TCP, 6379)
A, B = Target("10.0.0.1", 6379), Target("2001:db8::1", 6379, 3)
RECEIPT = Receipt(
    number=4,
    at=1.8e9,
    cause="rewire",
    listeners=("6379/tcp",),
    generations=(7,),
    before=(str(A),),
    after=(str(B),),
    existing="drain=30s",
    udp="move",
    switch_ms=1.5,
    kept=3,
    draining=1.8e9 + 30,
)
EVERYTHING = Stored(
    digest="d" * 64,
    generation=7,
    receipt=4,
    revision=9,
    table=table([Route(REDIS, 7, (B,), Down.HOLD)]),
    wishes={"6379/tcp": (Named("redis", 6379), Fixed("2001:db8::1", 6379, 3), Followed("label", "a=b", 1))},
    old={"6379/tcp": (3, 6)},
    addresses={"redis": ("10.0.0.1",), "container:redis": ()},
    identities={"container:redis": "abc"},
    unhealthy=(str(A),),
    drains=(Drain(receipt=4, listener=REDIS, since=0, until=7, spared=(A,), cut_at=130.0, over_at=133.0, left=3),),
    past=(Drain(receipt=3, listener=REDIS, since=0, until=6, over_at=99.0),),
    undo=(Undoable(receipt=4, sources={"6379/tcp": ()}, targets={"6379/tcp": (A,)}, generations={"6379/tcp": 6}),),
    receipts=(RECEIPT,),
    causes={"rewire": 4},
)


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state")


def without_boot(stored: Stored | None) -> Stored:
    assert stored is not None
    return msgspec.structs.replace(stored, boot="")


def test_everything_comes_back_as_it_was_written(file: StateFile) -> None:
    assert file.read() is None
    file.write(EVERYTHING)
    assert without_boot(file.read()) == EVERYTHING
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_after_a_boot_nothing_is_left_of_connections_and_deadlines(file: StateFile) -> None:
    file.write(EVERYTHING)
    file.path.write_text(file.path.read_text().replace('"boot":"', '"boot":"another-'))
    stored = file.read()
    assert stored is not None
    assert (stored.drains, stored.past, stored.old, stored.receipts[0].draining) == ((), (), {}, 0.0)
    assert (stored.generation, stored.table, stored.wishes) == (7, EVERYTHING.table, EVERYTHING.wishes)


def test_what_was_written_halfway_is_never_seen(file: StateFile) -> None:
    file.write(EVERYTHING)
    file.path.with_name(".state.json.new").write_text('{"generation": 8, "ta')
    assert without_boot(file.read()) == EVERYTHING
    file.write(Stored(generation=8))
    assert without_boot(file.read()) == Stored(generation=8)


WRONG: dict[str, Any] = {
    "nothing": b"",
    "half of it": msgspec.json.encode(EVERYTHING)[:300],
    "no text": b"\xff\xfe\x00",
    "another shape": b'{"generation": "seven"}',
    "deep nesting": b'{"table":' * 100_000,
    "a key that is not a listener": b'{"wishes": {"redis": []}}',
    "a generation that was never given": msgspec.json.encode(msgspec.structs.replace(EVERYTHING, generation=6)),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_file_that_cannot_be_ours_is_damaged(file: StateFile, content: bytes) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    with pytest.raises(StateDamaged, match="is damaged"):
        file.read()
    assert file.read() is None
    assert file.path.with_name("state.json.damaged").read_bytes() == content


def test_a_disk_that_takes_nothing_is_told_until_it_does(file: StateFile) -> None:
    file.path.parent.write_text("a file in the place of the directory")
    file.write(EVERYTHING)
    assert "cannot be written" in file.error
    file.path.parent.unlink()
    file.write(EVERYTHING)
    assert (file.error, without_boot(file.read())) == ("", EVERYTHING)
