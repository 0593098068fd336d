"""What a farm's server answers, over TLS, to plain and to hostile machines in network namespaces of their own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from dom0.errors import UsageError
from dom0.farms import nodes, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.nodes import NodeState, key_of
from dom0.testing.wires import Node, Wires

PORT = 7701
MACHINE = {"hostname": "pc", "architecture": "x86_64", "memory": 4 << 30}
CARD = nodes.Firmware(mac="52:54:00:00:00:01", uuid="11111111-1111-4111-8111-111111111111")
Answer = tuple[int, dict[str, str]]


@pytest.fixture
async def served(farm: FarmDirectory, wires: Wires) -> AsyncIterator[FarmDirectory]:
    """In the namespace of the wires' ambassador."""
    listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
    async with asyncio.timeout(300), serve.serve(farm, listening):
        yield farm


def unverified(most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, most
    return context


@contextlib.contextmanager
def connected(wires: Wires, node: Node) -> Any:
    connection = http.client.HTTPConnection(wires.ambassador.v4, PORT, timeout=60)
    plain = node.socket()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.connect((wires.ambassador.v4, PORT))
    connection.sock = unverified().wrap_socket(plain)
    with contextlib.closing(connection):
        yield connection


def ask_on(
    connection: http.client.HTTPConnection,
    secret: str,
    body: object = MACHINE,
    *,
    path: str = "/v1/hello",
    method: str = "POST",
    headers: Mapping[str, str] = {},
) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Authorization": f"Bearer {secret}", **headers})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def ask(wires: Wires, secret: str, body: object = MACHINE, *, node: Node | None = None, **asked: Any) -> Answer:
    with connected(wires, node or wires.consumer) as connection:
        return ask_on(connection, secret, body, **asked)


async def enroll(farm: FarmDirectory, wires: Wires, name: str = "nas") -> str:
    """Returns its secret."""
    secret = secrets.token_hex(32)
    code = (await asyncio.to_thread(ask, wires, secret))[1]["code"]
    farm.change(lambda before: nodes.approve(before, code, name, "web"))
    assert (await asyncio.to_thread(ask, wires, secret))[1]["state"] == "enrolled"
    return secret


def let_in(farm: FarmDirectory) -> list[str]:
    return [node.name for node in farm.nodes().nodes if node.state is not NodeState.WAITING]


async def test_a_machine_waits_until_a_person_has_approved_its_code(served: FarmDirectory, wires: Wires) -> None:
    secret = secrets.token_hex(32)
    status, said = await asyncio.to_thread(ask, wires, secret)
    code = said["code"]
    assert (status, said) == (200, {"farm": "attic", "state": "waiting", "code": code, "name": "", "role": ""})
    (node,) = served.nodes().nodes
    assert (node.code, node.address, node.machine.hostname) == (code, wires.consumer.v4, "pc")
    served.change(lambda before: nodes.approve(before, code, "nas", "web"))
    expected = {"farm": "attic", "state": "enrolled", "code": "", "name": "nas", "role": "web"}
    assert await asyncio.to_thread(ask, wires, secret) == (200, expected)
    assert await asyncio.to_thread(ask, wires, secret) == (200, expected)
    assert secret not in (served.state / "nodes.json").read_text()


async def test_of_two_that_ask_at_once_both_wait_whichever_is_noted_first(
    served: FarmDirectory, wires: Wires, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, first, is_noted = served.change, threading.Lock(), threading.Event()

    def noted_last(step: Any) -> Any:
        if first.acquire(blocking=False):
            is_noted.wait(60)
        noted = change(step)
        is_noted.set()
        return noted

    monkeypatch.setattr(served, "change", noted_last)
    answers = await asyncio.gather(*(asyncio.to_thread(ask, wires, secrets.token_hex(32)) for _ in range(2)))
    assert {said["code"] for _, said in answers} == {node.code for node in served.nodes().nodes}


async def test_of_a_thousand_unknown_machines_none_is_let_in_and_few_are_noted(
    served: FarmDirectory, wires: Wires
) -> None:
    secret = await enroll(served, wires)

    def flood() -> dict[int, int]:
        answers = {200: 0, 429: 0}
        with contextlib.ExitStack() as stack:
            ends = [stack.enter_context(connected(wires, node)) for node in (wires.consumer, *wires.providers)]
            for number in range(1000):
                status, said = ask_on(ends[number % len(ends)], secrets.token_hex(32))
                assert said.get("state") != "enrolled"
                answers[status] += 1
        return answers

    answers = await asyncio.to_thread(flood)
    assert answers[200] == 3 * nodes.MOST_WAITING_EACH
    assert answers[429] == 1000 - answers[200]
    assert let_in(served) == ["nas"]
    assert len(served.nodes().nodes) == 1 + answers[200]
    assert (await asyncio.to_thread(ask, wires, secret))[1]["state"] == "enrolled"


async def test_what_is_nearly_a_nodes_secret_or_was_seen_on_the_servers_disk_is_nobodys(
    served: FarmDirectory, wires: Wires
) -> None:
    secret = await enroll(served, wires)
    other = f"{secret[:-1]}{'0' if secret[-1] != '0' else '1'}"
    for forged in (other, key_of(secret), secret[::-1], "0" * 64):
        assert (await asyncio.to_thread(ask, wires, forged))[1]["state"] == "waiting"
    for malformed in ("", "nas", secret[:-1], f"{secret}0", f"{secret} {secret}", f"x{secret}", "é" * 64):
        header = {"Authorization": f"Bearer {malformed}"}
        assert (await asyncio.to_thread(ask, wires, "", headers=header))[0] == 401
    assert (await asyncio.to_thread(ask, wires, "", headers={"Authorization": f"Basic {secret}"}))[0] == 401
    assert let_in(served) == ["nas"]


async def test_two_secrets_in_one_request_are_none(served: FarmDirectory, wires: Wires) -> None:
    secret = await enroll(served, wires)

    def ask_twice() -> bytes:
        plain = wires.consumer.socket()
        plain.connect((wires.ambassador.v4, PORT))
        with unverified().wrap_socket(plain) as encrypted:
            line = f"Authorization: Bearer {secret}\r\n"
            encrypted.sendall(
                f"POST /v1/hello HTTP/1.1\r\nHost: x\r\n{line}{line}Content-Length: 2\r\n\r\n{{}}".encode()
            )
            return encrypted.recv(65536)

    assert (await asyncio.to_thread(ask_twice)).startswith(b"HTTP/1.1 401 ")


async def test_a_code_that_was_used_is_late_or_belongs_to_one_that_was_removed_lets_nobody_in(
    served: FarmDirectory, wires: Wires
) -> None:
    used = secrets.token_hex(32)
    code = (await asyncio.to_thread(ask, wires, used))[1]["code"]
    served.change(lambda before: nodes.approve(before, code, "nas", "web"))
    served.change(lambda before: nodes.remove(before, "nas"))
    again = (await asyncio.to_thread(ask, wires, used))[1]
    assert (again["state"], again["name"]) == ("waiting", "")
    served.change(lambda before: nodes.remove(before, again["code"]))
    for spent in (code, again["code"]):
        with pytest.raises(UsageError):
            nodes.approve(served.nodes(), spent, "nas", "web")
    assert let_in(served) == []


NONSENSE: tuple[object, ...] = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    b'{"hostname": "\xff"}',
    b"[" * 4000,
    {"hostname": "${net0/mac}"},
    {"hostname": "a\nb"},
    {"hostname": "a\n"},
    {"hostname": "../../etc/passwd"},
    {"hostname": "\x1b[31m"},
    {"hostname": "a" * 65},
    {"hostname": ["a"]},
    {"architecture": "x86 64"},
    {"memory": -1},
    {"memory": 1e99},
    {"memory": "4G"},
)


async def test_a_machine_that_says_what_cannot_be_is_refused_and_not_noted(served: FarmDirectory, wires: Wires) -> None:
    for body in NONSENSE:
        assert (await asyncio.to_thread(ask, wires, secrets.token_hex(32), body))[0] == 400, body
    assert served.nodes() == nodes.Nodes()


async def test_a_machine_that_says_that_it_is_a_node_waits_as_any_other(served: FarmDirectory, wires: Wires) -> None:
    await enroll(served, wires)
    said = {"name": "nas", "role": "web", "state": "enrolled", "code": "000000"}
    status, standing = await asyncio.to_thread(ask, wires, secrets.token_hex(32), said)
    assert (status, standing["state"], standing["name"], standing["role"]) == (200, "waiting", "", "")
    assert let_in(served) == ["nas"]


def loaded(farm: FarmDirectory, own: str, name: str) -> str:
    """The ticket of a machine that was approved as `name` in its network loader, which has the pass `own`."""
    ticket, now = secrets.token_hex(32), time.time()
    waiting = farm.change(
        lambda before: nodes.hear(before, key_of(own), nodes.MachineInfo(), "10.77.0.9", now, nodes.draw_code, CARD)
    )
    farm.change(lambda before: nodes.approve(before, waiting.code, name, "web"))
    farm.change(lambda before: nodes.load(before, key_of(own), key_of(ticket), now))
    return ticket


async def test_a_ticket_makes_its_first_owner_the_node_and_nobody_else(served: FarmDirectory, wires: Wires) -> None:
    own, secret = secrets.token_hex(16), secrets.token_hex(32)
    ticket = loaded(served, own, "nas")
    assert (await asyncio.to_thread(ask, wires, ticket))[0] == 403
    for wrong in (own, ticket[:-1], f"{ticket}0", ticket.upper() if ticket.upper() != ticket else "x", 7, None):
        assert (await asyncio.to_thread(ask, wires, secret, {**MACHINE, "ticket": wrong}))[0] == 400
    with_ticket = {**MACHINE, "ticket": ticket}
    guessed = {**MACHINE, "ticket": secrets.token_hex(32)}
    assert (await asyncio.to_thread(ask, wires, secret, guessed))[1]["state"] == "waiting"
    said = (await asyncio.to_thread(ask, wires, secret, with_ticket))[1]
    assert (said["state"], said["name"], said["role"]) == ("enrolled", "nas", "web")
    assert (await asyncio.to_thread(ask, wires, secret, with_ticket))[1] == said
    thief = secrets.token_hex(32)
    assert (await asyncio.to_thread(ask, wires, thief, with_ticket))[1]["state"] == "waiting"
    assert let_in(served) == ["nas"]
    assert served.nodes().named("nas").key == key_of(secret)


async def test_a_node_that_is_approved_anew_in_its_loader_is_the_new_node(served: FarmDirectory, wires: Wires) -> None:
    """As one that runs from its disk so far: its secret is there, and it would wait in its loader at each start."""
    secret = await enroll(served, wires, "old")
    ticket = loaded(served, secrets.token_hex(16), "nas")
    for _ in range(2):
        said = (await asyncio.to_thread(ask, wires, secret, {**MACHINE, "ticket": ticket}))[1]
        assert (said["state"], said["name"]) == ("enrolled", "nas")
    assert [(node.name, node.key) for node in served.nodes().nodes] == [("nas", key_of(secret))]
    assert nodes.of_firmware(served.nodes(), CARD) is not None


async def test_a_pass_of_a_loader_is_no_secret(served: FarmDirectory, wires: Wires) -> None:
    own = secrets.token_hex(32)
    served.change(
        lambda before: nodes.hear(before, key_of(own), nodes.MachineInfo(), "x", time.time(), nodes.draw_code, CARD)
    )
    assert (await asyncio.to_thread(ask, wires, own))[0] == 403


async def test_a_body_without_end_is_not_read(served: FarmDirectory, wires: Wires) -> None:
    assert (await asyncio.to_thread(ask, wires, secrets.token_hex(32), b" " * 100_000))[0] == 413


ELSEWHERE = (
    ("GET", "/v1/hello", 405),
    ("PUT", "/v1/hello", 405),
    ("POST", "/", 404),
    ("POST", "/v1/hello/", 404),
    ("POST", "/v1/../v1/hello", 404),
    ("GET", "/state/server.pem", 404),
    ("GET", "/..%2fstate%2fserver.pem", 404),
    ("GET", "/v1/nodes", 404),
    ("POST", "/v1/approve", 404),
)


async def test_nothing_else_is_answered(served: FarmDirectory, wires: Wires) -> None:
    secret = await enroll(served, wires)
    for method, path, status in ELSEWHERE:
        assert (await asyncio.to_thread(ask, wires, secret, method=method, path=path))[0] == status, path


async def test_without_tls_or_with_an_old_one_nothing_is_said(served: FarmDirectory, wires: Wires) -> None:
    def talk_plainly() -> bytes:
        with contextlib.closing(wires.consumer.connect(wires.ambassador.v4, PORT)) as client:
            client.say("POST /v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            with contextlib.suppress(ConnectionResetError):
                return client.socket.recv(65536)
        return b""

    def talk_old() -> None:
        plain = wires.consumer.socket()
        plain.connect((wires.ambassador.v4, PORT))
        unverified(ssl.TLSVersion.TLSv1_2).wrap_socket(plain)

    assert b"HTTP" not in await asyncio.to_thread(talk_plainly)
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(talk_old)
    assert served.nodes() == nodes.Nodes()


async def test_who_opens_connections_and_says_nothing_is_in_nobody_elses_way(
    served: FarmDirectory, wires: Wires
) -> None:
    idle = [await asyncio.to_thread(wires.consumer.connect, wires.ambassador.v4, PORT) for _ in range(serve.MOST_EACH)]
    refused = await asyncio.to_thread(wires.consumer.connect, wires.ambassador.v4, PORT)
    assert await asyncio.to_thread(lambda: refused.is_reset() or refused.socket.recv(1) == b"")
    said = await asyncio.to_thread(ask, wires, secrets.token_hex(32), node=wires.providers[0])
    assert said[1]["state"] == "waiting"
    for client in idle:
        client.close()


async def test_a_connection_that_waits_costs_little_memory(served: FarmDirectory, wires: Wires) -> None:
    """Each node has one for as long as it runs."""
    with contextlib.ExitStack() as stack:
        stack.callback(tracemalloc.stop)
        await asyncio.to_thread(ask, wires, secrets.token_hex(32))
        tracemalloc.start()
        for _ in range(serve.MOST_EACH):
            connection = await asyncio.to_thread(lambda: stack.enter_context(connected(wires, wires.consumer)))
            await asyncio.to_thread(ask_on, connection, "", method="GET")
        # of both ends; OpenSSL's own memory is not in it
        assert tracemalloc.get_traced_memory()[0] / serve.MOST_EACH < 100_000


async def test_a_disk_that_cannot_be_written_lets_nobody_in_and_nobody_is_told_a_code(
    served: FarmDirectory, wires: Wires
) -> None:
    secret = secrets.token_hex(32)
    code = (await asyncio.to_thread(ask, wires, secret))[1]["code"]
    served.change(lambda before: nodes.approve(before, code, "nas", "web"))
    (served.state / ".nodes.json.new").mkdir()
    for one in (secret, secrets.token_hex(32)):
        status, said = await asyncio.to_thread(ask, wires, one)
        assert (status, set(said)) == (503, {"message", "hint"})
    (served.state / ".nodes.json.new").rmdir()
    assert (await asyncio.to_thread(ask, wires, secret))[1]["state"] == "enrolled"


async def test_a_server_that_is_started_again_knows_who_waits_and_who_is_a_node(
    farm: FarmDirectory, wires: Wires
) -> None:
    said = []
    secret = secrets.token_hex(32)
    for _ in range(2):
        listening = wires.ambassador.call(lambda: socket.create_server((wires.ambassador.v4, PORT)))
        async with serve.serve(farm, listening):
            said.append(await asyncio.to_thread(ask, wires, secret))
    assert said[0] == said[1]
