"""Roles that are paused as something has failed: people are told by the server, once, and once that it is over."""

from __future__ import annotations

import asyncio
import time

import pytest

from dom0.farms import rollout
from dom0.farms.directory import FarmDirectory
from dom0.farms.revisions import Blob, FarmImage, Revision, RoleContent, RoleState
from dom0.registry.manifest import digest_of
from dom0.testing.receiver import Receiver
from dom0.testing.told_house import House, Told
from dom0.testing.wires import eventually


def content(number: int) -> RoleContent:
    blob = Blob(digest=digest_of(str(number).encode()), size=1)
    return RoleContent(image=FarmImage(reference="dom0:latest", manifest=blob, config=blob, layers=(blob,)))


def publish(farm: FarmDirectory, number: int) -> None:
    roles = {"web": content(number)}
    farm.revise(lambda _known: Revision(number=number, made=time.time(), roles=roles))


async def until_well(house: House, number: int) -> None:
    def are_well() -> bool:
        wanted = (content(number).digest, RoleState.GOOD)
        return all((one.content, one.state) == wanted for one in house.reports.values())

    await asyncio.to_thread(eventually, are_well, patience=100)


@pytest.mark.usefixtures("hurried")
async def test_a_failure_is_told_once_and_when_all_is_well_again_also_by_the_next_server_and_no_pause_of_a_person(
    farm: FarmDirectory, receiver: Receiver, port: int
) -> None:
    house, second = House(farm, port, receiver), content(2).digest
    expected: list[Told] = [("attic: dom0 will tell you here", [], [])]
    async with house.served(port):
        publish(farm, 1)
        await until_well(house, 1)
        house.ends[second] = RoleState.FAILED
        publish(farm, 2)
        expected.append(("attic: role web is paused: pi0 failed: web is unhealthy", ["web"], []))
        await house.until_told(expected)
        assert "dom0 farm resume web" in receiver.posted("/hook")[-1]["text"]
    async with house.served(port):
        house.ends[second] = RoleState.TRYING
        farm.change_rollout(lambda state: (rollout.resume(state, ["web"]), None))
        house.off.add("pi4")
        expected.append(("attic: node pi4 is lost", ["pi4"], []))
        await house.until_told(expected)  # which takes longer than until something is over
        house.off.clear()
        expected.append(("attic: over: node pi4 is lost", [], ["pi4"]))
        await house.until_told(expected)
        house.ends.clear()
        expected.append(("attic: over: role web is paused: pi0 failed: web is unhealthy", [], ["web"]))
        await house.until_told(expected)
        await until_well(house, 2)
        farm.change_rollout(lambda state: (rollout.pause(state, ["web"], time.time()), None))
        publish(farm, 3)
        house.off.add("pi4")
        expected.append(("attic: node pi4 is lost", ["pi4"], []))
        await house.until_told(expected)
