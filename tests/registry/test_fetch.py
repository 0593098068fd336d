"""Blobs come whole and once, over any line. In virtual time where it is about waiting, over sockets for the rest."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dom0.durable import Unwritable
from dom0.errors import Final, NoRange, Temporary
from dom0.registry import patience
from dom0.registry.client import Registry
from dom0.registry.depot import Depot
from dom0.registry.fetch import AS_A_WHOLE, WASTE, BlobSource, GaveUp, Terms, fetch
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import Descriptor
from dom0.registry.progress import Meter
from dom0.registry.waste import Waste
from dom0.testing.blob_server import BlobServer, content, describe
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.virtual_time import VirtualTimeLoop, now

BLOBS = [content(size, size) for size in (5 * CHUNK + 17, 2 * CHUNK, 0, 1)]
DESCRIPTORS = [describe(blob) for blob in BLOBS]
LARGE = BLOBS[0]
ONE = [describe(LARGE)]
ALL = sum(map(len, BLOBS))

T = TypeVar("T")
Answer = Callable[[bytes, int, int], AsyncIterator[bytes]]


class InlineLoop(VirtualTimeLoop):
    """What would be done in a thread takes no time at all."""

    def run_in_executor(self, executor: Any, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(function(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def in_virtual_time(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=InlineLoop) as runner:
        runner.run(main)


class Line:
    """A source whose answers are coroutines that are given: each gets what is asked and yields pieces, or raises."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[float, int, int]] = []

    @asynccontextmanager
    async def blob(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        assert repository == "team/app"
        self.asked.append((asyncio.get_running_loop().time(), start, stop))
        data = BLOBS[DESCRIPTORS.index(descriptor)]
        yield self.answer(data, start, stop)

    @property
    def pauses(self) -> list[float]:
        times = [time for time, _, _ in self.asked]
        return [later - time for time, later in itertools.pairwise(times)]


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    made = Depot(tmp_path / "depot", 1 << 40)
    yield made
    for descriptor, blob in zip(DESCRIPTORS, BLOBS, strict=True):
        found = made.find(descriptor.digest, descriptor.size)
        assert found is None or found.read_bytes() == blob


async def get(
    depot: Depot,
    source: BlobSource,
    what: list[Descriptor] = ONE,
    meter: Meter | None = None,
    terms: Terms = Terms(),  # noqa: B008 -- a value
    doubt: Callable[[Descriptor], tuple[()]] = lambda _: (),
) -> None:
    with depot.use(each.digest for each in what):
        await fetch(what, source, depot, repository="team/app", terms=terms, meter=meter, doubt=doubt, now=now)
    assert all(depot.find(each.digest, each.size) for each in what)


async def whole(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
    for at in range(start, stop, 100_000):
        yield data[at : min(stop, at + 100_000)]


def raising(error: Exception) -> Answer:
    async def answer(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        nothing: tuple[bytes, ...] = ()
        for piece in nothing:
            yield piece
        raise error

    return answer


refused = raising(ConnectionRefusedError("refused"))


class Lines:
    """Answers in their order, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.left = list(answers)

    def __call__(self, data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        return (self.left.pop(0) if len(self.left) > 1 else self.left[0])(data, start, stop)


def test_every_byte_is_asked_for_once(depot: Depot) -> None:
    line, meter = Line(whole), Meter()
    in_virtual_time(get(depot, line, DESCRIPTORS, meter))
    assert (meter.received, meter.have, meter.size) == (ALL, ALL, ALL)


def test_what_is_there_is_not_asked_for(depot: Depot) -> None:
    in_virtual_time(get(depot, Line(whole), DESCRIPTORS))
    in_virtual_time(get(depot, Line(refused), [*DESCRIPTORS, *ONE]))


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_whatever_a_line_does_blobs_come_whole_and_once(seed: int, workers: int) -> None:
    random = Random(seed)  # noqa: S311 -- no secret

    async def terrible(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        at = start
        while at < stop:
            if random.random() < 0.1:
                fault = random.randrange(4)
                if fault == 0:
                    raise ConnectionResetError
                if fault == 1:
                    return
                if fault == 2:
                    await asyncio.sleep(3600)
                raise Temporary("503", retry_after=random.choice([None, 0, 7]))
            await asyncio.sleep(random.random())
            length = random.randrange(1, 200_000)
            yield data[at : min(stop, at + length)]
            at += length

    directory = Path(tempfile.mkdtemp(prefix="dom0-fetch-"))
    try:
        depot, meter = Depot(directory, 1 << 40), Meter()
        in_virtual_time(get(depot, Line(terrible), DESCRIPTORS, meter, Terms(workers=workers)))
        assert (meter.received, meter.have) == (ALL, ALL)
        for descriptor in DESCRIPTORS:
            found = hashlib.sha256(depot.path(descriptor.digest).read_bytes()).hexdigest()
            assert descriptor.digest == f"sha256:{found}"
    finally:
        shutil.rmtree(directory)


def test_after_a_break_it_asks_at_once_from_there_and_waits_longer_the_longer_nothing_comes(depot: Depot) -> None:
    async def some(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        yield data[start : start + 100_000]
        raise ConnectionResetError

    line = Line(Lines(some, *[refused] * 200, whole))
    in_virtual_time(get(depot, line, terms=Terms(workers=1)))
    assert line.asked[1][1] == 100_000
    assert line.pauses[0] == 0.0
    assert all(0.2 < pause < 0.3 for pause in line.pauses[1:15])
    assert 20 < max(line.pauses) < 1.1 * patience.LONGEST_PAUSE


def test_silence_ends_a_connection_and_is_borne_longer_each_time(depot: Depot) -> None:
    async def silent(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        await asyncio.sleep(1e9)
        yield b""

    line = Line(Lines(*[silent] * 7, whole))
    in_virtual_time(get(depot, line, terms=Terms(workers=1)))
    assert [5 * (pause // 5) for pause in line.pauses[:7]] == [5, 5, 5, 5, 10, 20, 30]


def test_a_registry_that_asks_for_time_gets_it_from_all_workers(depot: Depot) -> None:
    line = Line(Lines(raising(Temporary("429", retry_after=100)), whole))
    in_virtual_time(get(depot, line, DESCRIPTORS[:2]))
    assert all(time == 0 or time >= 100 for time, _, _ in line.asked)


def test_why_and_until_when_it_waits_is_said(depot: Depot) -> None:
    busy = raising(Temporary("registry.example: status 429", retry_after=100))

    async def look() -> None:
        meter, began = Meter(), now()
        running = asyncio.create_task(get(depot, Line(Lines(busy, busy, whole)), meter=meter))
        await asyncio.sleep(50)
        waiting = meter.progress(asyncio.get_running_loop().time()).waiting
        await running
        assert waiting is not None
        assert (waiting.why, round(waiting.until - began)) == ("registry.example: status 429", 100)

    in_virtual_time(look())


def test_it_gives_up_when_nothing_has_come_for_as_long_as_it_has_patience(depot: Depot) -> None:
    line = Line(refused)
    with pytest.raises(GaveUp, match="nothing has come for 1000 s: refused"):
        in_virtual_time(get(depot, line, terms=Terms(patience=1000)))
    assert 999 < line.asked[-1][0] < 1001


def test_a_limit_holds_for_all_workers_together(depot: Depot) -> None:
    async def timed() -> None:
        meter = Meter()
        await get(depot, Line(whole), DESCRIPTORS, meter, Terms(rate=100_000.0))
        assert abs(asyncio.get_running_loop().time() - ALL / 100_000) < 2

    in_virtual_time(timed())


def test_wrong_bytes_are_asked_for_again_and_refused_the_third_time(depot: Depot) -> None:
    async def other(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        yield bytes(stop - start)

    def first(wrong: int) -> Line:
        seen: list[int] = []

        def answer(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
            if start == 0:
                seen.append(start)
            return other(data, start, stop) if len(seen) <= wrong else whole(data, start, stop)

        return Line(answer)

    with pytest.raises(Final, match="2 times something else came"):
        in_virtual_time(get(depot, first(2), terms=Terms(workers=1)))
    Waste(depot.root / WASTE).path(ONE[0].digest).unlink()
    doubted: list[Descriptor] = []

    def doubt(descriptor: Descriptor) -> tuple[()]:
        doubted.append(descriptor)
        return ()

    in_virtual_time(get(depot, first(1), terms=Terms(workers=1), doubt=doubt))
    assert doubted == ONE


def test_a_registry_without_ranges_sends_all_and_what_came_before_is_passed_over(depot: Depot) -> None:
    async def all_of_it(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        if (start, stop) != (0, len(data)):
            raise NoRange("no ranges")
        async for piece in whole(data, start, stop):
            yield piece

    async def some(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        async for piece in whole(data, start, stop - 1):
            yield piece
        raise ConnectionResetError

    meter = Meter()
    in_virtual_time(get(depot, Line(Lines(some, some, some, all_of_it)), meter=meter))
    assert meter.received > meter.have == len(LARGE)


def test_a_registry_without_ranges_that_cuts_off_each_time_is_left_in_the_end(depot: Depot) -> None:
    async def cut_off(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        if (start, stop) != (0, len(data)):
            raise NoRange("no ranges")
        async for piece in whole(data, start, stop - 1):
            yield piece
        raise ConnectionResetError

    meter = Meter()
    with pytest.raises(Final, match="came in vain within an hour: the registry sends layers as a whole only") as first:
        in_virtual_time(get(depot, Line(cut_off), meter=meter))
    assert meter.received == 2 * (len(LARGE) - 1)
    assert meter.note == AS_A_WHOLE
    assert "may be asked for again in 1h; at once after: rm " in first.value.hint
    again = Meter()
    with pytest.raises(Final, match="came in vain"):
        in_virtual_time(get(depot, Line(cut_off), meter=again))
    assert again.received == 0
    Path(first.value.hint.rpartition(" ")[2]).unlink()
    in_virtual_time(get(depot, Line(whole), meter=again))
    assert again.received == 1


def test_one_that_cuts_off_sooner_is_asked_more_often_and_no_more_comes(depot: Depot) -> None:
    async def a_tenth(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        if (start, stop) != (0, len(data)):
            raise NoRange("no ranges")
        yield data[: len(data) // 10]
        raise ConnectionResetError

    meter, line = Meter(), Line(a_tenth)
    with pytest.raises(Final, match="came in vain"):
        in_virtual_time(get(depot, line, meter=meter))
    assert meter.received == 11 * (len(LARGE) // 10)


def test_what_other_bytes_have_cost_is_remembered_for_an_hour(depot: Depot) -> None:
    async def other(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        yield bytes(stop - start)

    meter = Meter()
    for _ in range(3):
        with pytest.raises(Final, match="something else came"):
            in_virtual_time(get(depot, Line(other), meter=meter, terms=Terms(workers=1)))
    assert meter.received == 2 * len(LARGE)


def test_what_is_final_ends_it_and_keeps_what_came(depot: Depot) -> None:
    async def some(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        yield data[start : start + 1000]
        raise ConnectionResetError

    with pytest.raises(Final, match="404"):
        in_virtual_time(get(depot, Line(Lines(some, raising(Final("404"))))))
    assert [each.have for each in depot.blobs()] == [1000]


def test_what_nobody_uses_goes_for_what_is_to_come(tmp_path: Path) -> None:
    depot = Depot(tmp_path / "small", len(LARGE))
    in_virtual_time(get(depot, Line(whole), DESCRIPTORS[1:2]))
    in_virtual_time(get(depot, Line(whole)))
    assert [each.digest for each in depot.blobs()] == [ONE[0].digest]


def test_a_disk_that_keeps_losing_what_came_is_told_of(depot: Depot) -> None:
    blob = depot.path(ONE[0].digest)

    async def spoiling(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        async for piece in whole(data, start, stop):
            yield piece
        with (blob.parent / "0").open("r+b") as file:
            file.write(b"another")

    with pytest.raises(Unwritable, match="does not keep"):
        in_virtual_time(get(depot, Line(spoiling), terms=Terms(workers=1)))


async def fetched_elsewhere(depot: Depot, meter: Meter, steps: list[int]) -> None:
    """Another process gets so many bytes more of a blob each minute, all in the end; we have patience for two."""
    other = Depot(depot.root, 0)
    with other.use([ONE[0].digest]), other.fetching(ONE[0].digest, len(LARGE)) as partial:
        assert partial is not None
        running = asyncio.create_task(get(depot, Line(refused), meter=meter, terms=Terms(patience=120)))
        for step in steps:
            await asyncio.sleep(60)
            at = partial.parts[0].at
            partial.put(at, LARGE[at : at + step])
        await asyncio.sleep(60)
        if not running.done():
            assert meter.have == partial.have
            progress = meter.progress(asyncio.get_running_loop().time())
            assert progress.waiting is not None
            assert progress.waiting.why == f"another process fetches {ONE[0].digest[:19]}"
            partial.put(partial.parts[0].at, LARGE[partial.parts[0].at :])
            partial.parts[0].rename(other.path(ONE[0].digest))
    await running


def test_a_blob_that_another_process_fetches_is_waited_for_while_it_grows(depot: Depot) -> None:
    meter = Meter()
    in_virtual_time(fetched_elsewhere(depot, meter, [1000] * 10))
    assert (meter.received, meter.have) == (0, len(LARGE))


def test_a_process_that_fetches_a_blob_and_brings_nothing_is_not_waited_for_without_end(depot: Depot) -> None:
    with pytest.raises(GaveUp, match=f"nothing has come for 120 s: another process fetches {ONE[0].digest[:19]}"):
        in_virtual_time(fetched_elsewhere(depot, Meter(), [1000, 0, 0, 0]))


async def test_cancelled_it_keeps_what_came(depot: Depot) -> None:
    came = asyncio.Event()

    async def some(data: bytes, start: int, stop: int) -> AsyncIterator[bytes]:
        yield data[start : start + 500_000]
        came.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(get(depot, Line(some), terms=Terms(workers=1)))
    await came.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    line = Line(whole)
    await get(depot, line)
    assert min(start for _, start, _ in line.asked) == 500_000


@pytest.mark.parametrize(
    "faults",
    [
        Faults(every_bytes=CHUNK),
        Faults(every_bytes=CHUNK, how="reset"),
        Faults(every_bytes=CHUNK, how="reset", refuse=0.1),
        Faults(every_seconds=0.2, how="reset", rate=8e6, rtt=0.01),
    ],
)
async def test_over_sockets_all_comes_and_next_to_nothing_twice(depot: Depot, faults: Faults) -> None:
    meter = Meter()
    async with BlobServer(BLOBS) as server, FaultProxy(server.port, faults) as proxy:
        await get_from(proxy.port, depot, meter)
        assert proxy.cuts >= 3
    assert (meter.received, meter.have) == (ALL, ALL)


@pytest.mark.parametrize(("knows_ranges", "wrong"), [(False, 0), (True, 2)])
async def test_over_sockets_servers_get_another_chance(depot: Depot, knows_ranges: bool, wrong: int) -> None:
    async with BlobServer(BLOBS) as server:
        server.knows_ranges, server.wrong = knows_ranges, wrong
        await get_from(server.port, depot, Meter())


async def get_from(port: int, depot: Depot, meter: Meter) -> None:
    registry = Registry(f"127.0.0.1:{port}")
    try:
        await get(depot, registry, DESCRIPTORS, meter)
    finally:
        await registry.close()
