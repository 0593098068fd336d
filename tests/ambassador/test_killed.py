"""Killed at any instant of a rewire, the next control plane finishes or undoes it, and no number is given twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import msgspec
import pytest

from dom0.ambassador.declaration import Declaration, Rule
from dom0.ambassador.forwarder import Forwarder
from dom0.ambassador.messages import Receipt, Rewire, Undo
from dom0.ambassador.report import Reporter
from dom0.ambassador.requests import Requests
from dom0.ambassador.serve import make_forwarder
from dom0.ambassador.sources import Fixed
from dom0.ambassador.state import StateFile, Stored
from dom0.errors import Dom0Error
from dom0.forward.dataplane import DataPlane, Flow
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own
from dom0.forward.table import Listener, Protocol, Table
from dom0.testing.wires import Wires

REDIS = Listener(Protocol.TCP, 6379)
MOST = 20  # instants of one rewire at which we may be killed


class Killed(BaseException):
    """Nothing of ours runs after it."""


class Life:
    """Counts the instants at which what was done so far is all that anybody will ever see."""

    def __init__(self, ends_at: int) -> None:
        self.left = ends_at

    def instant(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


class MortalFile(StateFile):
    def __init__(self, directory: Path, life: Life) -> None:
        super().__init__(directory)
        self._life = life

    def write(self, stored: Stored) -> None:
        self._life.instant()
        super().write(stored)
        self._life.instant()


class MortalPlane(KernelPlane):
    def __init__(self, namespace: str, life: Life) -> None:
        super().__init__(own(namespace))
        self._life = life

    async def set(self, wanted: Table) -> None:
        self._life.instant()
        await super().set(wanted)
        self._life.instant()

    async def forget(self, flows: Collection[Flow]) -> int:
        self._life.instant()
        return await super().forget(flows)

    async def cut(self, flows: Collection[Flow]) -> int:
        self._life.instant()
        done = await super().cut(flows)
        self._life.instant()
        return done


@contextlib.asynccontextmanager
async def control_plane(
    wires: Wires, directory: Path, life: Life, plane: DataPlane | None = None
) -> AsyncIterator[Forwarder]:
    """At work, until the block ends as a kill ends it."""
    source = Fixed(wires.providers[0].v4, 6379)
    declaration = Declaration((Rule(listener=REDIS, sources=(source,)),))
    plane = plane or MortalPlane(wires.ambassador.namespace, life)
    forwarder = make_forwarder(plane, declaration, MortalFile(directory, life))
    working = asyncio.create_task(forwarder.run())
    try:
        await forwarder.look_after(0)
        yield forwarder
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, Killed, BaseExceptionGroup):
            await working


async def rewire(forwarder: Forwarder, request: Rewire | Undo) -> Receipt:
    receipt: Receipt = await Requests(forwarder, Reporter(forwarder, "test")).answer(request)
    return receipt


@pytest.mark.parametrize("existing", ["keep", "cut", "drain=1h"])
@pytest.mark.parametrize("goes_back", [False, True], ids=["rewire", "undo"])
async def test_killed_at_any_instant_nothing_is_lost(
    wires: Wires, tmp_path: Path, existing: str, goes_back: bool
) -> None:
    a, b = (f"{provider.v4}:6379" for provider in wires.providers)
    used: set[int] = set()
    for instant in range(MOST):
        life = Life(MOST * 10)
        async with control_plane(wires, tmp_path, life) as first:
            to = b if str(first.stored.table.routes[0].targets[0]) == a else a
            if goes_back:
                used.update((await rewire(first, Rewire(to=(to,)))).generations)
                to = a if to == b else b
            before = first.stored.table.routes[0]
            client = wires.consumer.connect(wires.ambassador.v4, REDIS.port)
            used.add(before.generation)
            life.left = instant
            survived = False
            with contextlib.suppress(Killed):
                request = Undo(existing=existing) if goes_back else Rewire(to=(to,), existing=existing)
                used.update((await rewire(first, request)).generations)
                survived = True
        async with control_plane(wires, tmp_path, Life(MOST * 10)) as second:
            route = second.stored.table.routes[0]
            assert await second.plane.read() == second.stored.table
            assert str(route.targets[0]) in (str(before.targets[0]), to)
            assert (route.targets == before.targets) == (route.generation == before.generation)
            if existing == "cut" and route.generation != before.generation:
                assert client.is_reset(), "the next one finishes the cut"
            else:
                assert client.ask()
            answers = wires.consumer.connect(wires.ambassador.v4, REDIS.port).ask()
            assert answers == ("provider1:?" if str(route.targets[0]) == a else "provider2:?")
            marks = {flow.generation for flow in await second.plane.flows()}
            assert max(marks) <= second.stored.generation
            fresh = await rewire(second, Rewire(to=(to,)))
            assert not used & set(fresh.generations), "a number was given twice"
            used.update(marks, fresh.generations)
        if survived:
            assert instant > 3, "it was killed nowhere"
            return
    raise AssertionError("it has more instants than we look at")


class RefusingPlane(KernelPlane):
    """Takes tables until it is told not to."""

    refuses = False

    async def set(self, wanted: Table) -> None:
        if self.refuses:
            raise Dom0Error("nft: no")
        await super().set(wanted)


async def test_a_table_that_the_kernel_refuses_leaves_the_former_one_and_spends_its_number(
    wires: Wires, tmp_path: Path
) -> None:
    plane = RefusingPlane(own(wires.ambassador.namespace))
    async with control_plane(wires, tmp_path, Life(10_000), plane) as forwarder:
        before = forwarder.stored
        plane.refuses = True
        request = Rewire(to=(wires.providers[1].v4,), existing="cut")
        with pytest.raises(Dom0Error, match="nft: no"):
            await rewire(forwarder, request)
        assert forwarder.stored == msgspec.structs.replace(before, generation=2)
        assert await plane.read() == before.table
        plane.refuses = False
        assert (await rewire(forwarder, request)).generations == (3,)
