"""How much a layer becomes is known before it is unpacked, whatever is done to hide it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from dom0.registry.manifest import LAYERS, Descriptor
from dom0.registry.unpacked import TooMuch, UnpackedLimit
from dom0.testing.possible import require

ZEROS = gzip.compress(bytes(1 << 20))  # about as much as gzip can
HEAD, RLE, LAST = b"\x28\xb5\x2f\xfd\x00\x58", b"\x02\x00\x10\x00", b"\x01\x00\x00"  # a block of 128 KiB; an empty one
SKIPPED = b"\x5f\x2a\x4d\x18\x03\x00\x00\x00abc"
TAR = bytes(300_000)


def check(most: int, *layers: bytes) -> None:
    blobs = {Descriptor(LAYERS[1], f"sha256:{hashlib.sha256(blob).hexdigest()}", len(blob)): blob for blob in layers}
    room = UnpackedLimit(most, lambda layer: io.BytesIO(blobs[layer]), threading.Event())
    for layer in blobs:
        room.take(layer)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (TAR, len(TAR)),
        (gzip.compress(TAR), len(TAR)),
        (ZEROS, 1 << 20),
        (ZEROS * 3, 3 << 20),
        (b"".join(gzip.compress(bytes([number])) for number in range(200)), 200),
        (gzip.compress(TAR) + bytes(512), len(TAR)),
        (HEAD + 100 * RLE + LAST, 100 * (128 << 10)),
        (2 * (HEAD + RLE + LAST), 2 * (128 << 10)),
        (SKIPPED + HEAD + RLE + LAST + SKIPPED, 128 << 10),
        (HEAD + (1 | 5 << 3).to_bytes(3, "little") + b"hello", 5),
    ],
    ids=["none", "gzip", "zeros", "members", "small-members", "padding", "rle", "frames", "skipped", "raw"],
)
def test_it_may_become_so_much_and_not_a_byte_more(layer: bytes, size: int) -> None:
    check(size, layer)
    with pytest.raises(TooMuch, match="with it the image becomes more than"):
        check(size - 1, layer)


def test_a_member_whose_head_is_read_in_two_pieces_counts() -> None:
    """What is asked of the file at once is a power of two."""
    for fill in range(250):
        first = gzip.compress(b"a" * fill, mtime=0, compresslevel=0)
        padded = gzip.compress(bytes((256 << 10) - 200), compresslevel=0)
        with pytest.raises(TooMuch):
            check(fill + (256 << 10) - 200 + (1 << 20) - 1, first + padded + ZEROS)


def test_layers_count_together_and_only_as_far_as_is_needed() -> None:
    other = gzip.compress(TAR)
    check((1 << 20) + len(TAR), ZEROS, other)
    with pytest.raises(TooMuch):
        check((1 << 20) + len(TAR) - 1, ZEROS, other)
    check(1032 * len(ZEROS[:100]), ZEROS[:100])  # which nobody had to read: even so it were not too much


@pytest.mark.parametrize("level", ["-1", "-19"])
def test_of_what_zstd_makes_no_more_is_counted_than_a_block(level: str) -> None:
    require("" if shutil.which("zstd") else "the command zstd", "a layer as zstd packs it")
    content = b"".join(hashlib.sha256(number.to_bytes(4, "big")).hexdigest().encode() for number in range(50_000))
    packed = subprocess.run(["zstd", level, "--stdout"], input=content, capture_output=True, check=True).stdout
    check(len(content) + (128 << 10), packed)
    with pytest.raises(TooMuch):
        check(len(content) - (128 << 10), packed)


@pytest.mark.parametrize(
    ("pack", "what"),
    [
        (bz2.compress, "is packed by bzip2"),
        (lzma.compress, "is packed by xz"),
        (lambda tar: gzip.compress(tar)[:10] + b"\xff" * 10_000, "is not packed by gzip"),
        (lambda _: HEAD + RLE, "is not packed by zstd"),
        (lambda _: HEAD, "is not packed by zstd"),
        (lambda _: HEAD[:4], "is not packed by zstd"),
        (lambda _: SKIPPED + b"four", "is not packed by zstd"),
    ],
)
def test_what_is_packed_as_no_image_is_is_refused(pack: Callable[[bytes], bytes], what: str) -> None:
    with pytest.raises(TooMuch, match=what):
        check(1 << 20, pack(TAR))


class Endless(io.BytesIO):
    """`head`, and then `rest` again and again, which nobody reads for longer than a minute."""

    def __init__(self, head: bytes, rest: bytes) -> None:
        super().__init__()
        self._head, self._rest, self._at = head, rest, 0
        self._until = time.monotonic() + 60

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        assert time.monotonic() < self._until
        first = self._head[self._at : self._at + size]
        start = max(0, self._at - len(self._head)) % len(self._rest)
        self._at += size
        return first + (self._rest * (2 + size // len(self._rest)))[start : start + size - len(first)]

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at


MEMBER = gzip.compress(b"nine byte", 0)  # 32 bytes, of which whatever is read at once is a multiple
ENDLESS = pytest.mark.parametrize(
    ("head", "rest"),
    [(b"", MEMBER), (b"", gzip.compress(b"")), (HEAD, bytes(3)), (b"", HEAD + LAST), (b"", SKIPPED)],
    ids=["members", "empty-members", "empty-blocks", "empty-frames", "skipped"],
)


@ENDLESS
def test_it_ends_in_the_middle_of_a_layer_when_nobody_asks_any_more(head: bytes, rest: bytes) -> None:
    stop, layer = threading.Event(), Descriptor(LAYERS[1], f"sha256:{'0' * 64}", 1 << 50)
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    UnpackedLimit(1 << 40, lambda _: Endless(head, rest), stop).take(layer)
    timer.join()


def test_of_small_members_no_more_is_read_than_is_too_much() -> None:
    layer = Descriptor(LAYERS[1], f"sha256:{'0' * 64}", 1 << 50)
    assert len(MEMBER) == 32
    with pytest.raises(TooMuch, match="with it the image becomes more than"):
        UnpackedLimit(1000, lambda _: Endless(b"", MEMBER), threading.Event()).take(layer)


def test_whoever_asks_no_more_ends_it() -> None:
    stop = threading.Event()
    stop.set()
    layer = Descriptor(LAYERS[1], f"sha256:{'0' * 64}", len(ZEROS))
    UnpackedLimit(1000, lambda _: io.BytesIO(ZEROS), stop).take(layer)
