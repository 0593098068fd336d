"""How much layers become when they are unpacked, before anybody unpacks them. Nothing is written.

What is packed by gzip has to be unpacked to know, up to 1032 bytes of each of its own: that is done only where so much
could not be taken. The heads of zstd's blocks say what each becomes at most: at most what is right for every encoder.
As Engines do, what it is packed by is read from its first bytes.

Sources: RFC 1952 and zlib's `zlib_tech.html` (the factor); RFC 8878, 3.1.1.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable
from typing import IO

from dom0.registry.manifest import Descriptor

MOST_BY_GZIP = 1032
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}  # which the Engine reads too, whatever the manifest says
_SKIPPED = range(0x184D2A50, 0x184D2A60)  # magic numbers of frames without content
_BLOCK = 128 << 10  # bytes that a block of zstd becomes at most
_PIECE = 256 << 10


class TooMuch(OSError):
    """That layer; `why` in words."""

    def __init__(self, layer: Descriptor, why: str) -> None:
        super().__init__(f"layer {layer.digest}: {why}")


class UnpackedLimit:
    """`most` bytes for what all layers together become. Each is taken once, in any order and from any thread."""

    def __init__(self, most: int, opened: Callable[[Descriptor], IO[bytes]], stop: threading.Event) -> None:
        self._most = most
        self._opened = opened
        self._stop = stop
        self._total = 0  # of those that were looked at
        self._packed: list[Descriptor] = []  # by gzip, and not unpacked yet
        self._lock = threading.Lock()

    def take(self, layer: Descriptor) -> None:
        """Raises TooMuch where there is no room for it, or it is packed as no image is; OSError.

        Returns at once when `stop` is set.
        """
        with self._lock:
            with self._opened(layer) as file:
                head = file.read(6)
                file.seek(0)
                if head.startswith(_GZIP):
                    self._packed.append(layer)
                elif other := next((name for magic, name in _OTHERS.items() if head.startswith(magic)), ""):
                    raise TooMuch(layer, f"is packed by {other}, as no image is")
                else:
                    is_zstd = head.startswith(_ZSTD) or int.from_bytes(head[:4], "little") in _SKIPPED
                    left = self._most - self._total
                    self._total += _by_zstd(layer, file, left, self._stop) if is_zstd else layer.size
            self._check(layer)
            while self._packed and self._total + MOST_BY_GZIP * sum(each.size for each in self._packed) > self._most:
                unpacked = self._packed.pop()
                with self._opened(unpacked) as file:
                    self._total += _by_gzip(unpacked, file, self._most - self._total, self._stop)
                self._check(unpacked)

    def _check(self, layer: Descriptor) -> None:
        if self._total > self._most:
            raise TooMuch(layer, f"with it the image becomes more than {self._most >> 20} MiB when it is unpacked")


def _by_gzip(layer: Descriptor, file: IO[bytes], most: int, stop: threading.Event) -> int:
    """As far as it is more than `most`."""
    total, member = 0, zlib.decompressobj(31)
    try:
        while total <= most and not stop.is_set():
            if member.eof:
                data = member.unused_data
                data += file.read(_PIECE) if len(data) < len(_GZIP) else b""
                if not data.startswith(_GZIP):  # padding, at which Engines end as well
                    break
                member = zlib.decompressobj(31)
            elif not (data := member.unconsumed_tail or file.read(_PIECE)):
                break
            total += len(member.decompress(data, _PIECE))
    except zlib.error as error:
        raise TooMuch(layer, f"is not packed by gzip: {error}") from error
    return total


def _by_zstd(layer: Descriptor, file: IO[bytes], most: int, stop: threading.Event) -> int:
    """At most, as far as it is more than `most`."""
    total = 0
    while total <= most and not stop.is_set() and (magic := file.read(4)):
        number = int.from_bytes(magic, "little")
        if number in _SKIPPED:
            file.seek(int.from_bytes(file.read(4), "little"), os.SEEK_CUR)
            continue
        if magic != _ZSTD:
            raise TooMuch(layer, "is not packed by zstd")
        flags = int.from_bytes(file.read(1), "little")
        is_single = flags >> 5 & 1
        sizes = (is_single, 2, 4, 8)[flags >> 6] + (0, 1, 2, 4)[flags & 3] + (1 - is_single)
        file.seek(sizes, os.SEEK_CUR)
        is_last = False
        while not is_last and total <= most and not stop.is_set():
            head = file.read(3)
            if len(head) < 3:
                raise TooMuch(layer, "is not packed by zstd")
            block = int.from_bytes(head, "little")
            is_last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            total += _BLOCK if kind == 2 else size
            file.seek(1 if kind == 1 else size, os.SEEK_CUR)
        file.seek(4 * (flags >> 2 & 1), os.SEEK_CUR)
    return total
