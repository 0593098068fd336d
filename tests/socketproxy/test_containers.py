"""Containers of a scope, where the Engine does otherwise than it had said a moment before."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from dom0.engine.bodies import Empty, PortBinding
from dom0.socketproxy import containers, requests, strict
from dom0.socketproxy.context import Asked, Context, Document
from dom0.socketproxy.refusal import CONFLICT, Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import EngineAnswer
from dom0.testing.escape import bodies, still
from dom0.testing.escape.reach import Sent


class Otherwise(still.Still):
    """`seen` is what the container that was made is found to be, beyond what was asked for; or what comes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Mapping[str, Any] | BaseException = {}
        self.status = 200
        self.is_cut_off = False  # the answer to the request that makes it
        self.undone: Sequence[int] = ()  # what the Engine answers to removals, one after the other; then 204
        self.meanwhile: list[Callable[[], Awaitable[None]]] = []  # when it is looked at

    async def answer(self, sent: Sent) -> EngineAnswer:
        reply = await super().answer(sent)
        if self.is_cut_off and sent.path == ("containers", "create"):
            raise Refused(502, "the Engine behind this socket: gone")
        if sent.method == "DELETE" and self.undone:
            status, *self.undone = self.undone
            return EngineAnswer(status, {"message": "the disk is full"})
        if sent.method != "GET" or not self.made.keys() & {*sent.path}:
            return reply
        if self.meanwhile:
            await self.meanwhile.pop()()
        if isinstance(self.seen, BaseException):
            raise self.seen
        made = self.made[still.MADE]
        return EngineAnswer(
            self.status, {**made, **self.seen, "Config": {**made["Config"], **self.seen.get("Config", {})}}
        )


def context(engine: Otherwise) -> Context:
    return Context(Scope("guest"), still.GRANTS, engine, still.SOCKET)


async def create(context: Context) -> Document:
    body = requests.Container(image=still.IMAGE, labels={"mine": "1"}, volumes={"/data": Empty()})
    asked = Asked(method="POST", path=("containers", "create"), names={}, query={"name": "web"}, body=body)
    return await containers.created(context, asked)


def removed(engine: Otherwise) -> list[tuple[str, Mapping[str, object]]]:
    return [(sent.path[-1], sent.query) for sent in engine.sent if sent.method == "DELETE"]


@pytest.mark.parametrize("key", ["guest/mine", "guest/of-an-image", "dom0.orchestrator"])
async def test_a_container_with_labels_of_the_scope_is_made(key: str) -> None:
    engine = Otherwise()
    engine.seen = {"Config": {"Labels": {"dom0.scope": "/guest", key: ""}}}
    await create(context(engine))
    assert removed(engine) == []


@pytest.mark.parametrize(
    "seen",
    [
        *({"Config": {"Labels": {key: "x"}}} for key in ("traefik.enable", "com.docker.compose.project", "mine")),
        {"Config": {"Volumes": {"/data": {}, "/of-an-image": {}}}},
        {"Image": "sha256:" + "2" * 64},
    ],
)
async def test_a_container_of_what_nobody_has_looked_at_is_removed(seen: Mapping[str, object]) -> None:
    engine = Otherwise()
    engine.seen = seen
    with pytest.raises(Refused, match="has become another image meanwhile") as refused:
        await create(context(engine))
    assert refused.value.status == CONFLICT
    assert removed(engine) == [(still.MADE, {"v": "1", "force": "1"})]


@pytest.mark.parametrize("status", [404, 500, 503])
async def test_a_container_that_cannot_be_looked_at_is_removed(status: int) -> None:
    engine = Otherwise()
    engine.status = status
    with pytest.raises(Refused):
        await create(context(engine))
    assert removed(engine) == [(still.MADE, {"v": "1", "force": "1"})]


@pytest.mark.parametrize("error", [Refused(503, "too much is answered at once"), asyncio.CancelledError()])
async def test_a_container_is_removed_where_nobody_came_to_look_at_it(error: BaseException) -> None:
    engine = Otherwise()
    engine.seen = error
    with pytest.raises(type(error)):
        await create(context(engine))
    assert removed(engine) == [(still.MADE, {"v": "1", "force": "1"})]


@pytest.mark.parametrize(
    ("found", "is_removed"),
    [
        ({}, True),
        ({"State": {"Status": "running"}}, False),
        ({"Config": {"Labels": {}}}, False),
        ({"Config": {"Labels": {"dom0.scope": "/other"}}}, False),
    ],
)
async def test_what_the_engine_may_have_made_before_it_was_gone_is_removed(
    found: Mapping[str, object], is_removed: bool
) -> None:
    engine = Otherwise()
    engine.is_cut_off, engine.seen = True, found
    served = context(engine)
    with pytest.raises(Refused, match="gone"):
        await create(served)
    assert removed(engine) == ([(still.MADE, {"v": "1", "force": "0"})] if is_removed else [])
    assert served.unseen == set()


@pytest.mark.parametrize("reference", ["web", still.MADE])
async def test_a_container_is_found_by_nobody_before_it_was_looked_at(reference: str) -> None:
    engine = Otherwise()
    served = context(engine)
    start = Asked(method="POST", path=("containers", reference, "start"), names={"container": reference}, query={})

    async def meanwhile() -> None:
        with pytest.raises(Refused, match="No such container"):
            await containers.passed(served, start)

    engine.meanwhile.append(meanwhile)
    await create(served)
    assert not engine.meanwhile
    assert (await containers.passed(served, start)).path == ("containers", still.MADE, "start")


async def test_one_that_cannot_be_removed_stays_unseen_until_its_name_is_wanted() -> None:
    engine = Otherwise()
    served = context(engine)
    engine.seen, engine.undone = {"Image": "sha256:" + "2" * 64}, [500]
    with pytest.raises(Refused, match="the disk is full"):
        await create(served)
    assert served.unseen == {"guest.web"}
    engine.seen, engine.undone = {}, [500]
    with pytest.raises(Refused, match="the disk is full"):
        await create(served)
    await create(served)
    assert served.unseen == set()


class Publishing(still.Still):
    """The scope's container has some ports that the Engine chose."""

    async def answer(self, sent: Sent) -> EngineAnswer:
        reply = await super().answer(sent)
        if (sent.method, *sent.path) == ("GET", "containers", bodies.OWN, "json"):
            bound = {"80/tcp": [{"HostIp": "", "HostPort": "0"}] * 3, "81/tcp": [{"HostIp": "", "HostPort": "81"}]}
            reply = EngineAnswer(200, {**reply.document, "HostConfig": {"PortBindings": bound}})
        return reply


@pytest.mark.parametrize(("wanted", "may"), [(2, True), (3, False)])
async def test_all_containers_have_as_many_ports_that_the_engine_chooses_as_there_may_be_containers(
    wanted: int, may: bool
) -> None:
    bound = {"80/tcp": (PortBinding(),) * wanted, "81/tcp": (PortBinding(host_port="81"),)}
    body = requests.Container(image=still.IMAGE, host_config=requests.HostConfig(port_bindings=bound))
    asked = Asked(method="POST", path=("containers", "create"), names={}, query={"name": "web"}, body=body)
    granted = msgspec.structs.replace(still.GRANTS, ports=("0", "81"), containers=5)
    engine = Publishing()
    with contextlib.nullcontext() if may else pytest.raises(Refused, match="5, as many as containers"):
        await containers.created(Context(Scope("guest"), granted, engine, still.SOCKET), asked)
    assert any(sent.path == ("containers", "create") for sent in engine.sent) is may


async def test_ports_that_the_engine_has_chosen_are_counted_only_when_there_could_be_too_many() -> None:
    engine = Publishing()
    bound: dict[str, tuple[PortBinding, ...]] = {"80/tcp": (PortBinding(),)}
    granted = msgspec.structs.replace(still.GRANTS, ports=("0", "81"), containers=5)
    context = Context(Scope("guest"), granted, engine, still.SOCKET)
    body = requests.Container(image=still.IMAGE, host_config=requests.HostConfig(port_bindings=bound))
    for name, looks in (("web", 1), ("web1", 1), ("web2", 2)):  # 3 are there
        asked = Asked(method="POST", path=("containers", "create"), names={}, query={"name": name}, body=body)
        await containers.created(context, asked)
        assert sum(sent.path == ("containers", bodies.OWN, "json") for sent in engine.sent) == looks


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, f"container:{one}") for key in ("NetworkMode", "PidMode", "IpcMode") for one in ("dom0", "0" * 64)),
        *(("VolumesFrom", [one]) for one in ("dom0", "dom0:ro", "0" * 64)),
    ],
)
@pytest.mark.parametrize(("labels", "is_handed_on"), [({"dom0.orchestrator": "{}"}, False), ({}, True)])
async def test_an_orchestrator_hands_on_neither_namespaces_nor_mounts(
    key: str, value: object, labels: Mapping[str, str], is_handed_on: bool
) -> None:
    engine = still.Still()
    labels = {"dom0.scope": "/guest", **labels}
    orchestrator = {"Id": "0" * 64, "Name": "/guest.dom0", "Config": {"Labels": labels}, "Mounts": []}
    engine.made = dict.fromkeys(("0" * 64, "guest.dom0"), orchestrator)
    body = strict.read(json.dumps({"Image": still.IMAGE, "HostConfig": {key: value}}).encode(), requests.Container)
    asked = Asked(method="POST", path=("containers", "create"), names={}, query={"name": "web"}, body=body)
    with contextlib.nullcontext() if is_handed_on else pytest.raises(Refused, match=f"{key}.* hands on nothing"):
        await containers.created(Context(Scope("guest"), still.GRANTS, engine, still.SOCKET), asked)
    made = [sent for sent in engine.sent if sent.path == ("containers", "create")]
    assert len(made) == is_handed_on
