"""What a farm's server tells its nodes to run, and which blobs it gives to which of them, over TLS."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from dom0.engine.swarm import SwarmState
from dom0.farms import nodes, orders, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.float_swarm import FloatReport
from dom0.farms.nodes import MachineInfo, NodeState, key_of
from dom0.farms.pin import Pin, connect, fingerprint
from dom0.farms.revisions import Blob, FarmImage, NodeReport, Order, Revision, RoleContent, RoleState
from dom0.http.client import Client
from dom0.registry.manifest import digest_of

SILENT = NodeReport()
WAITS = 0.3  # seconds, of an answer that has nothing new


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "WAIT", WAITS)
    monkeypatch.setattr(orders, "LOOK_AGAIN", 0.02)


class Asker:
    """Nodes of one server, by their names."""

    def __init__(self, farm: FarmDirectory, server: Pin) -> None:
        self.farm = farm
        self.client = Client(lambda: connect(server), "farm")
        self.secrets: dict[str, str] = {}

    def enroll(self, name: str, role: str) -> None:
        secret = self.secrets[name] = secrets.token_hex(32)
        hear = (key_of(secret), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code)
        waiting = self.farm.change(lambda before: nodes.hear(before, *hear))
        self.farm.change(lambda before: nodes.approve(before, waiting.code, name, role))
        self.farm.change(lambda before: nodes.hear(before, *hear))

    async def ask(self, name: str, method: str, path: str, body: bytes = b"", span: str = "") -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.secrets.get(name, name)}"} | ({"Range": span} if span else {})
        async with self.client.ask(method, path, headers=headers, body=body or None) as answer:
            return answer.status, b"".join([piece async for piece in answer.chunks()])

    async def follow(self, name: str, report: NodeReport = SILENT, told: str = "") -> Order:
        status, said = await self.ask(name, "POST", "/v1/follow", msgspec.json.encode({"report": report, "told": told}))
        assert status == 200, said
        return msgspec.json.decode(said, type=Order)

    async def has_no_news(self, name: str, told: str) -> bool:
        body = msgspec.json.encode({"report": SILENT, "told": told})
        return await self.ask(name, "POST", "/v1/follow", body) == (204, b"")


@pytest.fixture
async def asker(farm: FarmDirectory) -> AsyncIterator[Asker]:
    listening = socket.create_server(("127.0.0.1", 0))
    made = Asker(farm, Pin("127.0.0.1", listening.getsockname()[1], fingerprint(farm.server_pem)))
    for name, role in {"one": "web", "two": "store"}.items():
        made.enroll(name, role)
    async with asyncio.timeout(60), serve.serve(farm, listening):
        yield made
        await made.client.close()


def content(farm: FarmDirectory, word: str) -> RoleContent:
    """Of blobs that only it has, but one that all have."""
    kept = []
    for text in (f"{word} manifest", f"{word} config", "base", f"{word} layer", f"{word} private"):
        raw = text.encode()
        kept.append(Blob(digest=digest_of(raw), size=len(raw)))
        farm.add_blob(kept[-1].digest, [raw])
    manifest, config, base, layer, private = kept
    image = FarmImage(reference="dom0:latest", manifest=manifest, config=config, layers=(base, layer))
    return RoleContent(image=image, private=private)


def revise(farm: FarmDirectory, number: int, **roles: RoleContent) -> Revision:
    return farm.revise(lambda _known: Revision(number=number, made=float(number), roles=roles))[0]


async def test_a_node_that_says_more_than_this_server_knows_is_a_node_like_others(asker: Asker) -> None:
    web = content(asker.farm, "web")
    revise(asker.farm, 1, web=web)
    gives = {"port": 1, "fingerprint": "0" * 64, "speed": 1}
    said = {"report": {"fetched": web.digest, "mood": "well"}, "gives": gives, "wants": []}
    status, answer = await asker.ask("one", "POST", "/v1/follow", json.dumps(said).encode())
    order = msgspec.json.decode(answer, type=Order)
    assert (status, order.fetch) == (200, web)
    assert asker.farm.reports()[key_of(asker.secrets["one"])].fetched == web.digest
    hello = {"hostname": "pc", "architecture": "x86_64", "memory": 1, "colour": "red"}
    assert (await asker.ask("one", "POST", "/v1/hello", json.dumps(hello).encode()))[0] == 200
    floats = {"report": {"place": {"state": "inactive", "x": 1}, "x": 1}, "x": 1}
    assert (await asker.ask("one", "POST", "/v1/float", json.dumps(floats).encode()))[0] == 200
    said["report"] = {"fetched": "everything"}
    assert (await asker.ask("one", "POST", "/v1/follow", json.dumps(said).encode()))[0] == 400


async def test_an_order_is_known_by_what_the_server_says_which_may_know_more_fields(asker: Asker) -> None:
    revise(asker.farm, 1, web=content(asker.farm, "web"))
    order = await asker.follow("one")
    later = msgspec.json.decode(msgspec.json.encode({**msgspec.to_builtins(order), "later": 1}), type=Order)
    assert later.digest == order.digest == order.told
    assert await asker.has_no_news("one", order.digest)


def test_who_refuses_unknown_fields_hears_of_none_that_say_nothing() -> None:
    digest = f"sha256:{'0' * 64}"
    said = NodeReport(content=digest, revision=1, state=RoleState.FAILED, reason="x", turn=1, fetched=digest, os="1")
    known = {"content", "revision", "state", "reason", "turn", "fetched", "os", "since"}
    assert msgspec.to_builtins(replace(said, since=1.0)).keys() == known
    assert msgspec.to_builtins(FloatReport(place=SwarmState(state="inactive"))).keys() == {"place"}


def test_who_knows_no_base_os_says_the_same_of_an_order_without_one() -> None:
    known = {"farm": "attic", "name": "one", "role": "web", "revision": 3, "turn": 0, "floats": 0}
    raw = msgspec.json.encode({**known, "fetch": None, "run": None})
    assert Order(farm="attic", name="one", role="web", revision=3).digest == digest_of(raw)


async def test_a_node_is_told_its_own_role_and_given_nothing_of_another_one(asker: Asker) -> None:
    web, store = content(asker.farm, "web"), content(asker.farm, "store")
    revise(asker.farm, 1, web=web, store=store)
    order = await asker.follow("one", told="sha256:" + "0" * 64)
    assert (order.name, order.role, order.revision, order.fetch, order.run) == ("one", "web", 1, web, None)
    orders.WAIT = 60.0
    order = await asker.follow("one", NodeReport(fetched=web.digest), order.digest)
    assert (order.revision, order.turn, order.fetch, order.run) == (1, 1, web, web)
    for name, own, others in (("one", web, store), ("two", store, web)):
        for digest in own.blobs:
            status, raw = await asker.ask(name, "GET", f"/v1/blobs/{digest}")
            assert (status, digest_of(raw)) == (200, digest)
        for digest in others.blobs.keys() - own.blobs.keys():
            assert (await asker.ask(name, "GET", f"/v1/blobs/{digest}"))[0] == 403
            assert (await asker.ask(name, "GET", f"/v1/blobs/{digest}", span="bytes=0-1"))[0] == 403
    for stranger in (secrets.token_hex(32), key_of(asker.secrets["one"])):
        for digest in web.blobs:
            assert (await asker.ask(stranger, "GET", f"/v1/blobs/{digest}"))[0] == 403
        body = msgspec.json.encode({"report": NodeReport(), "told": ""})
        assert (await asker.ask(stranger, "POST", "/v1/follow", body))[0] == 403


@pytest.mark.parametrize(
    "path",
    ["..%2fserver.pem", "sha256:..%2f..%2fserver.pem", "sha256:" + "0" * 64, "nodes.json", "%00", "sha256:"],
)
async def test_what_is_no_blob_of_the_role_is_refused_whatever_it_is_called(asker: Asker, path: str) -> None:
    revise(asker.farm, 1, web=content(asker.farm, "web"))
    await asker.follow("one")
    assert (await asker.ask("one", "GET", f"/v1/blobs/{path}"))[0] == 403


async def test_ranges_are_given_exactly(asker: Asker) -> None:
    web = content(asker.farm, "web")
    revise(asker.farm, 1, web=web)
    await asker.follow("one")
    path = f"/v1/blobs/{web.image.config.digest}"
    assert await asker.ask("one", "GET", path, span="bytes=4-5") == (206, b"co")
    assert await asker.ask("one", "GET", path, span="bytes=4-") == (206, b"config")
    assert await asker.ask("one", "GET", path, span="bytes=9-4000") == (206, b"g")
    for span in ("bytes=10-12", "bytes=5-4", "bytes=-3", "lines=1-2", "bytes=0-1,3-4"):
        assert (await asker.ask("one", "GET", path, span=span))[0] == 416, span


async def test_a_blob_that_is_damaged_or_gone_on_the_server_is_not_given(asker: Asker) -> None:
    web = content(asker.farm, "web")
    revise(asker.farm, 1, web=web)
    await asker.follow("one")
    asker.farm.blob(web.image.config.digest).write_bytes(b"cut")
    asker.farm.blob(web.image.manifest.digest).unlink()
    for blob in (web.image.config, web.image.manifest):
        assert (await asker.ask("one", "GET", f"/v1/blobs/{blob.digest}"))[0] == 503


async def test_an_answer_waits_until_there_is_another_order_and_comes_with_it(asker: Asker) -> None:
    first = await asker.follow("one")
    assert first.run is None
    assert await asker.has_no_news("one", first.digest)  # after a while, as a sign of life
    orders.WAIT = 60.0
    asking = asyncio.create_task(asker.follow("one", told=first.digest))
    await asker.follow("two")  # the server lives
    assert not asking.done()
    web = content(asker.farm, "web")
    revise(asker.farm, 1, web=web)
    second = await asking
    assert second.fetch == web
    asking = asyncio.create_task(asker.follow("one", told=second.digest))
    asker.farm.change(lambda before: nodes.assign(before, "one", "store"))
    third = await asking
    assert (third.role, third.fetch) == ("store", None)
    for digest in web.blobs:
        assert (await asker.ask("one", "GET", f"/v1/blobs/{digest}"))[0] == 403
    body = msgspec.json.encode({"report": SILENT, "told": third.digest})
    refused = asyncio.create_task(asker.ask("one", "POST", "/v1/follow", body))
    asker.farm.change(lambda before: nodes.remove(before, "one"))
    assert (await refused)[0] == 403


async def test_what_a_node_says_is_on_the_disk_and_gone_with_the_node(asker: Asker) -> None:
    web = content(asker.farm, "web")
    said = NodeReport(content=web.digest, revision=1, state=RoleState.FAILED, reason="web is unhealthy", turn=3)
    await asker.follow("one", said)
    (kept,) = asker.farm.reports().values()
    assert msgspec.structs.replace(kept, since=0.0) == said
    assert kept.since > 0
    await asker.follow("one", said)
    assert list(asker.farm.reports().values()) == [kept]
    asker.farm.change(lambda before: nodes.remove(before, "one"))
    await asker.follow("two")
    for _ in range(500):
        if not asker.farm.reports():
            break
        await asyncio.sleep(0.02)
    assert asker.farm.reports() == {}


async def test_of_two_words_at_once_the_later_one_is_kept(asker: Asker) -> None:
    """As of a node that has news while its answer waits: it closes the connection, and says them on another one."""
    known = orders.Orders(asker.farm)
    key = key_of(asker.secrets["one"])
    for turn in range(50):
        words = [NodeReport(turn=2 * turn + number) for number in range(2)]
        await asyncio.gather(*(known.hear(key, word, "10.0.0.1", lambda: False) for word in words))
        assert asker.farm.reports()[key].turn == 2 * turn + 1
    await known.hear(key, NodeReport(turn=1), "10.0.0.1", lambda: True)
    assert asker.farm.reports()[key].turn == 99


async def test_a_word_of_a_node_is_noted_with_its_time(asker: Asker) -> None:
    await asker.follow("one")
    for _ in range(500):
        if asker.farm.nodes().named("one").last > 1e6:
            break
        await asyncio.sleep(0.02)
    node = asker.farm.nodes().named("one")
    assert (node.last > 1e6, node.address, node.state) == (True, "127.0.0.1", NodeState.ENROLLED)


NONSENSE: tuple[Any, ...] = (
    b"",
    b"[]",
    b"\xff",
    {"told": "x"},
    {"report": {"state": "perfect"}},
    {"report": {"reason": "x" * 4096}},
)


async def test_a_node_that_says_what_cannot_be_is_refused(asker: Asker) -> None:
    for body in NONSENSE:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert (await asker.ask("one", "POST", "/v1/follow", raw or b" "))[0] in (400, 413), body
    assert asker.farm.reports() == {}
