"""What a node does in the farm's Swarm, on an Engine that does at once what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dom0.engine.protocol import Engine
from dom0.engine.swarm import Member, Service, SwarmMode, SwarmObject, SwarmState, Task
from dom0.engine.swarm_bodies import ContainerSpec, FileKind, MemberBody, Mode, ServiceBody, TaskSpec
from dom0.engine.values import Image
from dom0.errors import EngineError
from dom0.farms import float_follow, float_server
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_content import FARM, FloatProject, image_name
from dom0.farms.float_follow import float_along
from dom0.farms.float_news import FloatNews
from dom0.farms.float_swarm import FloatReport
from dom0.farms.revisions import Blob, FarmImage, Floating, Revision

from .test_float_server import Asker, asker, leading

__all__ = ["asker"]  # the fixture
DIGESTS = {word: f"sha256:{word * 64}" for word in ("a", "b")}


def publish(farm: FarmDirectory, number: int, word: str) -> None:
    blob = Blob(digest=DIGESTS[word], size=1)
    image = FarmImage(reference=image_name(blob.digest), manifest=blob, config=blob, layers=())
    task = TaskSpec(container_spec=ContainerSpec(image=image.reference))
    project = FloatProject(name="blog", services=(ServiceBody(name="blog_web", task_template=task, mode=Mode()),))
    floating = Floating(projects={"blog": project}, images=(image,))
    farm.revise(lambda _known: Revision(number=number, made=1.0, roles={}, floating=floating))


class Machine:
    """Engine and Swarm mode of one machine, and where its images come from."""

    def __init__(self, **labels: str) -> None:
        self.state = SwarmState(state="active", node="1", cluster="c", is_manager=True, labels=labels)
        self.tags = [image_name(DIGESTS["a"])]
        self.made: list[ServiceBody] = []
        self.asked = 0
        self.joins_that_fail = self.left = self.refusals = 0
        self.is_refusing = False
        self.lines = asyncio.Event()

    async def images(self) -> list[Image]:
        return [Image(id=tag, tags=(tag,)) for tag in self.tags]

    async def bring(self, image: FarmImage) -> None:
        await self.lines.wait()
        self.tags.append(image.reference)

    async def read(self, _blob: Blob) -> bytes:
        raise AssertionError

    async def close(self) -> None:
        pass

    async def place(self) -> SwarmState:
        if self.is_refusing:
            self.refusals += 1
            raise EngineError("nobody listens")
        return self.state

    async def init(self, _address: str, labels: dict[str, str]) -> None:
        self.state = SwarmState(state="active", node="1", cluster="c", is_manager=True, labels=labels)

    async def join(self, _address: str, _managers: tuple[str, ...], _token: str) -> None:
        """As the Engine, which goes on with one that took too long and does not try again what came to nothing."""
        if self.state.state != "inactive":
            raise EngineError("Swarm: swarm/join: This node is already part of a swarm")
        self.joins_that_fail -= 1
        if self.joins_that_fail >= 0:
            self.state = SwarmState(state="error", error="The swarm does not have a leader")
            raise EngineError("Swarm: swarm/join: Timeout was reached before node joined")
        self.state = SwarmState(state="active", node="2")

    async def leave(self) -> None:
        self.left += 1
        self.state = SwarmState(state="inactive")

    async def worker_token(self) -> str:
        self.asked += 1
        return "token"

    async def members(self) -> tuple[Member, ...]:
        self.asked += 1
        return (
            Member(
                id="1",
                version=1,
                hostname="one",
                labels={},
                role="manager",
                availability="active",
                state="ready",
                manager="10.0.0.1:2377",
                is_leader=True,
                is_reachable=True,
            ),
        )

    async def update_member(self, _member: Member, _body: MemberBody) -> None:
        self.asked += 1

    async def networks(self) -> tuple[SwarmObject, ...]:
        return ()

    async def files(self, _kind: FileKind) -> tuple[SwarmObject, ...]:
        return ()

    async def tasks(self) -> tuple[Task, ...]:
        return ()

    async def services(self) -> tuple[Service, ...]:
        newest = self.made[-1:]
        return tuple(
            Service(
                id="1",
                version=1,
                name=body.name,
                labels=body.labels,
                images=tuple(one.task_template.container_spec.image for one in self.made),
            )
            for body in newest
        )

    async def create_service(self, body: ServiceBody) -> None:
        self.made.append(body)

    async def update_service(self, _service: Service, body: ServiceBody) -> None:
        self.made.append(body)


async def follow(
    asker: Asker, machine: Machine, monkeypatch: pytest.MonkeyPatch, until: Callable[[], bool], name: str = "one"
) -> None:
    async def connect() -> SwarmMode:
        return cast("SwarmMode", machine)

    monkeypatch.setattr(SwarmMode, "connect", connect)
    monkeypatch.setattr(float_follow, "is_in_memory", lambda _path: False)  # where tests write may be
    engine, floats = cast("Engine", machine), FloatNews()
    floats.tell(1)
    async with asyncio.timeout(60):
        task = asyncio.create_task(
            float_along(floats, asker.farm.path, engine, asker.client, asker.secrets[name], machine)
        )
        while not until():  # noqa: ASYNC110 -- files and Engines tell nobody
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_nothing_is_read_or_written_in_a_swarm_without_the_farms_label(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(asker.farm, 1, "a")
    for labels in ({}, {FARM: "another"}):
        machine = Machine(**labels)
        expected = FloatReport(place=machine.state, images=(image_name(DIGESTS["a"]),))

        def is_told(expected: FloatReport = expected) -> bool:
            return [replace(one, since=0.0, last=0.0) for one in asker.farm.float_reports().values()] == [expected]

        await follow(asker, machine, monkeypatch, is_told)
        assert machine.asked == 0


async def test_what_is_told_is_done_while_an_image_does_not_come(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(asker.farm, 1, "a")
    machine = Machine()
    machine.state = SwarmState(state="inactive")
    await follow(asker, machine, monkeypatch, lambda: bool(machine.made))
    publish(asker.farm, 2, "b")
    await follow(asker, machine, monkeypatch, lambda: len(machine.made) == 2)
    assert machine.tags == [image_name(DIGESTS["a"])]
    machine.lines.set()
    await follow(asker, machine, monkeypatch, lambda: len(machine.tags) == 2)


async def test_a_join_that_came_to_nothing_is_tried_again(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(asker.farm, 1, "a")
    machine = Machine()
    machine.state = SwarmState(state="inactive")
    await asker.say("one", FloatReport(place=machine.state, images=tuple(machine.tags)))
    await asker.say("one", leading("one"))
    machine.joins_that_fail = 2
    await follow(asker, machine, monkeypatch, lambda: machine.state.state == "active", "two")
    assert machine.left == 2


async def test_who_is_out_of_the_swarm_by_no_join_of_this_process_is_left_to_people(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(asker.farm, 1, "a")
    machine = Machine()
    machine.state = SwarmState(state="error", error="can't initialize raft node")
    heard: set[float] = set()

    def is_heard_twice() -> bool:
        heard.update(one.since for one in asker.farm.float_reports().values())
        machine.state = replace(machine.state, error=f"can't initialize raft node, {len(heard)}")
        return len(heard) > 1

    await follow(asker, machine, monkeypatch, is_heard_twice, "two")
    assert machine.left == 0


async def test_of_an_engine_that_does_not_answer_any_more_its_last_word_is_not_said_again(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_follow, "AGAIN", 0.01)
    monkeypatch.setattr(float_server, "NOTED_EACH", 0.0)
    publish(asker.farm, 1, "a")
    machine = Machine(**{FARM: "attic"})

    def last() -> list[float]:
        return [one.last for one in asker.farm.float_reports().values()]

    seen: set[float] = set()

    def is_refused_often() -> bool:
        machine.is_refusing = bool(last())
        if machine.refusals:
            seen.update(last())
        return machine.refusals > 5

    await follow(asker, machine, monkeypatch, is_refused_often)
    assert len(seen) == 1


async def test_where_nothing_floats_neither_server_nor_engine_is_asked(asker: Asker) -> None:
    nothing = cast("Any", None)
    task = asyncio.create_task(float_along(FloatNews(), asker.farm.path, nothing, nothing, "", nothing))
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()
    task.cancel()
