"""Framing of the Engine's streams, without I/O: bytes in, lines or frames out. Memory stays bounded whatever comes."""

from __future__ import annotations

from collections.abc import Iterator


class Malformed(ValueError):
    """The stream is not what the API says it is."""


class LineSplitter:
    """Splits at newlines; a line longer than `limit` bytes is Malformed, or counted and left out."""

    def __init__(self, limit: int, *, skips_long: bool = False) -> None:
        self.left_out = 0
        self._limit = limit
        self._skips_long = skips_long
        self._rest = bytearray()
        self._is_long = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each line that `data` completed, without its end; empty lines are left out."""
        first, *others = data.split(b"\n")
        self._add(first)
        lines = []
        for part in others:
            lines.append(bytes(self._rest))
            self._rest.clear()
            self._is_long = False
            self._add(part)
        yield from (line for line in lines if line.strip())

    def _add(self, part: bytes) -> None:
        self._rest += b"" if self._is_long else part
        if len(self._rest) > self._limit:
            if not self._skips_long:
                raise Malformed(f"a line is longer than {self._limit} bytes")
            self._is_long = True
            self._rest.clear()
            self.left_out += 1

    def rest(self) -> bytes:
        """What came after the last newline."""
        return bytes(self._rest).strip()


class Demultiplexer:
    """Takes the 8-byte headers out of a stream of output and error: stream (0 to 2), 0, 0, 0, length (big endian).

    Source: Docker Engine API, `POST /containers/{id}/attach`, "Stream format".
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0  # bytes of the present frame still to come

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payload in `data`, piece by piece. Raises Malformed."""
        view = memoryview(data)
        while view:
            if self._left:
                piece = view[: self._left]
                self._left -= len(piece)
                view = view[len(piece) :]
                yield bytes(piece)
                continue
            take = 8 - len(self._header)
            self._header += view[:take]
            view = view[take:]
            if len(self._header) == 8:
                if self._header[0] > 2 or self._header[1:4] != b"\0\0\0":
                    raise Malformed(f"a frame starts with {self._header.hex()}")
                self._left = int.from_bytes(self._header[4:], "big")
                self._header.clear()


class Tail:
    """Keeps the last `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * self._limit:  # not at every call: moving bytes costs
            del self._kept[: -self._limit]

    def text(self) -> str:
        return self._kept[-self._limit :].decode(errors="replace")
