"""What a fetch has on a disk whose power goes at any moment: right, and all but the last chunk of each part."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Literal

import msgspec
import pytest

from dom0.durable import Unwritable
from dom0.registry.client import Registry
from dom0.registry.depot import Depot
from dom0.registry.fetch import fetch
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import Descriptor
from dom0.registry.partial import BLOB, Partial
from dom0.testing import loop
from dom0.testing.blob_server import BlobServer, content, describe
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.possible import require
from dom0.testing.power_cut import Disk

CUTS = int(os.environ.get("DOM0_TEST_POWER_CUTS", "4"))
BLOBS = [content(size, size) for size in (9 * CHUNK + 5, 3 * CHUNK, 77)]
DESCRIPTORS = [describe(blob) for blob in BLOBS]
RATE = 24e6  # bytes a second
LONGEST_LIFE = 1.0  # seconds: some fetches end before


class Seen(msgspec.Struct):
    """`parts`: bytes lost of each part that was open at a cut."""

    cuts: int = 0
    lost: list[int] = []
    ended: int = 0


# asyncio forgets a socket of open_connection that is cancelled in the moment in which it is connected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
async def test_a_power_cut_takes_at_most_a_chunk_of_a_part_and_leaves_nothing_wrong(
    kind: Literal["ext4", "xfs"],
) -> None:
    require(loop.missing(), "tests that cut the power of a disk")
    random = Random(7)  # noqa: S311 -- no secret
    seen = Seen()
    with Disk(kind) as disk:
        async with BlobServer(BLOBS) as server, FaultProxy(server.port, Faults(rate=RATE)) as proxy:
            while seen.cuts < CUTS:
                await live(disk, proxy.port, random.uniform(0.02, LONGEST_LIFE), seen)
    most = max(seen.lost)
    found = f"{seen.cuts} cuts of {len(seen.lost)} parts, {seen.ended} fetches ended, at most {most} bytes lost"
    logging.getLogger(__name__).info("%s: %s", kind, found)
    assert most <= CHUNK


class Cut(threading.Event):
    """The power goes the `last` time that joining looks whether it is to go on."""

    def __init__(self, disk: Disk, last: int) -> None:
        super().__init__()
        self.disk = disk
        self.left = last

    def is_set(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.disk.cut()
        return False


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_power_cut_while_parts_are_joined_takes_no_whole_chunk(kind: Literal["ext4", "xfs"]) -> None:
    """Of the part that is taken in, the beginning is released by then."""
    require(loop.missing(), "tests that cut the power of a disk")
    blob, size = BLOBS[0], len(BLOBS[0])
    with Disk(kind) as disk:
        for last in range(5, 10):
            directory = disk.path / str(last)
            directory.mkdir()
            partial = Partial(directory, hashlib.sha256(blob).digest(), size, boot=bytes(16))
            partial.find(4 * CHUNK)
            assert partial.put(4 * CHUNK, blob[4 * CHUNK :]) + partial.put(0, blob[: 4 * CHUNK]) == size
            with pytest.raises(Unwritable):
                partial.finish(directory / BLOB, Cut(disk, last))
            partial.close()
            disk.start()
            again = Partial(directory, hashlib.sha256(blob).digest(), size, boot=bytes([1] * 16))
            assert again.have == size - size % CHUNK
            assert again.parts[0].at == (last - 1) * CHUNK
            assert all(b"".join(part.read()) == blob[part.start : part.at] for part in again.parts)
            again.close()


async def live(disk: Disk, port: int, seconds: float, seen: Seen) -> None:
    """From one boot to the next power cut, or until all blobs are there."""
    depot = Depot(disk.path / "depot", 1 << 40, boot=boot(seen))
    registry = Registry(f"127.0.0.1:{port}")
    fetching = asyncio.create_task(fetched(registry, depot))
    await asyncio.wait([fetching], timeout=seconds)
    is_cut, before = not fetching.done(), parts(depot)
    if is_cut:
        disk.cut()
        fetching.cancel()
    try:
        with contextlib.suppress(*([Unwritable, asyncio.CancelledError] if is_cut else [])):
            await fetching
    finally:
        await registry.close()
    if is_cut:
        disk.start()
        seen.cuts += 1
        after = kept(Depot(disk.path / "depot", 1 << 40, boot=boot(seen)))
        seen.lost += [missing(part, after[name]) for name, part in before]
    check_blobs(depot)
    if not is_cut:
        seen.ended += 1
        for descriptor in DESCRIPTORS:
            assert depot.evict(descriptor.digest)


async def fetched(registry: Registry, depot: Depot) -> None:
    with depot.use(descriptor.digest for descriptor in DESCRIPTORS):
        await fetch(DESCRIPTORS, registry, depot, repository="team/app")


def boot(seen: Seen) -> bytes:
    return seen.cuts.to_bytes(16, "big")


def parts(depot: Depot) -> list[tuple[str, range]]:
    """What is in the files, of which digest and which of its bytes."""
    found = []
    for descriptor in DESCRIPTORS:
        directory = depot.path(descriptor.digest).parent
        with contextlib.suppress(FileNotFoundError):
            for path in directory.iterdir():
                start = 0 if path.name == BLOB else int(path.name) if path.name.isdigit() else None
                if start is not None:
                    found.append((descriptor.digest, range(start, start + path.stat().st_size)))
    return found


def kept(depot: Depot) -> dict[str, list[range]]:
    """Of each digest what the next boot goes on from, which is right."""
    wanted = zip(DESCRIPTORS, BLOBS, strict=True)
    return {descriptor.digest: kept_of(depot, descriptor, blob) for descriptor, blob in wanted}


def kept_of(depot: Depot, descriptor: Descriptor, blob: bytes) -> list[range]:
    if depot.find(descriptor.digest, descriptor.size):
        return [range(descriptor.size)]
    with depot.use([descriptor.digest]), depot.fetching(descriptor.digest, descriptor.size) as partial:
        assert partial is not None
        for part in partial.parts:
            assert b"".join(part.read()) == blob[part.start : part.at]
        return [range(part.start, part.at) for part in partial.parts]


def missing(part: range, kept: Iterable[range]) -> int:
    """Bytes of it that are in none of `kept`."""
    at = part.start
    for other in sorted(kept, key=lambda other: other.start):
        if other.start <= at:
            at = max(at, other.stop)
    return max(0, part.stop - at)


def check_blobs(depot: Depot) -> None:
    for path in Path(depot.root).glob(f"*/{BLOB}"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name
