"""What a farm's server tells its nodes about the Swarm, and what it gives to which of them, over TLS."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator

import msgspec
import pytest
from click.testing import CliRunner

from dom0.cli.commands import cli
from dom0.cli.farms.floating import PinnedFloats, check_names
from dom0.cli.farms.status import FarmStatus, FloatStatus
from dom0.engine.swarm import Member, SwarmState
from dom0.engine.swarm_bodies import ContainerSpec, Mode, ServiceBody, TaskSpec
from dom0.errors import ProjectError
from dom0.farms import nodes, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_content import FARM, FloatFile, FloatProject, image_name
from dom0.farms.float_swarm import IDLE, FloatOrder, FloatReport
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.pin import Pin, connect, fingerprint
from dom0.farms.revisions import Blob, FarmImage, Floating, FollowRequest, NodeReport, Order, Revision
from dom0.http.client import Client
from dom0.registry.manifest import digest_of

IMAGE, SECRET = b"an image", b"open sesame"
TOKEN = "SWMTKN-1-of-the-swarm"
NAME = image_name(digest_of(IMAGE))


class Asker:
    def __init__(self, farm: FarmDirectory, server: Pin) -> None:
        self.farm = farm
        self.client = Client(lambda: connect(server), "farm")
        self.secrets: dict[str, str] = {}

    def enroll(self, name: str) -> None:
        secret = self.secrets[name] = secrets.token_hex(32)
        hear = (key_of(secret), MachineInfo(), "10.0.0.1", 1e12, nodes.draw_code)
        waiting = self.farm.change(lambda before: nodes.hear(before, *hear))
        self.farm.change(lambda before: nodes.approve(before, waiting.code, name, "web"))
        self.farm.change(lambda before: nodes.hear(before, *hear))

    async def ask(self, name: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.secrets.get(name, secrets.token_hex(32))}"}
        async with self.client.ask(method, path, headers=headers, body=body) as answer:
            return answer.status, b"".join([piece async for piece in answer.chunks()])

    async def say(self, name: str, report: FloatReport | None) -> FloatOrder:
        status, said = await self.ask(name, "POST", "/v1/float", msgspec.json.encode({"report": report}))
        assert status == 200, said
        return msgspec.json.decode(said, type=FloatOrder)

    async def get(self, name: str, content: bytes) -> int:
        return (await self.ask(name, "GET", f"/v1/blobs/{digest_of(content)}"))[0]


@pytest.fixture
async def asker(farm: FarmDirectory) -> AsyncIterator[Asker]:
    (farm.path / "farm.yaml").write_text("name: attic\nfloat: {managers: [one]}\n")
    listening = socket.create_server(("127.0.0.1", 0))
    made = Asker(farm, Pin("127.0.0.1", listening.getsockname()[1], fingerprint(farm.server_pem)))
    for name in ("one", "two"):
        made.enroll(name)
    async with serve.serve(farm, listening):
        yield made
        await made.client.close()


def publish(farm: FarmDirectory) -> None:
    for content in (IMAGE, SECRET):
        farm.add_blob(digest_of(content), [content])
    blob = Blob(digest=digest_of(IMAGE), size=len(IMAGE))
    image = FarmImage(reference=NAME, manifest=blob, config=blob, layers=())
    task = TaskSpec(container_spec=ContainerSpec(image=NAME))
    project = FloatProject(
        name="blog",
        files={"blog_word": FloatFile(kind="secret", digest=digest_of(SECRET), size=len(SECRET))},
        services=(ServiceBody(name="blog_web", task_template=task, mode=Mode()),),
    )
    floating = Floating(projects={"blog": project}, images=(image,))
    farm.revise(lambda _known: Revision(number=1, made=1.0, roles={}, floating=floating))


def leading(node: str) -> FloatReport:
    member = Member(
        id=f"id {node}",
        version=1,
        hostname=node,
        labels={},
        role="manager",
        availability="active",
        state="ready",
        manager="10.0.0.1:2377",
        is_leader=True,
        is_reachable=True,
    )
    place = SwarmState(state="active", node=member.id, is_manager=True, cluster="c", labels={FARM: "attic"})
    return FloatReport(place=place, images=(NAME,), token=TOKEN, members=(member,))


OUT = FloatReport(place=SwarmState(state="inactive"), images=(NAME,))


async def test_a_farm_in_which_nothing_floats_leaves_its_nodes_alone(asker: Asker) -> None:
    assert await asker.say("one", None) == FloatOrder(farm="attic", address="10.0.0.1", again=IDLE)
    assert not (asker.farm.state / "float.json").exists()


async def test_a_machine_that_is_no_node_is_told_nothing(asker: Asker) -> None:
    publish(asker.farm)
    assert (await asker.ask("nobody", "POST", "/v1/float", b"{}"))[0] == 403
    assert await asker.get("nobody", IMAGE) == 403
    assert (await asker.ask("one", "POST", "/v1/float", b'{"report": {"place": 1}}'))[0] == 400


async def test_who_makes_the_swarm_is_on_the_disk_before_it_is_told(asker: Asker) -> None:
    publish(asker.farm)
    await asker.say("two", OUT)
    assert (await asker.say("one", OUT)).init
    assert asker.farm.float_state().began == key_of(asker.secrets["one"])
    assert not (await asker.say("two", OUT)).init


async def test_secrets_go_to_the_one_that_writes_alone_and_tokens_to_no_disk(asker: Asker) -> None:
    publish(asker.farm)
    await asker.say("one", OUT)
    assert (await asker.get("one", SECRET), await asker.get("one", IMAGE)) == (403, 200)
    assert (await asker.say("one", leading("one"))).write is not None
    join = (await asker.say("two", OUT)).join
    assert join is not None
    assert (join.token, join.managers) == (TOKEN, ("10.0.0.1:2377",))
    assert (await asker.get("one", SECRET), await asker.get("two", SECRET)) == (200, 403)
    assert await asker.get("two", IMAGE) == 200
    assert (await asker.say("two", leading("two"))).write is None  # nobody has made it a manager
    assert await asker.get("two", SECRET) == 403
    kept = [path.read_bytes() for path in asker.farm.state.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in kept)


async def test_a_node_that_was_removed_is_told_nothing_any_more(asker: Asker) -> None:
    publish(asker.farm)
    await asker.say("two", OUT)
    assert await asker.get("two", IMAGE) == 200
    asker.farm.change(lambda before: nodes.remove(before, "two"))
    assert await asker.get("two", IMAGE) == 403
    assert (await asker.ask("two", "POST", "/v1/float", b"{}"))[0] == 403
    assert key_of(asker.secrets["two"]) not in asker.farm.float_reports()


async def test_without_a_current_revision_nothing_that_floats_is_taken_for_gone(asker: Asker) -> None:
    publish(asker.farm)
    await asker.say("one", OUT)
    assert (await asker.say("one", leading("one"))).write is not None
    (asker.farm.state / "current.json").unlink()
    assert await asker.say("one", leading("one")) == FloatOrder(farm="attic", address="10.0.0.1", again=IDLE)
    asker.farm.revise(lambda known: known[0])
    write = (await asker.say("one", leading("one"))).write
    assert write is not None
    assert write.projects.keys() == {"blog"}


async def test_nodes_hear_with_what_they_are_to_run_in_which_revision_something_floats(asker: Asker) -> None:
    async def told(number: int) -> None:
        body = msgspec.json.encode(FollowRequest(report=NodeReport(), told=""))
        async with asyncio.timeout(60):
            while True:
                status, said = await asker.ask("one", "POST", "/v1/follow", body)
                if status == 200 and msgspec.json.decode(said, type=Order).floats == number:
                    return

    await told(0)
    publish(asker.farm)
    await told(1)
    await asker.say("one", OUT)
    assert asker.farm.float_state().began
    asker.farm.revise(lambda _known: Revision(number=2, made=1.0, roles={}))
    await told(2)  # there is a Swarm, in which things have to be removed


def test_what_floats_is_not_called_as_what_a_role_runs() -> None:
    floats = PinnedFloats(projects={"blog": FloatProject(name="box")}, images={}, contents={})
    check_names(floats, {"web": "house"})
    with pytest.raises(ProjectError, match="float/blog: name: box is that of roles/web too"):
        check_names(floats, {"store": "house", "web": "box"})


async def test_while_managers_hear_no_majority_nobody_says_what_has_to_be_done(asker: Asker) -> None:
    def look() -> FloatStatus:
        said = CliRunner().invoke(cli, ["farm", "status", "--json", "--dir", str(asker.farm.path)]).stdout
        return msgspec.json.decode(said, type=FarmStatus).floating

    publish(asker.farm)
    await asker.say("one", OUT)
    assert [step.change for step in look().steps] == ["create", "create"]
    await asker.say("one", leading("one"))
    assert [step.change for step in look().steps] == ["create", "create"]
    alone = SwarmState(state="active", node="id one", is_manager=True, error="too few managers are online")
    await asker.say("one", FloatReport(place=alone, images=(NAME,)))
    found = look()
    assert (found.writer, found.steps) == ("", ())
    assert found.waits["one"].startswith("too few managers are online; what runs goes on, ")
