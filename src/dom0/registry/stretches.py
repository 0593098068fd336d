"""What to ask for next of the blobs that are being fetched. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dom0.registry.journal import CHUNK

LONGEST = 16 << 20  # bytes of one request
SHORTEST = CHUNK


class Stretch(msgspec.Struct, frozen=True):
    """Of blob number `blob`, bytes from `at` to `stop` are missing behind the part that begins at `start`.

    `asked`: where the request for it ends that is running; None: there is none.
    """

    blob: int
    start: int
    at: int
    stop: int
    asked: int | None = None

    @property
    def free(self) -> int:
        """The first byte that nobody has asked for."""
        return self.at if self.asked is None else self.asked

    @property
    def unasked(self) -> int:
        return max(0, self.stop - self.free)


class RangeRequest(msgspec.Struct, frozen=True):
    """Bytes [at, stop) of a blob, which go to the part that begins at `start`; a new one, if there is none."""

    blob: int
    start: int
    at: int
    stop: int


def next_request(stretches: Sequence[Stretch], workers: int) -> RangeRequest | None:
    """For a worker that has nothing to do: the first stretch that no request runs for, or the end of the longest one.

    Requests become shorter towards the end, so that all workers end at about the same time. None: all that is missing
    has been asked for, but what is not worth another request.
    """
    length = min(LONGEST, max(SHORTEST, sum(stretch.unasked for stretch in stretches) // (2 * workers)))
    for stretch in stretches:
        if stretch.asked is None and stretch.at < stretch.stop:
            return _request(stretch, stretch.start, stretch.at, length)
    longest = max(stretches, key=lambda stretch: stretch.unasked, default=None)
    if longest is None or longest.unasked < 2 * SHORTEST:
        return None
    middle = max(longest.free, (longest.at + longest.stop) // 2)
    start = -(-middle // CHUNK) * CHUNK
    return _request(longest, start, start, length)


def _request(stretch: Stretch, start: int, at: int, length: int) -> RangeRequest:
    """It ends with a chunk, wherever it begins."""
    return RangeRequest(stretch.blob, start, at, min(stretch.stop, (at + length) // CHUNK * CHUNK))
