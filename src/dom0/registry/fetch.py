"""Gets blobs into a depot over an unreliable line: no byte that arrived is asked for again.

Theory of operation: a few workers take what `stretches` says is next, over all blobs, and ask for it. Whatever breaks,
they ask again from the byte where it broke, after as long as `patience` says. What comes is written at once and synced
each MiB (`partial`), so being cancelled costs nothing, being killed what comes while the disk is busy, and a power cut
at most a MiB of each part. A blob that is all there is verified as a whole. What the disk did not keep of it is asked
for again; so is all of it where something else had come, or where its registry sends it as a whole only: as long as no
more comes in vain within an hour than the blob has bytes (`waste`), whoever asks.

A blob that another process fetches is waited for, as long as it grows or there is patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, TypeVar

import msgspec

from dom0 import times
from dom0.durable import Unwritable
from dom0.errors import Final, NoRange, RegistryError, Temporary
from dom0.registry.depot import Depot
from dom0.registry.manifest import Descriptor
from dom0.registry.partial import Partial
from dom0.registry.patience import Allowance, pause, silence
from dom0.registry.progress import Meter, Waiting
from dom0.registry.stretches import RangeRequest, Stretch, next_request
from dom0.registry.waste import Waste

T = TypeVar("T")

MOST_DAMAGED = 10  # times that the disk may have lost something of one
MOST_UNWRITTEN = 1 << 20  # bytes of one request that come while the disk is busy
ENOUGH = 16 << 10  # bytes of one try after which the next is made at once
LOOK_AGAIN = 0.5  # seconds, for a blob that another process fetches
WASTE = "waste"  # what the directory of it is called, in a depot
AS_A_WHOLE = "the registry sends layers as a whole only, so a break costs all that has come of one"


class GaveUp(RegistryError):
    """Nothing has come for as long as there was patience."""

    def __init__(self, message: str, *, hint: str = "what has come is kept: the next pull goes on from there") -> None:
        super().__init__(message, hint=hint)


class BlobSource(Protocol):
    """Where blobs come from. Each call starts anew at the registry."""

    def blob(
        self, repository: str, descriptor: Descriptor, start: int, stop: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Bytes [start, stop) as they come. Raises Temporary or OSError; NoRange if only all is to be had; Final."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """`rate`: bytes a second for all workers together, 0 for no limit; `patience`: seconds in which nothing comes;
    `most_wrong`: times that other bytes may come than the digest says.
    """

    workers: int = 2
    rate: float = 0.0
    patience: float = 86400.0
    most_wrong: int = 3


USUAL = Terms()


async def fetch(
    descriptors: Sequence[Descriptor],
    source: BlobSource,
    depot: Depot,
    *,
    repository: str,
    public: bool = False,
    terms: Terms = USUAL,
    meter: Meter | None = None,
    doubt: Callable[[Descriptor], Sequence[tuple[int, int]]] = lambda _: (),
    now: Callable[[], float] = time.time,
    alone: float = 0.0,
) -> None:
    """Return when `depot`, where the caller has them in `use`, has all blobs whole.

    `public`: `source` gives them without a login, so they may be given to others. `meter` tells how far it is; `doubt`
    is told what came wrong, to ask somebody else for it, and says which stretches may be (none: all of it); `now`:
    seconds since the epoch; `alone`: seconds until there is more than one worker, so that a fast line brings the first
    blob first. Cancelled, it leaves what has come. Raises Final, GaveUp, and Unwritable of the disk.
    """
    wanted = list({descriptor.digest: descriptor for descriptor in descriptors}.values())
    work = _Work(wanted, source, depot, repository, public, terms, meter or Meter(), doubt, now)
    with contextlib.closing(work):
        await work.open_blobs()
        await _in_thread(partial(depot.trim, work.meter.size - work.meter.have))
        try:
            async with asyncio.TaskGroup() as workers:
                first = workers.create_task(_Worker(0, work).run())
                if alone:
                    await asyncio.wait([first], timeout=alone)
                for number in range(1, terms.workers):
                    workers.create_task(_Worker(number, work).run())
        except BaseExceptionGroup as group:
            raise _first(group) from None


class _Blob:
    """`entire`: its registry does not support range requests. `requests`: that run for it. `ending`: it is verified.
    `wasted`: bytes that came in vain.
    """

    def __init__(self, descriptor: Descriptor, partial: Partial, held: contextlib.ExitStack, wasted: int) -> None:
        self.descriptor = descriptor
        self.partial = partial
        self.held = held
        self.wasted = wasted
        self.entire = False
        self.requests = 0
        self.ending = False
        self.failures = {"damaged": 0, "wrong": 0}

    @property
    def is_ready(self) -> bool:
        return not self.ending and not self.requests and self.partial.is_whole

    def stretches(self, number: int) -> list[Stretch]:
        if self.ending:
            return []
        if self.entire:
            size = self.descriptor.size
            return [Stretch(number, 0, 0, size, size if self.requests else None)]
        stop = self.partial.stop
        return [Stretch(number, part.start, part.at, stop(part), part.asked) for part in self.partial.parts]


class _Work:
    """What the workers share."""

    def __init__(
        self,
        wanted: list[Descriptor],
        source: BlobSource,
        depot: Depot,
        repository: str,
        public: bool,
        terms: Terms,
        meter: Meter,
        doubt: Callable[[Descriptor], Sequence[tuple[int, int]]],
        now: Callable[[], float],
    ) -> None:
        self.source = source
        self.depot = depot
        self.repository = repository
        self.public = public
        self.terms = terms
        self.meter = meter
        self.doubt = doubt
        self.now = now
        self.waste = Waste(depot.root / WASTE)
        self.clock = asyncio.get_running_loop().time
        self.allowance = Allowance(terms.rate)
        self.last = self.clock()  # when something came
        self.not_before = self.last  # as the registry asked
        self.blobs: list[_Blob] = []
        self._unopened = wanted
        self._opening = asyncio.Lock()
        self._whole = 0  # bytes of the blobs that are
        self._elsewhere = 0  # bytes here of those that other processes fetch
        self._changed = asyncio.Event()
        meter.size = sum(descriptor.size for descriptor in wanted)

    @property
    def is_over(self) -> bool:
        return not self.blobs and not self._unopened

    async def open_blobs(self) -> None:
        """Those that no other process fetches; how far it is with the others."""
        async with self._opening:
            before, elsewhere = self._whole + self._elsewhere, 0
            for descriptor in tuple(self._unopened):
                if await _in_thread(partial(self._open, descriptor, self.now())):
                    self._unopened.remove(descriptor)
                else:
                    elsewhere += await _in_thread(partial(self.depot.have, descriptor.digest, descriptor.size))
            self._elsewhere = elsewhere
            if self._whole + elsewhere > before:
                self.last = self.clock()
        self.tell_change()

    def next_request(self) -> tuple[_Blob, RangeRequest] | None:
        stretches = [each for number, blob in enumerate(self.blobs) for each in blob.stretches(number)]
        found = next_request(stretches, self.terms.workers)
        if found is None:
            return None
        blob = self.blobs[found.blob]
        return blob, RangeRequest(found.blob, 0, 0, blob.descriptor.size) if blob.entire else found

    async def finish(self, blob: _Blob) -> None:
        """Raises Final where it will not become what it should be, and Unwritable."""
        blob.ending = True
        stop = threading.Event()
        path = self.depot.path(blob.descriptor.digest)
        try:
            ending = await _in_thread(partial(blob.partial.finish, path, stop), stop.set)
            if ending == "done":
                self._close(blob)
                self._whole += blob.descriptor.size
                self.meter.note = ""
                return
            if ending == "wrong":
                doubted = self.doubt(blob.descriptor)
                await _in_thread(partial(blob.partial.forget, doubted))
                await self.count_waste(blob, 0 if doubted else blob.descriptor.size)
        finally:
            blob.ending = False
            self.tell_change()
        blob.failures[ending] += 1
        wrong = blob.failures["wrong"]
        if ending == "wrong" and (wrong == self.terms.most_wrong or blob.wasted > blob.descriptor.size):
            raise Final(
                f"{self.repository}: {blob.descriptor.digest}: {f'{wrong} times ' * (wrong > 1)}something else came",
                hint="something on the way changes them, or the registry has lost them",
            )
        if blob.failures["damaged"] == MOST_DAMAGED:
            raise Unwritable(f"{path}: the disk does not keep what is written to it", hint="look at: dmesg")

    async def count_waste(self, blob: _Blob, count: int) -> None:
        """Bytes that came, and were thrown away or had been here."""
        blob.wasted += count
        if count:
            await _in_thread(partial(self.waste.add, blob.descriptor.digest, count, self.now()))

    def refuse_waste(self, blob: _Blob) -> None:
        """Raises Final where what will come in vain were more than the blob has bytes, within an hour."""
        digest, size = blob.descriptor.digest, blob.descriptor.size
        again = blob.partial.have if blob.entire else 0
        if blob.wasted + again > size:
            why = AS_A_WHOLE if blob.entire else "something else came"
            raise Final(
                f"{self.repository}: {digest}: {blob.wasted} bytes came in vain within an hour: {why}",
                hint=f"it may be asked for again in {times.ago(self.waste.left(digest, self.now()))}; "
                f"at once after: rm {self.waste.path(digest)}",
            )

    def count(self) -> None:
        self.meter.have = self._whole + self._elsewhere + sum(blob.partial.have for blob in self.blobs)

    def tell_change(self) -> None:
        self.count()
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, worker: int) -> None:
        """Of what there is to do. Raises GaveUp where all that is left is another process's, which brings nothing."""
        if not self._unopened:
            self.meter.ends(worker)
            await self._changed.wait()
            return
        why = f"another process fetches {self._unopened[0].digest[:19]}"
        self.meter.waits(worker, Waiting(why, self.now() + LOOK_AGAIN))
        try:
            async with asyncio.timeout(LOOK_AGAIN):
                await self._changed.wait()
        except TimeoutError:
            await self.open_blobs()
            if self._unopened and not self.blobs and self.clock() >= self.last + self.terms.patience:
                raise GaveUp(self.words(why), hint="which process it is: lslocks") from None

    def words(self, why: str) -> str:
        return f"{self.repository}: nothing has come for {self.terms.patience:g} s: {why}"

    def close(self) -> None:
        for blob in tuple(self.blobs):
            self._close(blob)

    def _close(self, blob: _Blob) -> None:
        self.blobs.remove(blob)
        blob.held.close()

    def _open(self, descriptor: Descriptor, now: float) -> bool:
        """In a thread. False: another process fetches it."""
        digest, size = descriptor.digest, descriptor.size
        with contextlib.ExitStack() as stack:
            is_whole = self.depot.find(digest, size) is not None
            here = None if is_whole else stack.enter_context(self.depot.fetching(digest, size, public=self.public))
            if here is not None:
                is_whole = self.depot.find(digest, size) is not None  # it may have ended while we looked
            if is_whole:
                self._whole += size
            elif here is not None:
                self.blobs.append(_Blob(descriptor, here, stack.pop_all(), self.waste.amount(digest, now)))
            return is_whole or here is not None


class _Worker:
    """One that asks for this and then for that."""

    def __init__(self, number: int, work: _Work) -> None:
        self._number = number
        self._work = work
        self._misses = 0  # tries in a row that brought nothing
        self._since = work.clock()  # when the first of them began
        self._kept = self._vain = 0  # bytes that this try brought, and that were here already

    async def run(self) -> None:
        """Until nothing is left to do."""
        work = self._work
        while not work.is_over:
            ready = next((blob for blob in work.blobs if blob.is_ready), None)
            if ready is not None:
                work.meter.works(self._number)
                await work.finish(ready)
            elif work.not_before > work.clock():
                work.meter.ends(self._number)
                await asyncio.sleep(work.not_before - work.clock())
            elif found := work.next_request():
                await self._try(*found)
            else:
                await work.wait_for_change(self._number)
        work.meter.ends(self._number)

    async def _try(self, blob: _Blob, request: RangeRequest) -> None:
        """Ask once, and wait until it is time to ask again. Raises Final, GaveUp, Unwritable."""
        self._kept = self._vain = 0
        self._work.refuse_waste(blob)
        part, asks_all = blob.partial.find(request.start), blob.entire
        part.asked, blob.requests = request.stop, blob.requests + 1
        self._work.meter.works(self._number)
        try:
            await self._receive(blob, request)
            error: Exception | None = None
        except NoRange:
            if asks_all:
                raise
            self._work.meter.note = AS_A_WHOLE
            blob.entire, error = True, None
        except (Temporary, OSError) as broken:
            blob.entire, error = False, broken
        finally:
            part.asked, blob.requests = None, blob.requests - 1
            await self._work.count_waste(blob, self._vain)
            self._work.tell_change()
        if error is not None and part.at < request.stop:
            await self._wait_after(error)
        else:
            self._misses = 0

    async def _receive(self, blob: _Blob, request: RangeRequest) -> None:
        """What comes while the disk is busy is written together. Waiting for the disk or the limit is no silence."""
        work = self._work
        most = silence(self._misses)
        at, held, writing = request.at, bytearray(), None
        try:
            async with asyncio.timeout(most) as silent:
                async with work.source.blob(work.repository, blob.descriptor, request.at, request.stop) as pieces:
                    async for data in pieces:
                        silent.reschedule(None)
                        held += data
                        if writing is not None and (writing.done() or len(held) >= MOST_UNWRITTEN):
                            await writing
                            writing = None
                        if writing is None:
                            writing = asyncio.create_task(self._keep(blob, at, bytes(held)))
                            at += len(held)
                            held.clear()
                        if wait := work.allowance.take(len(data), work.clock()):
                            await asyncio.sleep(wait)
                        silent.reschedule(work.clock() + most)
        except TimeoutError as error:
            raise Temporary(f"nothing came for {most:g} s") from error
        finally:
            if writing is not None:
                await writing
            if held:
                await self._keep(blob, at, bytes(held))
                at += len(held)
        if at < request.stop:
            raise Temporary("the connection was closed too soon")

    async def _keep(self, blob: _Blob, at: int, data: bytes) -> None:
        work = self._work
        kept = await _in_thread(partial(blob.partial.put, at, data))
        now = work.clock()
        self._vain += len(data) - kept
        if kept:
            self._kept += kept
            self._since = work.last = now
        work.meter.came(len(data), now)
        work.count()

    async def _wait_after(self, error: Exception) -> None:
        """Raises GaveUp."""
        work = self._work
        now = work.clock()
        if self._kept:
            work.meter.drops += 1
        self._misses = 0 if self._kept >= ENOUGH else 1 if self._kept else self._misses + 1
        if isinstance(error, Temporary) and error.retry_after:
            work.not_before = max(work.not_before, now + error.retry_after)
        end = work.last + work.terms.patience
        why = str(error) or type(error).__name__
        if now >= end:
            raise GaveUp(work.words(why)) from error
        wait = max(pause(self._misses, now - self._since, random.random()), work.not_before - now)  # noqa: S311
        if wait := min(wait, end - now):
            work.meter.waits(self._number, Waiting(why, work.now() + wait))
            await asyncio.sleep(wait)


async def _in_thread(call: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
    """Its result, and never before it has ended: also if we are cancelled, of which `cancel` tells it."""
    running = asyncio.create_task(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancel()
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # whatever it is: nobody asks for it any more
        raise


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the first worker; the others were cancelled for that."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
