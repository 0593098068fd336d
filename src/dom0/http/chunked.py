"""A message in chunks (RFC 9112, 7.1), as it is received: bytes in, content out, whatever pieces they come in.

It takes what h11 takes, or less, and costs a tenth: h11 makes an event and three copies of each chunk, and Docker's
clients send 32 kB in one. Here it is none. Extensions and trailers are read and left out. What is kept is a line
that has not ended.
"""

from __future__ import annotations

import re

SHORT = 32  # bytes, longer than almost any line
LONGEST_LINE = 16 << 10  # bytes, of a size with its extensions
LONGEST_TRAILER = 16 << 10  # bytes, of all its lines
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?[ \t]*")
_FIELD = re.compile(rb"(?!(?i:content-length|transfer-encoding):)[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Chunks:
    """`begun` came with the head. `feed` it until it `has_ended`; `rest` is what came behind the end."""

    def __init__(self, begun: bytes) -> None:
        self.has_ended = False
        self.rest = begun  # until the end: what is not read, then a line that is not whole
        self._left = 0  # bytes of the present chunk that are still to come
        self._ends_chunk = False  # the next line, which is empty
        self._trailer = -1  # bytes of its lines, when it has begun

    def feed(self, data: bytes | memoryview) -> list[memoryview]:
        """The content in `data`, part by part. Raises ValueError for what is not in chunks; then it is fed no more."""
        view = memoryview(self.rest + data if self.rest else data)
        at, content = 0, list[memoryview]()
        while not self.has_ended:
            if self._left:
                if at == len(view):
                    break
                content.append(view[at : at + self._left])
                at += len(content[-1])
                self._left -= len(content[-1])
                continue
            line, found, _ = bytes(view[at : at + SHORT]).partition(b"\r\n")
            if not found:
                line, found, _ = bytes(view[at : at + LONGEST_LINE]).partition(b"\r\n")
            if not found:
                if len(line) >= LONGEST_LINE or (self._ends_chunk and line not in (b"", b"\r")):
                    raise ValueError("a line of a message in chunks does not end")
                break
            self._take_line(line)
            at += len(line) + 2
        self.rest = bytes(view[at:])
        return content

    def _take_line(self, line: bytes) -> None:
        if self._trailer >= 0:
            self._trailer += len(line)
            self.has_ended = not line
            if line and (self._trailer > LONGEST_TRAILER or not _FIELD.fullmatch(line)):
                raise ValueError("a trailer that is none, or too long")
        elif self._ends_chunk:
            self._ends_chunk = False
            if line:
                raise ValueError("a chunk is longer than it says")
        else:
            found = _SIZE.fullmatch(line)
            if not found:
                raise ValueError(f"a chunk of the size {line[:40]!r}")
            self._left = int(found[1], 16)
            self._ends_chunk = self._left > 0
            self._trailer = -1 if self._left else 0
