"""Messages of the kernel's netlink sockets: written, and what they are acknowledged with. No sockets here."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# <linux/netlink.h>
NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_REQUEST_ACK = 0x1 | 0x4
_ERROR = 2


def message(kind: int, body: bytes, number: int = 0, flags: int = 0) -> bytes:
    """To be acknowledged with `number`."""
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_ACK | flags, number, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(_padded(length) - length)


def acknowledgements(received: bytes) -> Iterator[tuple[int, int]]:
    """The number of each message and its error code; 0: none."""
    while received:
        length, kind, _, number, _ = _HEADER.unpack_from(received)
        yield number, -struct.unpack_from("=i", received, _HEADER.size)[0] if kind == _ERROR else 0
        received = received[_padded(length) :]


def _padded(length: int) -> int:
    return (length + 3) & ~3
