"""A target is down after some failures in a row, and up again after some successes."""

from __future__ import annotations

import asyncio
import socket

from dom0.ambassador.declaration import Probing
from dom0.ambassador.probe import Probes, TargetHealth, accepts, judge
from dom0.forward.table import Target
from dom0.testing.wires import PATIENCE

PROBING = Probing(interval=0.02, timeout=1.0, fall=3, rise=2)


def after(tries: str) -> bool:
    """`+` is a connection that was accepted, `-` one that was not."""
    health = TargetHealth()
    for one in tries:
        health = judge(health, PROBING, accepted=one == "+")
    return health.up


def test_it_takes_failures_in_a_row_to_be_down() -> None:
    assert [after(tries) for tries in ("-", "--", "---", "--+--", "+---")] == [True, True, False, True, False]


def test_it_takes_successes_in_a_row_to_be_up_again() -> None:
    assert [after("---" + tries) for tries in ("+", "++", "+-+", "+-++")] == [False, True, False, True]


async def test_a_target_is_watched_as_it_goes_and_comes() -> None:
    changed = asyncio.Event()
    probes = Probes(changed.set)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target("127.0.0.1", port)
    async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
        probes.watch({target: PROBING}, group)
        server.close()
        await changed.wait()
        assert probes.unhealthy == {str(target)}
        changed.clear()
        again = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
        await changed.wait()
        assert probes.unhealthy == frozenset()
        again.close()
        probes.watch({}, group)


async def test_what_was_down_before_the_start_is_down_until_it_answers() -> None:
    probes = Probes(lambda: None)
    probes.know(["127.0.0.1:1"])
    async with asyncio.TaskGroup() as group:
        probes.watch({Target("127.0.0.1", 1): PROBING, Target("127.0.0.1", 2): PROBING}, group)
        assert probes.unhealthy == {"127.0.0.1:1"}
        probes.watch({}, group)
        assert probes.unhealthy == frozenset()


async def test_a_connection_that_nobody_answers_is_no_success() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        assert not await accepts(Target("127.0.0.1", full.getsockname()[1]), 0.2)
