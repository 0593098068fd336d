"""Framing: however a stream is cut into pieces, the same comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.engine.frames import Demultiplexer, LineSplitter, Malformed, Tail

cuts = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=20)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` cut at `sizes`, used again and again."""
    found: list[bytes] = []
    while data:
        size = sizes[len(found) % len(sizes)]
        found.append(data[:size])
        data = data[size:]
    return found


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), cuts)
def test_lines_do_not_depend_on_how_they_arrive(lines: list[bytes], sizes: list[int]) -> None:
    splitter = LineSplitter(limit=30)
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    found = [line for piece in pieces(data, sizes) for line in splitter.feed(piece)]
    assert found == [line for line in lines if line.strip()]


@pytest.mark.parametrize("data", [b"x" * 31, b"x" * 31 + b"\n", b"a\n" + b"x" * 31])
def test_a_line_over_the_limit_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(LineSplitter(limit=30).feed(data))


def test_a_line_that_grows_over_the_limit_is_malformed() -> None:
    splitter = LineSplitter(limit=30)
    assert list(splitter.feed(b"x" * 20)) == []
    with pytest.raises(Malformed):
        list(splitter.feed(b"x" * 20))


@given(st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line)), cuts)
def test_lines_over_the_limit_are_left_out_and_counted(lines: list[bytes], sizes: list[int]) -> None:
    splitter = LineSplitter(limit=30, skips_long=True)
    data = b"".join(line + b"\n" for line in lines) + b"rest"
    found = [line for piece in pieces(data, sizes) for line in splitter.feed(piece)]
    assert found == [line for line in lines if line.strip() and len(line) <= 30]
    assert (splitter.left_out, splitter.rest()) == (sum(len(line) > 30 for line in lines), b"rest")


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=50))), cuts)
def test_frames_do_not_depend_on_how_they_arrive(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(bytes([s, 0, 0, 0]) + len(p).to_bytes(4, "big") + p for s, p in frames)
    demultiplexer = Demultiplexer()
    found = b"".join(payload for piece in pieces(data, sizes) for payload in demultiplexer.feed(piece))
    assert found == b"".join(payload for _, payload in frames)


def test_a_frame_is_passed_on_before_it_is_complete() -> None:
    assert list(Demultiplexer().feed(b"\x01\0\0\0\xff\xff\xff\xffbegin")) == [b"begin"]


@given(st.binary(min_size=8, max_size=8).filter(lambda header: header[0] > 2 or header[1:4] != b"\0\0\0"))
def test_what_is_no_header_is_malformed(header: bytes) -> None:
    with pytest.raises(Malformed):
        list(Demultiplexer().feed(header))


@given(st.lists(st.text("ab\n", max_size=20)), st.integers(1, 30))
def test_the_tail_is_the_end(texts: list[str], limit: int) -> None:
    tail = Tail(limit)
    for text in texts:
        tail.add(text.encode())
    assert tail.text() == "".join(texts)[-limit:]
