"""Where services of other nodes are: what the server makes of what nodes say, and nodes that say and hear it."""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.engine.values import PublishedPort
from dom0.farms import follow, join, nodes, orders, serve, services
from dom0.farms.base_os import BaseOsHost
from dom0.farms.directory import FarmDirectory
from dom0.farms.join import Membership
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.pin import Pin, connect, fingerprint
from dom0.farms.revisions import NodeReport, Order
from dom0.farms.services import NodePort, Offer, ServicesAnswer, ServicesRequest, find
from dom0.farms.tunnel import Peer, address_of
from dom0.http.client import Client
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.farm_node import NoMachine

REDIS, FAR = "service:redis:6379", "plaintext:node:nas/service:redis:6379"
TUNNEL = "node:nas/service:redis:6379"
KEY, OTHER_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
OURS = (PublishedPort("tcp", 7000),)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "EVERY", 0.05)
    monkeypatch.setattr(services, "SOON", 0.02)
    monkeypatch.setattr(orders, "LOOK_AGAIN", 0.02)


# what is made of it


def places(*of: tuple[int, str]) -> Offer:
    return Offer(is_ready=True, places=tuple(NodePort(*place) for place in of))


@pytest.mark.parametrize(
    ("offer", "address", "found", "why"),
    [
        (None, "10.9.0.1", None, ""),
        (places((7000, "")), "10.9.0.1", ("10.9.0.1:7000",), ""),
        (places((7000, "")), "fd00::1", ("[fd00::1]:7000",), ""),
        (places((1, "10.9.0.1"), (2, "127.0.0.1"), (3, "")), "10.9.0.1", ("10.9.0.1:1", "10.9.0.1:3"), ""),
        (
            places((7000, "10.9.0.2")),
            "10.9.0.1",
            (),
            "nas publishes it at 10.9.0.2, and asks the farm's server from 10.9",
        ),
        (places((7000, "127.0.0.1")), "127.0.0.1", (), "nas asks the farm's server from 127.0.0.1"),
        (places((7000, "")), "fe80::1%eth0", (), "nas asks the farm's server from fe80::1%eth0"),
        (places(), "10.9.0.1", (), "nas publishes no fixed TCP port for it"),
        (Offer(is_ready=False), "10.9.0.1", (), "nothing of it is ready on nas"),
    ],
)
def test_a_service_is_at_a_port_that_is_published_at_the_address_its_node_asks_from(
    offer: Offer | None, address: str, found: tuple[str, ...] | None, why: str
) -> None:
    assert find(REDIS, "nas", {REDIS: offer} if offer else {}, address)[0] == found
    assert find(REDIS, "nas", {REDIS: offer} if offer else {}, address)[1].startswith(why)


# over TLS


class Neighbours:
    """Of one node. `told`: what it was told last."""

    def __init__(self) -> None:
        self.wanted: frozenset[str] | None = frozenset()
        self.ports: dict[str, tuple[PublishedPort, ...] | None] = {}
        self.asked: set[str] = set()
        self.told: tuple[Mapping[str, tuple[str, ...]], Mapping[str, str]] = ({}, {})

    def tell(self, found: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]) -> None:
        self.told = (found, reasons)

    def published(self, wanted: Iterable[str]) -> Mapping[str, tuple[PublishedPort, ...] | None]:
        self.asked = set(wanted)
        return {service: self.ports[service] for service in self.asked & self.ports.keys()}

    def entrances(self, _services: Iterable[str]) -> Mapping[str, tuple[tuple[int, str, int], ...]]:
        return {}

    async def hears(self, reason: str) -> None:
        async with asyncio.timeout(30):
            while not any(why.startswith(reason) for why in self.told[1].values()):  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.01)


class Farm:
    def __init__(self, directory: FarmDirectory, server: Pin, state: Path) -> None:
        self.directory = directory
        self.server = server
        self.state = state
        self.secrets: dict[str, str] = {}

    def enroll(self, name: str) -> None:
        secret = self.secrets[name] = secrets.token_hex(32)
        hear = (key_of(secret), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code)
        waiting = self.directory.change(lambda before: nodes.hear(before, *hear))
        self.directory.change(lambda before: nodes.approve(before, waiting.code, name, "web"))
        self.directory.change(lambda before: nodes.hear(before, *hear))

    @asynccontextmanager
    async def following(self, name: str) -> AsyncIterator[Neighbours]:
        neighbours, state = Neighbours(), self.state / name
        state.mkdir(parents=True, exist_ok=True)
        address = f"{self.server.host}:{self.server.port}"
        known = Membership(
            fingerprint=self.server.fingerprint, secret=self.secrets[name], address=address, name=name, role="web"
        )
        join.keep(state, join.read(state), known)
        engine = FakeEngine(FakeDocker())
        task = asyncio.create_task(follow.follow(state, engine, NoMachine(), BaseOsHost(), neighbours))
        try:
            yield neighbours
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def ask(self, client: Client, name: str, path: str, said: object) -> tuple[int, bytes]:
        secret = self.secrets.get(name, "0" * 64)
        return await join.ask(client, path, secret, msgspec.json.encode(said))

    async def say(self, client: Client, name: str, said: ServicesRequest) -> ServicesAnswer:
        status, answer = await self.ask(client, name, "/v1/services", said)
        assert status == 200, answer
        return msgspec.json.decode(answer, type=ServicesAnswer)


@asynccontextmanager
async def serving(farm: FarmDirectory, port: int) -> AsyncIterator[None]:
    listening = socket.create_server(("127.0.0.1", port), reuse_port=True)
    async with asyncio.timeout(60), serve.serve(farm, listening):
        yield


@pytest.fixture
def made(farm: FarmDirectory, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Farm:
    monkeypatch.setenv("DOM0_STATE", str(tmp_path / "pulls"))
    found = Farm(farm, Pin("127.0.0.1", port, fingerprint(farm.server_pem)), tmp_path)
    for name in ("nas", "pi"):
        found.enroll(name)
    return found


@pytest.fixture
async def client(made: Farm) -> AsyncIterator[Client]:
    asking = Client(lambda: connect(made.server), "farm")
    yield asking
    await asking.close()


async def test_a_node_is_asked_for_what_others_want_and_for_nothing_else(made: Farm, port: int) -> None:
    async with serving(made.directory, port), made.following("nas") as nas, made.following("pi") as pi:
        nas.ports = {REDIS: OURS, "service:secret:1": OURS}
        nobody = "plaintext:node:nobody/service:x:1"
        pi.wanted = frozenset({FAR, nobody})
        await pi.hears("nas asks the farm's server from 127.0.0.1")  # where the test has both
        assert pi.told[0] == {FAR: (), nobody: ()}
        assert pi.told[1][nobody] == "nobody is no node of the farm"
        assert (nas.asked, pi.asked) == ({REDIS}, set())
        nas.ports = {REDIS: None}
        await pi.hears("nothing of it is ready on nas")
        nas.ports = {REDIS: ()}
        await pi.hears("nas publishes no fixed TCP port for it")


async def test_where_a_node_or_the_server_is_silent_nothing_is_known_and_it_is_said_why(
    made: Farm, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "SILENT", 1.0)
    async with made.following("pi") as pi:
        async with serving(made.directory, port):
            async with made.following("nas") as nas:
                nas.ports = {REDIS: ()}
                pi.wanted = frozenset({FAR})
                await pi.hears("nas publishes no fixed TCP port for it")
            await pi.hears("nas has said nothing of it for 1 seconds or more")
            assert pi.told[0] == {}
        await pi.hears("the farm's server does not say: ")
        assert pi.told[0] == {}
        async with serving(made.directory, port), made.following("nas") as nas:
            nas.ports = {REDIS: ()}
            await pi.hears("nas publishes no fixed TCP port for it")


async def test_a_node_that_is_asked_hears_of_it_with_its_order_which_is_no_other_one(
    made: Farm, port: int, client: Client
) -> None:
    async with serving(made.directory, port):
        said = {"report": NodeReport(), "told": ""}
        order = msgspec.json.decode((await made.ask(client, "nas", "/v1/follow", said))[1], type=Order)
        assert not order.services
        waiting = asyncio.create_task(made.ask(client, "nas", "/v1/follow", said | {"told": order.told}))
        answer = await made.say(client, "pi", ServicesRequest(wants=(FAR,)))
        assert answer == ServicesAnswer(), "nas has had no time to say anything"
        asked = msgspec.json.decode((await waiting)[1], type=Order)
        assert msgspec.structs.replace(asked, services=False, told=order.told) == order
        assert asked.services
        answer = await made.say(client, "nas", ServicesRequest())
        assert answer == ServicesAnswer(asked=(REDIS,))


# by tunnels between nodes


READY = Offer(is_ready=True, places=(NodePort(7000),), entrances=(7000,))


async def test_nodes_are_told_the_keys_of_those_that_they_want_something_of_or_that_want_something_of_them(
    made: Farm, port: int, client: Client
) -> None:
    made.enroll("other")
    async with serving(made.directory, port):
        wants = ServicesRequest(wants=(TUNNEL,), key=KEY)
        assert await made.say(client, "pi", wants) == ServicesAnswer(), "nas has had no time to say anything"
        answer = await made.say(client, "nas", ServicesRequest(key=OTHER_KEY, offers={REDIS: READY}))
        assert (answer.asked, answer.guests) == ((REDIS,), {REDIS: (KEY,)})
        assert answer.peers == (Peer(KEY, "127.0.0.1"),)
        answer = await made.say(client, "pi", wants)
        assert answer.found == {TUNNEL: (f"{address_of(OTHER_KEY)}:7000",)}
        assert answer.peers == (Peer(OTHER_KEY, "127.0.0.1"),)
        assert not answer.guests
        third = base64.b64encode(bytes(32)).decode()
        answer = await made.say(client, "other", ServicesRequest(wants=(FAR,), key=third))
        assert answer.peers == (), "whoever goes without a tunnel is told no key, nor is its own"
        assert (await made.say(client, "nas", ServicesRequest(key=OTHER_KEY))).guests == {REDIS: (KEY,)}


@pytest.mark.parametrize(
    ("pi", "nas", "why"),
    [
        ({"lacks": "its kernel is old"}, {"key": KEY}, "pi has no tunnel: its kernel is old; `plaintext: true` goes"),
        ({"key": KEY}, {"lacks": "its kernel is old"}, "nas has no tunnel: its kernel is old; `plaintext: true` goes"),
        ({"key": KEY}, {"key": KEY}, "the address of pi in the tunnel is another node's too: remove its farm-wi"),
        ({"key": KEY}, {"key": OTHER_KEY, "offers": {REDIS: Offer(is_ready=True)}}, "nas publishes no fixed TCP port"),
        ({"key": KEY}, {"key": OTHER_KEY, "offers": {REDIS: Offer(is_ready=False)}}, "nothing of it is ready on nas"),
    ],
)
async def test_where_there_is_no_tunnel_nothing_is_found_and_it_is_said_why(
    made: Farm, port: int, client: Client, pi: dict[str, Any], nas: dict[str, Any], why: str
) -> None:
    async with serving(made.directory, port):
        wants = ServicesRequest(wants=(TUNNEL,), **pi)
        await made.say(client, "pi", wants)
        answer = await made.say(client, "nas", ServicesRequest(**{"offers": {REDIS: READY}, **nas}))
        assert answer.peers == (() if nas.get("key") == pi.get("key") or "key" not in pi else (Peer(KEY, "127.0.0.1"),))
        answer = await made.say(client, "pi", wants)
        assert (answer.found, answer.reasons[TUNNEL][: len(why)]) == ({TUNNEL: ()}, why)


async def test_a_node_that_falls_silent_keeps_its_way_in_and_one_that_is_removed_does_not(
    made: Farm, port: int, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    wants = ServicesRequest(wants=(TUNNEL, FAR), key=KEY)

    async def guests() -> ServicesAnswer:
        return await made.say(client, "nas", ServicesRequest(key=OTHER_KEY))

    async with serving(made.directory, port):
        monkeypatch.setattr(services, "SILENT", 1e6)
        await made.say(client, "pi", wants)
        assert not (await guests()).is_whole, "others may come that it has not heard yet"
        monkeypatch.setattr(services, "SILENT", 1e-6)  # all words are of long ago
        answer = await guests()
        assert (answer.is_whole, answer.guests) == (True, {REDIS: (KEY,)})
        assert answer.peers == (Peer(KEY, "127.0.0.1"),)
        answer = await made.say(client, "pi", wants)
        assert answer.reasons[FAR].startswith("nas has said nothing of it for")
        assert (answer.found, answer.peers) == ({}, (Peer(OTHER_KEY, "127.0.0.1"),)), "and nas keeps its tunnel too"
        await made.say(client, "pi", ServicesRequest())
        answer = await guests()
        assert (answer.guests, answer.peers) == ({}, ()), "it has said otherwise"
        await made.say(client, "pi", ServicesRequest(wants=(TUNNEL,), key=KEY))
        assert (await guests()).guests
        made.directory.change(lambda before: nodes.remove(before, "pi"))
        assert not (await guests()).guests


async def test_an_agent_that_wants_nothing_says_so_in_place_of_the_one_before(
    made: Farm, port: int, client: Client
) -> None:
    async def guests() -> ServicesAnswer:
        return await made.say(client, "nas", ServicesRequest(key=OTHER_KEY))

    async with serving(made.directory, port):
        await made.say(client, "pi", ServicesRequest(wants=(TUNNEL,), key=KEY))
        assert (await guests()).guests
        async with made.following("pi"):
            while (await guests()).guests:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.01)


async def test_what_a_hostile_machine_says_is_refused_and_nothing_is_told_to_one_that_is_no_node(
    made: Farm, port: int, client: Client
) -> None:
    async with serving(made.directory, port):
        assert (await made.ask(client, "nobody", "/v1/services", {"wants": [FAR]}))[0] == 403
        for bad in (
            {"wants": ["node:nas/service:redis"]},
            {"wants": ["node:../service:redis:1"]},
            {"wants": [f"node:nas/service:x{number}:1" for number in range(services.MOST_WANTED + 1)]},
            {"offers": {"redis": {"is_ready": True}}},
            {"offers": {REDIS: {"is_ready": True, "places": [{"port": 0}]}}},
            {"offers": {REDIS: {"is_ready": True, "places": [{"port": 1, "address": "evil.example"}]}}},
            {"offers": {REDIS: {"is_ready": True, "places": [{"port": 1}] * 17}}},
            {"offers": {REDIS: {"is_ready": True, "entrances": [0]}}},
            {"wants": ["tunnel:node:nas/service:redis:6379"]},
            {"key": KEY[:-1]},
            {"key": f"{KEY}\n[Peer]"},
            {"lacks": "x" * (services.MOST_REASON + 1)},
        ):
            assert (await made.ask(client, "nas", "/v1/services", bad))[0] == 400, bad
        known = {"wants": [FAR], "mood": "well", "offers": {REDIS: {"is_ready": True, "speed": 1}}}
        assert (await made.ask(client, "nas", "/v1/services", known))[0] == 200
