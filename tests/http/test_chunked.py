"""Messages in chunks, beside h11, which is asked what it makes of the same bytes."""

from __future__ import annotations

import itertools
import random

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.http import chunked
from dom0.http.chunked import Chunks

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BEHIND = b"GET /next HTTP/1.1\r\n"
SIZES = st.sampled_from([b"%x", b"%X", b"000%x", b"%x ", b"%x\t", b"%x;a=b", b'%x;a="b c"', b"%x;"])
TRAILERS = st.sampled_from([b"", b"X-Sum: 1\r\n", b"a:\r\nb:  c d \r\n"])
FLAWED = [
    *(b"g\r\n", b"\r\n", b" 1\r\na\r\n", b"-1\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b"1_0\r\n", b"1 a\r\n"),
    *(b"1\r\nab\r\n", b"1\r\na\n", b"1\r\na\r\r\n", b"1\r\na0\r\n\r\n", b"\xd9\xa1\r\na\r\n", b"1;\n\r\na\r\n"),
    *(b"1\na\r\n", b"1 ;a\r\na\r\n", b"1;\r1\r\na\r\n", b"1\r\r\na\r\n"),
    *(b"f" * 21 + b"\r\n", b"1;" + b"a" * chunked.LONGEST_LINE, b"1" * chunked.LONGEST_LINE),
    *(b"0\r\nno field\r\n\r\n", b"0\r\n: a\r\n\r\n", b"0\r\na : b\r\n\r\n", b"0\r\na: \0\r\n\r\n"),
    *(b"0\r\nTransfer-Encoding: gzip\r\n\r\n", b"0\r\ncontent-length: x\r\n\r\n"),
    *(b"0\r\na: " + b"b" * chunked.LONGEST_LINE, b"0\r\n" + b"a: b\r\n" * chunked.LONGEST_TRAILER),
]


def content(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool]:
    """What was in it, what came behind, and whether it has ended. Raises ValueError."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    chunks = Chunks(pieces[0])
    found = b"".join(chunks.feed(b""))
    for piece in pieces[1:]:
        found += b"".join(chunks.feed(memoryview(piece)))
    return found, chunks.rest, chunks.has_ended


def by_h11(data: bytes) -> tuple[bytes, bytes, bool]:
    """The same. Raises h11.RemoteProtocolError."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD + data)
    assert isinstance(connection.next_event(), h11.Request)
    found = b""
    while isinstance(event := connection.next_event(), h11.Data):
        found += event.data
    return found, connection.trailing_data[0], isinstance(event, h11.EndOfMessage)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=300), SIZES), max_size=5),
    TRAILERS,
    st.lists(st.integers(min_value=0), max_size=12),
    st.integers(min_value=0, max_value=60),
)
def test_any_split_gives_what_h11_does(
    parts: list[tuple[bytes, bytes]], trailer: bytes, cuts: list[int], missing: int
) -> None:
    chunks = b"".join(size % len(part) + b"\r\n" + part + b"\r\n" for part, size in parts)
    data = chunks + b"0\r\n" + trailer + b"\r\n" + BEHIND
    assert content(data, cuts) == by_h11(data) == (b"".join(part for part, _ in parts), BEHIND, True)
    cut_off = data[: len(data) - missing]
    found, rest, has_ended = content(cut_off, cuts)
    assert (found, has_ended) == by_h11(cut_off)[::2]
    assert not has_ended or rest == by_h11(cut_off)[1]


@settings(deadline=None, max_examples=500)
@given(st.randoms(use_true_random=False), st.lists(st.integers(min_value=0), max_size=5))
def test_what_it_takes_of_damaged_bytes_h11_takes_too(chance: random.Random, cuts: list[int]) -> None:
    """The other way round it may be stricter: a line ends with both its bytes."""
    data = bytearray(b"3\r\nabc\r\n1f;a=b\r\n" + b"d" * 31 + b"\r\n0\r\na: b\r\n\r\n" + BEHIND)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) - len(BEHIND))
        data[at : at + chance.randint(0, 2)] = bytes(chance.choices(b"\r\n 0123af;:-+x\0\xff", k=chance.randint(0, 2)))
    try:
        found, rest, has_ended = content(bytes(data), cuts)
    except ValueError:
        return
    assert (found, has_ended) == by_h11(bytes(data))[::2]
    assert not has_ended or rest == by_h11(bytes(data))[1]


@pytest.mark.parametrize("data", FLAWED)
def test_what_is_not_in_chunks_is_refused_and_stays_refused(data: bytes) -> None:
    for cuts in ([], list(range(min(len(data), 200)))):
        with pytest.raises(ValueError, match=r"chunk|trailer"):
            content(data, cuts)


def test_a_line_without_an_end_is_not_kept() -> None:
    chunks = Chunks(b"1;")
    for _ in range(chunked.LONGEST_LINE // 1000):
        assert not chunks.feed(b"a" * 1000)
    with pytest.raises(ValueError, match="does not end"):
        chunks.feed(b"a" * 1000)
