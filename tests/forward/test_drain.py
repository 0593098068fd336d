"""What becomes of old connections, step by step, and how it is counted. The kernel: tests/ambassador/test_serve.py."""

from __future__ import annotations

from collections.abc import Collection

from dom0.errors import Dom0Error
from dom0.forward.dataplane import Flow
from dom0.forward.drain import SETTLING, Drain, Drained, Tally, drain
from dom0.forward.table import Listener, Protocol, Table, Target

REDIS, DNS = Listener(Protocol.TCP, 6379), Listener(Protocol.UDP, 53)
A, B = Target("10.0.0.1", 6379), Target("10.0.0.2", 6379)


class Connections:
    """A DataPlane that is nothing but its connections."""

    name = "none"

    def __init__(self, *flows: Flow, silent: bool = False) -> None:
        self.there = list(flows)
        self.silent = silent

    async def set(self, table: Table) -> None: ...

    async def read(self) -> Table | None:
        return None

    async def flows(self, generations: Collection[int] | None = None) -> list[Flow]:
        return list(self.there)

    async def forget(self, flows: Collection[Flow]) -> int:
        there = len(self.there)
        self.there = [flow for flow in self.there if flow not in flows]
        return there - len(self.there)

    async def cut(self, flows: Collection[Flow]) -> int:
        gone = await self.forget(flows)
        if self.silent:
            raise Dom0Error("who is silent cannot be told")
        return gone


def tcp(generation: int, target: Target = A, state: str = "ESTABLISHED", client: int = 1) -> Flow:
    return Flow(
        protocol=Protocol.TCP,
        generation=generation,
        client=Target("10.0.0.9", client),
        listener=Target("10.0.0.8", REDIS.port),
        near=Target("10.0.0.8", 2),
        target=target,
        state=state,
    )


def udp(generation: int) -> Flow:
    client, here = Target("10.0.0.9", 1), Target("10.0.0.8", DNS.port)
    return Flow(protocol=Protocol.UDP, generation=generation, client=client, listener=here, near=here, target=A)


def redis(until: int, cut_at: float | None = None, *, receipt: int = 1, spared: tuple[Target, ...] = ()) -> Drain:
    over_at = (cut_at or 0.0) + SETTLING
    return Drain(receipt=receipt, listener=REDIS, since=0, until=until, cut_at=cut_at, over_at=over_at, spared=spared)


async def done(plane: Connections, before: Drained, ticks: float) -> Drained:
    return await drain(plane, before.left, await plane.flows(), before.counts, ticks)


def begun(*drains: Drain, **progress: float) -> Drained:
    return Drained(drains, (), {1: Tally(**progress)})  # type: ignore[arg-type]


async def test_what_goes_on_is_counted_once() -> None:
    plane = Connections(tcp(1), tcp(1, client=2), tcp(2))
    first = await done(plane, begun(redis(2)), 0.0)
    assert first.counts == {1: Tally(kept=2)}
    plane.there.pop()
    assert (await done(plane, first, 1.0)).counts == {1: Tally(kept=2)}


async def test_a_drain_counts_who_ended_and_who_was_cut_and_says_when_it_is_over() -> None:
    plane = Connections(tcp(1), tcp(1, client=2), tcp(1, client=3))
    state = await done(plane, begun(redis(2, 30.0), draining=30.0), 0.0)
    assert state.counts == {1: Tally(kept=3, draining=30.0)}
    del plane.there[0]
    state = await done(plane, state, 10.0)
    assert state.counts == {1: Tally(kept=2, ended=1, draining=30.0)}
    state = await done(plane, state, 30.0)
    assert state.counts == {1: Tally(ended=1, cut=2)}
    assert (plane.there, [it.left for it in state.left]) == ([], [0])
    assert (await done(plane, state, 30.0 + SETTLING)).left == ()


async def test_once_all_have_ended_a_drain_is_over_before_its_time() -> None:
    plane = Connections(tcp(1))
    state = await done(plane, begun(redis(2, 3600.0), draining=3600.0), 0.0)
    plane.there.clear()
    state = await done(plane, state, 10.0)
    assert state.counts == {1: Tally(ended=1)}
    assert [it.over_at for it in state.left] == [10.0 + SETTLING]
    (over,) = (await done(plane, state, 10.0 + SETTLING)).over
    assert over.receipt == 1


async def test_what_shows_up_late_is_cut_too() -> None:
    plane = Connections()
    state = await done(plane, begun(redis(2, 0.0)), 0.0)
    plane.there.append(tcp(1))
    assert (await done(plane, state, 1.0)).counts == {1: Tally(cut=1)}


async def test_the_newest_drain_takes_a_connection_and_the_others_do_not_count_it() -> None:
    plane = Connections(tcp(1), tcp(2, B))
    older, newer = redis(2, None), redis(3, 0.0, receipt=2)
    state = Drained((older, newer), (), {1: Tally(), 2: Tally()})
    assert (await done(plane, state, 0.0)).counts == {1: Tally(), 2: Tally(cut=2)}


async def test_the_drains_of_one_receipt_are_counted_together() -> None:
    plane = Connections(tcp(1), tcp(1, state="SYN_SENT", client=2), udp(1))
    names = Drain(receipt=1, listener=DNS, since=0, until=2, over_at=SETTLING)
    state = await done(plane, begun(redis(2), names), 0.0)
    assert state.counts == {1: Tally(kept=1, rescued=1, moved=1)}
    assert plane.there == [tcp(1)]


async def test_connections_to_who_is_spared_are_nobodys_business() -> None:
    plane = Connections(tcp(1, A), tcp(1, B))
    state = await done(plane, begun(redis(2, 0.0, spared=(B,))), 0.0)
    assert (plane.there, state.counts) == ([tcp(1, B)], {1: Tally(cut=1)})


async def test_a_receipt_that_nobody_keeps_is_not_counted() -> None:
    plane = Connections(tcp(1))
    assert (await done(plane, Drained((redis(2, 0.0),), (), {}), 0.0)).counts == {}
    assert plane.there == []


async def test_ends_that_cannot_be_told_are_cut_all_the_same() -> None:
    plane = Connections(tcp(1), silent=True)
    assert (await done(plane, begun(redis(2, 0.0)), 0.0)).counts == {1: Tally(cut=1)}
