"""What a part of a blob that is being fetched says of itself, as bytes. Hostile until parsed: no I/O."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

CHUNK = 1 << 20  # bytes of the blob that have one CRC
_MAGIC = b"dom0part"
_HEAD = struct.Struct("<8s16s32sQQ")
_CRC = struct.Struct("<I")
FIRST = _HEAD.size + _CRC.size  # byte where the CRCs of chunks begin


class Head(msgspec.Struct, frozen=True):
    """Of which boot a part is (16 bytes), of which blob (32 bytes of sha256; its size in bytes), where it begins."""

    boot: bytes
    sha256: bytes
    size: int
    start: int


def longest(head: Head) -> int:
    """Bytes that the journal of such a part may have."""
    return FIRST + _CRC.size * ((head.size - head.start) // CHUNK)


def encode(head: Head, crcs: Sequence[int]) -> bytes:
    packed = _HEAD.pack(_MAGIC, head.boot, head.sha256, head.size, head.start)
    return b"".join((packed, _CRC.pack(zlib.crc32(packed)), *map(_CRC.pack, crcs)))


def entry(number: int, crc: int) -> tuple[bytes, int]:
    """The CRC of chunk `number` of the part, and at which byte of the journal it is written."""
    return _CRC.pack(crc), FIRST + number * _CRC.size


def decode(data: bytes) -> tuple[Head, list[int]] | None:
    """The CRCs may be wrong, too few or too many. None: it is no journal of ours."""
    packed, rest = data[: _HEAD.size], data[FIRST:]
    if len(data) < FIRST or data[_HEAD.size : FIRST] != _CRC.pack(zlib.crc32(packed)):
        return None
    magic, boot, sha256, size, start = _HEAD.unpack(packed)
    if magic != _MAGIC:
        return None
    whole = len(rest) // _CRC.size * _CRC.size
    return Head(boot, sha256, size, start), [crc for (crc,) in _CRC.iter_unpack(rest[:whole])]
