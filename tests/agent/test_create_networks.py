"""Networks that are created for an agent while it is loaded."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.agent.apply import create_networks
from dom0.engine.bodies import NetworkBody
from dom0.errors import EngineError
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory
from dom0.plan.ownership import Seal
from dom0.testing.box import Box
from dom0.testing.builders import NETWORK, PROJECT, desired, network_spec, slot
from dom0.testing.fake_engine import Call


async def taken_down() -> Box:
    """One whose agent was there before, and has its key."""
    box = Box(desired(slot("web")))
    async with box.running():
        await box.at_rest()
    await box.person.remove_container("box-web-1", force=True)
    await box.person.remove_network(NETWORK)
    box.memory = Memory()
    return box


async def ids(box: Box) -> dict[str, str]:
    return {network.name: network.id for network in await box.person.networks()}


async def test_they_are_the_agents_as_if_it_had_created_them() -> None:
    box, said = await taken_down(), list[str]()
    await create_networks(box.person, box.desired, box.seal, said.append)
    before = await ids(box)
    assert said == [NETWORK]
    async with box.running():
        await box.at_rest()
        assert NETWORK in before
        assert await ids(box) == before
        box.aim(Desired(project=PROJECT))
        await box.at_rest()
        assert NETWORK not in await ids(box)


async def test_none_is_created_before_the_agent_has_its_key() -> None:
    box, said = await taken_down(), list[str]()
    before = await ids(box)
    await create_networks(box.person, box.desired, Seal(), said.append)
    assert await ids(box) == before
    assert said == []


async def test_what_is_there_and_what_is_external_is_left_alone() -> None:
    box, said = await taken_down(), list[str]()
    await box.person.create_network(NETWORK, NetworkBody(driver="bridge"))
    before = await ids(box)
    external = replace(network_spec(), key="other", name="other", external=True)
    await create_networks(
        box.person, replace(box.desired, networks=(*box.desired.networks, external)), box.seal, said.append
    )
    assert await ids(box) == before


async def test_one_that_the_engine_refuses_is_for_the_agent_to_tell_of() -> None:
    box, said = await taken_down(), list[str]()

    def refuse(call: Call) -> None:
        if call.name == "create_network" and call.what == NETWORK:
            raise EngineError("no room")

    box.person.before = refuse
    other = replace(network_spec(), key="other", name="other")
    await create_networks(
        box.person, replace(box.desired, networks=(*box.desired.networks, other)), box.seal, said.append
    )
    found = await ids(box)
    assert said == ["other"]
    assert "other" in found
    assert NETWORK not in found
