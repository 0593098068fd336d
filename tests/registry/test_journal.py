"""Journals as they are written, and as they come from a disk that keeps nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dom0.registry import journal
from dom0.registry.journal import CHUNK, JournalHead

HEAD = JournalHead(bytes(range(16)), bytes(range(32)), 5 * CHUNK + 1, 2 * CHUNK)
CRCS = st.lists(st.integers(0, 2**32 - 1), max_size=5)


@given(CRCS)
def test_what_is_written_is_read(crcs: list[int]) -> None:
    assert journal.decode(journal.encode(HEAD, crcs)) == (HEAD, crcs)


@given(CRCS, st.integers(0, 2**32 - 1))
def test_a_chunk_more_is_written_behind_the_others(crcs: list[int], crc: int) -> None:
    entry, at = journal.entry(len(crcs), crc)
    before = journal.encode(HEAD, crcs)
    assert len(before) == at
    assert journal.decode(before + entry) == (HEAD, [*crcs, crc])


def test_the_longest_has_one_crc_for_each_whole_chunk() -> None:
    assert journal.longest(HEAD) == len(journal.encode(HEAD, [0, 0, 0]))


@given(CRCS, st.integers(0, journal.FIRST * 8 - 1))
def test_a_head_with_another_bit_is_none(crcs: list[int], bit: int) -> None:
    data = bytearray(journal.encode(HEAD, crcs))
    data[bit // 8] ^= 1 << bit % 8
    assert journal.decode(bytes(data)) is None


@given(st.binary(max_size=200))
def test_anything_else_is_none(data: bytes) -> None:
    assert journal.decode(data) is None


@given(CRCS, st.integers(1, 7))
def test_half_a_crc_is_no_crc(crcs: list[int], length: int) -> None:
    assert journal.decode(journal.encode(HEAD, crcs) + b"\xff" * length) == (HEAD, crcs)


@given(CRCS, st.integers(0, 4))
def test_a_crc_that_did_not_reach_the_disk_is_none(crcs: list[int], number: int) -> None:
    entry, at = journal.entry(number, 7)
    data = bytearray(journal.encode(HEAD, [*crcs, *[1] * 5]))
    data[at : at + len(entry)] = bytes(8)
    decoded = journal.decode(bytes(data))
    assert decoded is not None
    assert decoded[1][number] is None


def test_a_crc_of_another_chunk_is_none() -> None:
    first, second = (journal.entry(number, 7)[0] for number in (0, 1))
    decoded = journal.decode(journal.encode(HEAD, []) + second + first)
    assert decoded == (HEAD, [None, None])
