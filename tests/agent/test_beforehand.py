"""What is created for an agent while it is loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.agent import beforehand
from dom0.agent.foresee import Running
from dom0.agent.generations import Generation
from dom0.agent.status import Created, Outcome
from dom0.engine.bodies import ContainerBody, NetworkBody
from dom0.errors import EngineError
from dom0.plan import labels
from dom0.plan.desired import Desired
from dom0.plan.memory import Memory
from dom0.testing.box import Box
from dom0.testing.builders import NETWORK, PROJECT, asking, desired, network_spec, slot
from dom0.testing.fake_engine import Call

WEB, REDIS = "box-web-1", "box-redis-1"
ALL = ["create network box_default", f"create {WEB}", f"create {REDIS}"]


@pytest.fixture
async def box() -> Box:
    """One that was taken down: its agent was there before, and has its key."""
    box = Box(desired(slot("web"), slot("redis")))
    async with box.running():
        await box.at_rest()
    for name in (WEB, REDIS):
        await box.person.remove_container(name, force=True)
    await box.person.remove_network(NETWORK)
    box.memory = Memory()
    return box


class Command:
    """`dom0 up`, while the agent of `box` is loaded."""

    def __init__(self, box: Box, state: Path) -> None:
        self.box = box
        self.running = Running(seal=box.seal, state=state)
        self.said: list[str] = []
        self.answering: asyncio.Future[bool] = asyncio.Future()

    async def create(self, **fields: object) -> None:
        running = replace(self.running, **fields)
        await beforehand.create_beforehand(self.box.person, self.box.desired, running, self._told, self.answering)

    def _told(self, what: Created, service: str) -> None:
        assert what.name.split("-")[1:2] == ([service] if service else [])
        self.said.append(what.text)

    async def ids(self) -> dict[str, str]:
        """Name -> ID of everything on the Engine."""
        networks = {one.name: one.id for one in await self.box.person.networks()}
        return networks | {one.name: one.id for one in await self.box.person.containers()}


@pytest.fixture
def command(box: Box, tmp_path: Path) -> Command:
    return Command(box, tmp_path)


async def test_it_is_the_agents_as_if_it_had_created_it(command: Command) -> None:
    await command.create()
    box, before = command.box, await command.ids()
    assert sorted(command.said) == sorted(ALL)
    assert box.names() == {WEB: "created", REDIS: "created"}
    async with box.running():
        await box.at_rest()
        assert box.names() == {WEB: "running", REDIS: "running"}
        assert await command.ids() == before
        box.aim(Desired(project=PROJECT))
        await box.at_rest()
        assert {WEB, REDIS, NETWORK}.isdisjoint(await command.ids())


async def test_a_container_says_of_which_generation_it_is(command: Command, tmp_path: Path) -> None:
    for number in ("3", "4"):
        (tmp_path / "generations" / number).mkdir(parents=True)
    (tmp_path / "generations/3/generation.json").touch()  # the other one never became whole
    await command.create()
    assert (await command.box.person.container(WEB)).labels[labels.GENERATION] == "4"


@pytest.mark.parametrize("what", ["no key", "unreadable", "generation", "adopted"])
async def test_nothing_is_created_for_an_agent_that_would_not_know_it_or_goes_on_by_itself(
    command: Command, what: str
) -> None:
    box, before = command.box, await command.ids()
    current = Generation(
        number=1, created=1.0, cause="dom0 up", dom0_image="", desired=box.desired, outcome=Outcome.GOOD
    )
    if what == "adopted":
        box.desired = replace(box.desired, adopted={"0" * 64: {}})
    fields: dict[str, dict[str, object]] = {
        "no key": {"seal": replace(box.seal, older=None)},
        "unreadable": {"state": None},
        "generation": {"generation": current},
    }
    await command.create(**fields.get(what, {}))
    assert (await command.ids(), command.said) == (before, [])


async def test_what_is_there_and_what_is_external_is_left_alone(command: Command) -> None:
    box = command.box
    await box.person.create_network(NETWORK, NetworkBody(driver="bridge"))
    await box.person.create_container(WEB, ContainerBody(image="app", cmd=("sleep", "1")))
    before = await command.ids()
    external = replace(network_spec(), key="other", name="other", external=True)
    box.desired = replace(box.desired, networks=(*box.desired.networks, external))
    await command.create()
    assert {name: id_ for name, id_ in (await command.ids()).items() if name in before} == before
    assert "other" not in await command.ids()
    assert "create network box_default" not in command.said


async def test_what_waits_for_something_is_left_to_the_agent(command: Command) -> None:
    inside = asking(slot("inside"), host={"network_mode": "service:web"})
    command.box.desired = desired(slot("web"), replace(inside, attachments=(), parents=("web",)))
    await command.create()
    assert sorted(command.said) == sorted(ALL[:2])


async def test_what_the_engine_refuses_is_for_the_agent_to_tell_of(command: Command) -> None:
    def refuse(call: Call) -> None:
        if call.what in (NETWORK, WEB):
            raise EngineError("no room")

    command.box.person.before = refuse
    await command.create()
    assert command.said == ALL[2:]


async def test_once_the_agent_answers_nothing_more_is_created(command: Command) -> None:
    many = [slot(f"s{number}") for number in range(3 * beforehand.CREATES)]
    command.box.desired = desired(*many)

    def answer(call: Call) -> None:
        if call.name == "create_container" and not command.answering.done():
            command.answering.set_result(True)

    command.box.person.before = answer
    await command.create()
    assert set(command.said) < {f"create box-{one.service}-1" for one in many} | {ALL[0]}
    assert len(command.said) <= beforehand.CREATES + 1
