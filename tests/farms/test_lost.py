"""Nodes that are lost: when they are, and that people are told by the server, once, over its restarts too."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.farms import orders
from dom0.farms.directory import FarmDirectory
from dom0.farms.lost import TOGETHER, find_lost
from dom0.farms.rollout import REBOOT_WITHIN, SILENT, Lock, RolloutState, drain
from dom0.testing.receiver import Receiver
from dom0.testing.told_house import House, Told

LOOK = 5.0  # seconds


def test_a_node_is_lost_that_is_silent_for_longer_than_it_may() -> None:
    silent = {"nas": 10.0, "pi1": SILENT - TOGETHER - 1, "pi2": SILENT}
    assert find_lost(RolloutState(), silent, ()) == ["pi2"]
    assert find_lost(RolloutState(), silent | {"pi2": SILENT - 1}, ()) == []
    assert find_lost(RolloutState(), silent, ["nas"]) == ["nas", "pi2"]
    assert find_lost(drain(RolloutState(), "pi2"), silent, ["pi2"]) == []
    reboots = RolloutState(locks=(Lock(group="web", id="pi2", since=0.0),))
    assert find_lost(reboots, silent, ()) == []
    assert find_lost(reboots, {"pi2": REBOOT_WITHIN}, ()) == ["pi2"]
    other = RolloutState(locks=(Lock(group="web", id="pi2", since=0.0, foreign=True),))
    assert find_lost(other, silent, ()) == ["pi2"]


@given(st.lists(st.floats(0, orders.WAIT), min_size=1, max_size=50), st.floats(0, LOOK))
def test_those_that_one_power_cut_took_are_lost_at_the_same_look(words: list[float], first: float) -> None:
    """`words`: how long before it each of them has said its last one: it asks again when it has its answer."""
    while True:
        found = find_lost(RolloutState(), {str(number): first + word for number, word in enumerate(words)}, ())
        if found:
            break
        first += LOOK
    assert len(found) == len(words)


@pytest.mark.usefixtures("hurried")
async def test_each_loss_is_told_once_and_that_it_is_over_also_by_the_next_server(
    farm: FarmDirectory, receiver: Receiver, port: int
) -> None:
    house = House(farm, port, receiver)

    expected: list[Told] = [("attic: dom0 will tell you here", [], [])]
    async with house.served(port):
        await house.until_told(expected)
        house.off.add("pi1")
        expected.append(("attic: node pi1 is lost", ["pi1"], []))
        await house.until_told(expected)
        assert "dom0 farm drain pi1" in receiver.posted("/hook")[-1]["text"]
    async with house.served(port):
        for name in ("pi0", "pi2", "pi3", "pi4"):
            house.off.add(name)
            await asyncio.sleep(0.1)
        expected.append(("attic: node pi0 is lost, and 3 more", ["pi0", "pi2", "pi3", "pi4"], []))
        await house.until_told(expected)
    async with house.served(port):
        house.off.remove("pi1")
        expected.append(("attic: over: node pi1 is lost", [], ["pi1"]))
        await house.until_told(expected)
