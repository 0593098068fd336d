"""How much layers become when they are unpacked, while they come and before anybody unpacks them.

What is packed by gzip has to be unpacked to know, up to 1032 bytes of each of its own: that is done only until what has
not been looked at cannot become too much any more. The heads of zstd's blocks say what each becomes at most: at most
what is right for every encoder. As Engines do, what it is packed by is read from its first bytes.

Sources: RFC 1952 and zlib's `zlib_tech.html` (the factor); RFC 8878, 3.1.1.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Protocol

from dom0.registry.manifest import Descriptor

MOST_BY_GZIP = 1032
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}  # which the Engine reads too, whatever the manifest says
_LONGEST = 6  # bytes of these
_SKIPPED = range(0x184D2A50, 0x184D2A60)  # magic numbers of frames without content
_BLOCK = 128 << 10  # bytes that a block of zstd becomes at most
_PIECE = 256 << 10


class TooMuch(OSError):
    """That layer; `why` in words."""

    def __init__(self, layer: Descriptor, why: str) -> None:
        super().__init__(f"layer {layer.digest}: {why}")


class Room:
    """`most` bytes for what `layers` become together. Once `stop` is set, nobody asks any more."""

    def __init__(self, most: int, layers: Iterable[Descriptor], stop: threading.Event) -> None:
        self.most = most
        self.stop = stop
        self._became: dict[str, int] = {}  # by digest: bytes so far
        self._may_become = {layer.digest: MOST_BY_GZIP * layer.size for layer in layers}  # at most, with the rest
        self._lock = threading.Lock()

    @property
    def is_certain(self) -> bool:
        """Whether there is room for all of them, whatever is still to be looked at."""
        with self._lock:
            return sum(self._may_become.values()) <= self.most

    def count(self, layer: Descriptor) -> Count:
        """From its beginning. What was counted of it before does not count."""
        with self._lock:
            self._became[layer.digest] = 0
            self._may_become[layer.digest] = MOST_BY_GZIP * layer.size
        return Count(layer, self)

    def take(self, layer: Descriptor, packed: int, became: int) -> bool:
        """Whether there is room for what `packed` bytes more of it became."""
        with self._lock:
            self._became[layer.digest] += became
            self._may_become[layer.digest] += became - MOST_BY_GZIP * packed
            return sum(self._became.values()) <= self.most


class Count:
    """Of one layer, whose pieces are added as they come, in any thread.

    Raises TooMuch where there is no room for it, or it is packed as no image is.
    """

    def __init__(self, layer: Descriptor, room: Room) -> None:
        self._layer = layer
        self._room = room
        self._head = b""
        self._packed: _Packed | None = None

    def add(self, data: bytes) -> None:
        if self._packed is None:
            self._head += data
            if len(self._head) < min(_LONGEST, self._layer.size):
                return
            self._packed, data = self._packed_by(self._head), self._head
        try:
            for packed, became in self._packed.take(data):
                if self._room.stop.is_set():
                    return
                if not self._room.take(self._layer, packed, became):
                    more = f"more than {self._room.most >> 20} MiB when it is unpacked"
                    raise TooMuch(self._layer, f"with it the image becomes {more}")
        except _NotPacked as error:
            raise TooMuch(self._layer, f"is not packed by {error}") from error

    def end(self) -> None:
        """All of it was added."""
        if isinstance(self._packed, _Zstd) and not self._packed.is_over:
            raise TooMuch(self._layer, "is not packed by zstd")

    def _packed_by(self, head: bytes) -> _Packed:
        if head.startswith(_GZIP):
            return _Gzip(self._room)
        if other := next((name for magic, name in _OTHERS.items() if head.startswith(magic)), ""):
            raise TooMuch(self._layer, f"is packed by {other}, as no image is")
        is_zstd = head.startswith(_ZSTD) or int.from_bytes(head[:4], "little") in _SKIPPED
        return _Zstd() if is_zstd else _Unpacked()


class _NotPacked(Exception):
    """By what it says it is."""


class _Packed(Protocol):
    def take(self, data: bytes, /) -> Iterator[tuple[int, int]]:
        """How many bytes of it become how many, little by little. Raises _NotPacked."""


class _Unpacked:
    def take(self, data: bytes, /) -> Iterator[tuple[int, int]]:
        yield len(data), len(data)


class _Gzip:
    def __init__(self, room: Room) -> None:
        self._room = room
        self._member = zlib.decompressobj(31)
        self._head = b""  # of the next member, as far as it has come
        self._is_over = False

    def take(self, data: bytes, /) -> Iterator[tuple[int, int]]:
        data = self._head + data
        self._head = b""
        while data and not self._is_over:
            if self._room.is_certain:
                self._is_over = True
            elif not self._member.eof:
                try:
                    became = len(self._member.decompress(data, _PIECE))
                except zlib.error as error:
                    raise _NotPacked(f"gzip: {error}") from error
                rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                yield len(data) - len(rest), became
                data = rest
            elif len(data) < len(_GZIP):
                self._head = data
                break
            else:
                self._is_over = not data.startswith(_GZIP)  # padding, at which Engines end as well
                self._member = zlib.decompressobj(31)


class _Zstd:
    def __init__(self) -> None:
        self._is_between = True  # two frames
        self._ahead = bytearray()
        self._skipped = 0  # bytes that nobody reads
        self._became = 0  # of what was read last
        self._frames = self._read_frames()
        self._wanted = next(self._frames)

    @property
    def is_over(self) -> bool:
        """Whether nothing more has to come."""
        return self._is_between and not self._skipped and not self._ahead

    def take(self, data: bytes, /) -> Iterator[tuple[int, int]]:
        yield len(data), 0
        self._ahead += data
        while True:
            skipped = min(self._skipped, len(self._ahead))
            del self._ahead[:skipped]
            self._skipped -= skipped
            if self._skipped or len(self._ahead) < self._wanted:
                return
            piece = bytes(self._ahead[: self._wanted])
            del self._ahead[: self._wanted]
            self._is_between, self._became = False, 0
            self._wanted = self._frames.send(piece)
            yield 0, self._became

    def _read_frames(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants next."""
        while True:
            self._is_between = True
            magic = yield 4
            number = int.from_bytes(magic, "little")
            if number in _SKIPPED:
                self._skipped = int.from_bytes((yield 4), "little")
                continue
            if magic != _ZSTD:
                raise _NotPacked("zstd")
            flags = int.from_bytes((yield 1), "little")
            is_single = flags >> 5 & 1
            self._skipped = (is_single, 2, 4, 8)[flags >> 6] + (0, 1, 2, 4)[flags & 3] + (1 - is_single)
            is_last = False
            while not is_last:
                block = int.from_bytes((yield 3), "little")
                is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
                self._became = _BLOCK if kind == 2 else size
                self._skipped = 1 if kind == 1 else size
            self._skipped += 4 * (flags >> 2 & 1)
