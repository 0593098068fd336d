"""What a part of a blob that is being fetched says of itself, as bytes. Hostile until parsed: no I/O."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import msgspec

CHUNK = 1 << 20  # bytes of the blob that have one CRC
_MAGIC = b"dom0part"
_HEAD = struct.Struct("<8s16s32sQQ")
_CRC = struct.Struct("<I")
_ENTRY = struct.Struct("<II")  # CRC of a chunk, and of that and the number of the chunk
FIRST = _HEAD.size + _CRC.size  # byte where the entries of chunks begin


class JournalHead(msgspec.Struct, frozen=True):
    """Of which boot a part is (16 bytes), of which blob (32 bytes of sha256; its size in bytes), where it begins."""

    boot: bytes
    sha256: bytes
    size: int
    start: int


def longest(head: JournalHead) -> int:
    """Bytes that the journal of such a part may have."""
    return FIRST + _ENTRY.size * ((head.size - head.start) // CHUNK)


def encode(head: JournalHead, crcs: Iterable[int]) -> bytes:
    packed = _HEAD.pack(_MAGIC, head.boot, head.sha256, head.size, head.start)
    return b"".join((packed, _CRC.pack(zlib.crc32(packed)), *(entry(*each)[0] for each in enumerate(crcs))))


def entry(number: int, crc: int) -> tuple[bytes, int]:
    """What says the CRC of chunk `number` of the part, and at which byte of the journal it is written."""
    return _ENTRY.pack(crc, zlib.crc32(struct.pack("<QI", number, crc))), FIRST + number * _ENTRY.size


def decode(data: bytes) -> tuple[JournalHead, list[int | None]] | None:
    """There may be too few CRCs or too many. None: it is no journal of ours, or no CRC.

    ext4 can keep the length of a file that grew by a CRC, and not the CRC: zeros are read then.
    """
    packed, rest = data[: _HEAD.size], data[FIRST:]
    if len(data) < FIRST or data[_HEAD.size : FIRST] != _CRC.pack(zlib.crc32(packed)):
        return None
    magic, boot, sha256, size, start = _HEAD.unpack(packed)
    if magic != _MAGIC:
        return None
    found = _ENTRY.iter_unpack(rest[: len(rest) // _ENTRY.size * _ENTRY.size])
    crcs = (
        crc if entry(number, crc)[0] == _ENTRY.pack(crc, check) else None for number, (crc, check) in enumerate(found)
    )
    return JournalHead(boot, sha256, size, start), list(crcs)
