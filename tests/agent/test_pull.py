"""How long a pull is tried, and what the Docker Engine itself is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.agent.pull import pulling, status_of
from dom0.agent.status import PullStatus
from dom0.compose.model import Project
from dom0.engine.values import EngineInfo, Image, PullProgress
from dom0.errors import Dom0Error, EngineError
from dom0.plan.facts import ImageNeed
from dom0.registry.credentials import Login
from dom0.registry.fetch import GaveUp
from dom0.registry.progress import Meter, Waiting
from dom0.testing.builders import image_id
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

BOX = Project(name="box")
NOBODY = "127.0.0.1:9/team/app:1"  # listens there


class Audience:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[tuple[PullStatus, ...]] = []
        self.noted: list[tuple[str, str, str, str]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, pulls: tuple[PullStatus, ...]) -> None:
        self.shown.append(pulls)

    def note(self, kind: str, subject: str, text: str, reason: str = "") -> None:
        self.noted.append((kind, subject, text, reason))


class InScope(FakeEngine):
    async def info(self) -> EngineInfo:
        return replace(await super().info(), labels=("dom0.scope=/guest",))


class Slow(InScope):
    """Something comes of an image every few seconds."""

    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        for _ in range(10):
            await asyncio.sleep(5.0)
            yield PullProgress(layer="one", status="Downloading")
        async for progress in super().pull_image(ref, platform=platform, login=login):
            yield progress


class Mute(InScope):
    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        await asyncio.sleep(1e6)
        yield PullProgress(layer="one", status="Downloading")


class Offline(InScope):
    async def pull_image(
        self, ref: str, *, platform: str = "", login: Mapping[str, str] = {}
    ) -> AsyncIterator[PullProgress]:
        yield PullProgress(layer="one", status="Pulling")
        raise EngineError("no route", transient=True)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOM0_STATE", "XDG_STATE_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))


def need(ref: str) -> ImageNeed:
    return ImageNeed(where="compose.yaml:3: services.web.image", ref=ref)


async def test_with_a_copy_at_hand_it_is_tried_briefly_and_why_it_waits_is_shown_meanwhile() -> None:
    audience = Audience()
    with pytest.raises(GaveUp, match="nothing else for 20 s"):
        async with pulling(Offline(FakeDocker()), BOX, audience) as pull:
            await pull(need("redis:7"), True)
    waits = [pull for pulls in audience.shown for pull in pulls if pull.waits_for]
    assert waits
    assert {pull.image for pull in waits} == {"redis:7"}
    assert audience.shown[-1] == ()


async def test_in_a_scope_the_engine_of_the_machine_around_it_pulls() -> None:
    engine = InScope(FakeDocker())
    engine.docker.images.registry["redis:7"] = Image(id=image_id("redis"), tags=("redis:7",))
    async with pulling(engine, BOX, Audience()) as pull:
        await pull(need("redis:7"), False)
    assert "redis:7" in {tag for image in await engine.images() for tag in image.tags}


async def test_a_pull_is_an_event_when_it_begins_and_when_it_ends() -> None:
    engine, audience = InScope(FakeDocker()), Audience()
    engine.docker.images.registry["redis:7"] = Image(id=image_id("redis"), tags=("redis:7",))
    async with pulling(engine, BOX, audience) as pull:
        await pull(need("redis:7"), False)
        with pytest.raises(GaveUp):
            await _pull_offline(audience)
        asked = asyncio.create_task(_pull_mute(audience))
        await asyncio.sleep(1.0)  # of virtual time
        asked.cancel()
        await asyncio.wait([asked])
    assert [(kind, subject) for kind, subject, _, _ in audience.noted] == [
        *(("pull-begun", "redis:7"), ("pull-done", "redis:7")),
        *(("pull-begun", "redis:7"), ("pull-failed", "redis:7")),
        *(("pull-begun", "redis:7"), ("pull-failed", "redis:7")),
    ]
    texts, reasons = [text for _, _, text, _ in audience.noted], [reason for *_, reason in audience.noted]
    assert texts[0] == "pull redis:7"
    assert texts[1].startswith("pulled redis:7: 0 MB came in ")
    assert texts[3].startswith("no pull of redis:7: 0 MB came in ")
    assert "no route" in reasons[3]
    assert reasons[5] == "it was ended"


async def _pull_offline(audience: Audience) -> None:
    async with pulling(Offline(FakeDocker()), BOX, audience) as pull:
        await pull(need("redis:7"), True)


async def _pull_mute(audience: Audience) -> None:
    async with pulling(Mute(FakeDocker()), BOX, audience) as pull:
        await pull(need("redis:7"), False)


async def test_in_a_scope_what_comes_slowly_is_not_given_up_for_a_copy_that_is_here() -> None:
    engine = Slow(FakeDocker())
    engine.docker.images.registry["redis:7"] = Image(id=image_id("redis"), tags=("redis:7",))
    async with pulling(engine, BOX, Audience()) as pull:
        await pull(need("redis:7"), True)
    assert "redis:7" in {tag for image in await engine.images() for tag in image.tags}


async def test_in_a_scope_an_engine_that_says_nothing_is_given_up() -> None:
    async with pulling(Mute(FakeDocker()), BOX, Audience()) as pull:
        with pytest.raises(GaveUp, match="nothing came for 20s"):
            await pull(need("redis:7"), True)


async def test_copies_at_hand_wait_once_for_a_registry_of_which_nothing_comes() -> None:
    audience = Audience()
    needs = [need(NOBODY.replace("app", name)) for name in ("one", "two", "three")]
    async with pulling(FakeEngine(FakeDocker()), BOX, audience) as pull:
        ended = await asyncio.gather(*(pull(each, True) for each in needs), return_exceptions=True)
    assert [type(each) for each in ended] == [GaveUp] * 3
    assert {each.image for shown in audience.shown for each in shown} == {needs[0].ref}
    assert "a moment ago" in str(ended[2])


async def test_why_and_until_when_it_waits_and_what_ends_it_is_said_once() -> None:
    audience = Audience()
    async with pulling(Offline(FakeDocker()), BOX, audience) as pull:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600.0):
                await pull(need("redis:7"), False)
    _, said = audience.said
    assert said.startswith("redis:7: no route; ")
    assert "until nothing has come for 1d" in said
    assert "Ctrl-C ends it" in said


async def test_a_login_that_cannot_be_read_is_said_and_the_registry_asked_without() -> None:
    async def find_login(_registry: str) -> Login | None:
        raise Dom0Error("config.json: is no JSON")

    audience = Audience()
    async with pulling(FakeEngine(FakeDocker()), BOX, audience, find_login) as pull:
        with pytest.raises(GaveUp):
            await pull(need(NOBODY), True)
    assert "127.0.0.1:9: asked without a login: config.json: is no JSON" in audience.said


async def test_what_is_no_name_of_an_image_is_refused_before_anybody_is_asked() -> None:
    async with pulling(FakeEngine(FakeDocker()), BOX, Audience()) as pull:
        with pytest.raises(Dom0Error, match="Redis: no name"):
            await pull(need("Redis"), False)


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("docker.io/library/redis:7: no connection to hub.example: refused", "no connection to hub.example: refused"),
        ("another process fetches sha256:0123456789ab", "another process fetches sha256:0123456789ab"),
        ("the Engine: /v1/images: no", "the Engine: /v1/images: no"),
    ],
)
async def test_why_it_waits_does_not_name_the_image_once_more(why: str, told: str) -> None:
    meter = Meter()
    meter.waits(0, Waiting(why, 1.0))
    assert status_of("redis:7", meter).waits_for == told
