"""What a depot gives to others, asked by plain and by hostile clients over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dom0.http import server as http_server
from dom0.registry import serve
from dom0.registry.depot import Depot
from dom0.registry.journal import CHUNK
from dom0.registry.manifest import OCI_INDEX, digest_of
from dom0.registry.shared import read, share
from dom0.testing.blob_server import content, describe

BLOB = content(2 * CHUNK + 17)
DIGEST = describe(BLOB).digest
PARTIAL = content(4 * CHUNK, 1)
COMING = describe(PARTIAL).digest
INDEX = b'{"schemaVersion": 2, "manifests": []}'
SMALL = content(40_000, 3)
REQUEST = f"GET /blobs/{describe(SMALL).digest} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    depot = Depot(tmp_path / "depot", 1 << 30)
    depot.keep(BLOB, DIGEST, public=True)
    depot.keep(INDEX, digest_of(INDEX), public=True)
    depot.keep(SMALL, describe(SMALL).digest, public=True)
    depot.keep(b"secret", digest_of(b"secret"), public=False)
    return depot


@pytest.fixture
async def port(depot: Depot) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(60), serve.serve(depot, listening):
        yield listening.getsockname()[1]


async def ask(port: int, target: str, method: str = "GET", **headers: str) -> Answer:
    def talk() -> Answer:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    return await asyncio.to_thread(talk)


async def say(port: int, data: bytes, own: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(own, 0))
    with contextlib.closing(writer):
        writer.write(data)
        return await reader.read()


async def test_blobs_are_given_whole_and_in_ranges(port: int) -> None:
    status, headers, body = await ask(port, f"/blobs/{DIGEST}")
    assert (status, body, headers["Content-Length"]) == (200, BLOB, str(len(BLOB)))
    status, headers, body = await ask(port, f"/blobs/{DIGEST}", Range="bytes=1000000-2000000")
    assert (status, body) == (206, BLOB[1000000:2000001])
    assert headers["Content-Range"] == f"bytes 1000000-2000000/{len(BLOB)}"
    status, headers, body = await ask(port, f"/blobs/{DIGEST}", Range="bytes=2000000-")
    assert (status, body) == (206, BLOB[2000000:])
    status, headers, body = await ask(port, f"/blobs/{DIGEST}", Range=f"bytes=0-{'9' * 15}")
    assert (status, len(body)) == (206, len(BLOB))
    status, headers, body = await ask(port, f"/blobs/{DIGEST}", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(BLOB)))


@pytest.mark.parametrize(
    "asked",
    ["bytes=-5", "bytes=5-4", "bytes=0-1,3-4", "bytes=" + "0-1," * 500, f"bytes=0-{'9' * 40}", "bytes=9999999-", "x"],
)
async def test_other_ranges_are_refused(port: int, asked: str) -> None:
    assert (await ask(port, f"/blobs/{DIGEST}", Range=asked))[0] == 416


async def test_what_is_on_its_way_is_given_as_far_as_it_has_come(depot: Depot, port: int) -> None:
    state = f"/blobs/{COMING}/from"
    with depot.use([COMING]), depot.fetching(COMING, len(PARTIAL), public=True) as partial:
        assert partial is not None
        wanted = json.loads((await ask(port, f"{state}/0"))[2])
        assert (wanted["coming"], wanted["size"], wanted["have"]) == ("wanted", None, 0)
        partial.find(0)
        partial.put(0, PARTIAL[:1_500_000])
        partial.find(3 * CHUNK)
        partial.put(3 * CHUNK, PARTIAL[3 * CHUNK : 3 * CHUNK + 1000])
        found = json.loads((await ask(port, f"{state}/1000000"))[2])
        assert (found["size"], found["have"], found["ready"]) == (len(PARTIAL), 1_501_000, 500_000)
        status, headers, body = await ask(port, f"/blobs/{COMING}", Range="bytes=1000000-3999999")
        assert (status, body) == (206, PARTIAL[1_000_000:1_500_000])
        assert headers["Content-Range"] == f"bytes 1000000-1499999/{len(PARTIAL)}"
        body = (await ask(port, f"/blobs/{COMING}", Range=f"bytes={3 * CHUNK}-"))[2]
        assert body == PARTIAL[3 * CHUNK : 3 * CHUNK + 1000]
        assert (await ask(port, f"/blobs/{COMING}", Range="bytes=2000000-2000001"))[0] == 503
        assert (await ask(port, f"/blobs/{COMING}"))[0] == 503
    assert json.loads((await ask(port, f"{state}/0"))[2])["coming"] == "left"


async def test_bytes_that_the_first_part_took_over_are_never_read_as_a_hole(depot: Depot) -> None:
    with depot.use([COMING]), depot.fetching(COMING, len(PARTIAL), public=True) as partial:
        assert partial is not None
        partial.find(0)
        partial.put(0, PARTIAL[:CHUNK])
        other = partial.find(CHUNK)
        partial.put(CHUNK, PARTIAL[CHUNK:])
        assert read(depot, COMING, CHUNK, 100) == PARTIAL[CHUNK : CHUNK + 100]
        first = partial.find(0)
        first.append(PARTIAL[CHUNK : 2 * CHUNK])
        other.release(2 * CHUNK)
        for at in range(0, len(PARTIAL), CHUNK // 2):
            assert read(depot, COMING, at, 100) == PARTIAL[at : at + 100]
        found = share(depot, COMING, 0)
        assert found is not None
        assert found.have == len(PARTIAL)


def test_what_was_there_before_a_power_cut_is_not_given_before_it_was_looked_at(tmp_path: Path) -> None:
    before = Depot(tmp_path / "depot", 1 << 30, boot=bytes(16))
    with before.use([COMING]), before.fetching(COMING, len(PARTIAL), public=True) as partial:
        assert partial is not None
        partial.put(0, PARTIAL[:1000])
    after = Depot(tmp_path / "depot", 1 << 30)
    assert share(after, COMING, 0) is None
    assert read(after, COMING, 0, 100) == b""


async def test_only_what_came_without_a_login_is_given(depot: Depot, port: int) -> None:
    secret = digest_of(b"secret")
    for target in (f"/blobs/{secret}", f"/blobs/{secret}/from/0", f"/manifests/{secret}"):
        assert (await ask(port, target))[0] == 404
    with depot.use([COMING]):
        with depot.fetching(COMING, len(PARTIAL), public=False) as partial:
            assert partial is not None
            partial.put(0, PARTIAL[:1000])
        with depot.fetching(COMING, len(PARTIAL), public=True):
            assert share(depot, COMING, 0) is None  # some of it is somebody's
    assert depot.evict(COMING)
    with depot.use([COMING]):
        with depot.fetching(COMING, len(PARTIAL), public=True) as partial:
            assert partial is not None
            partial.put(0, PARTIAL[:1000])
        assert share(depot, COMING, 0) is not None
        with depot.fetching(COMING, len(PARTIAL), public=False):
            assert share(depot, COMING, 0) is None
            assert read(depot, COMING, 0, 100) == b""


async def test_manifests_are_given_as_what_they_are_and_nothing_else_as_one(port: int) -> None:
    status, headers, body = await ask(port, f"/manifests/{digest_of(INDEX)}")
    assert (status, headers["Content-Type"], body) == (200, OCI_INDEX, INDEX)
    assert headers["Docker-Content-Digest"] == digest_of(INDEX)
    assert (await ask(port, f"/manifests/{DIGEST}"))[0] == 404


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/blobs/",
        "/blobs/..",
        "/blobs/../../etc/passwd",
        "/blobs/..%2f..%2fetc%2fpasswd",
        f"/blobs/%2e%2e/depot/{DIGEST}",
        f"/blobs/{DIGEST[7:]}",
        f"/blobs/{DIGEST.upper()}",
        f"/blobs/{DIGEST}%00",
        f"/blobs/{DIGEST}%0a",
        f"/blobs/{DIGEST}/",
        f"/blobs/{DIGEST}/blob",
        f"/blobs/{DIGEST}/from/-1",
        f"/blobs/{DIGEST}/from/{'9' * 5000}",
        f"/blobs/sha512:{'ab' * 64}",
        f"/blobs/md5:{'ab' * 16}",
        "/blobs/node",
        "/manifests/latest",
        "/v2/",
        "/v2/_catalog",
    ],
)
async def test_nothing_else_is_there(port: int, target: str) -> None:
    status, _, body = await ask(port, target)
    assert (status, json.loads(body)["message"]) == (404, "Not Found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_is_changed(port: int, method: str) -> None:
    assert (await ask(port, f"/blobs/{DIGEST}", method))[0] == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:5050"}, 200),
        ({"Host": "192.0.2.1:5050"}, 200),
        ({"Host": "localhost:5050"}, 200),
        ({"Host": os.uname().nodename}, 200),
        ({"Host": "rebound.example:5050"}, 403),
        ({"Host": f"{os.uname().nodename}.rebound.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
async def test_web_pages_are_refused(port: int, headers: dict[str, str], status: int) -> None:
    assert (await ask(port, f"/blobs/{DIGEST}", "HEAD", **headers))[0] == status


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00 a TLS client\r\n\r\n", b"400"),
        (b"GET /blobs/x HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /blobs/x HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n", b"400"),
        (b"GET http://169.254.169.254/x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
async def test_what_is_no_request_is_refused(port: int, data: bytes, status: bytes) -> None:
    assert (await say(port, data)).startswith(b"HTTP/1.1 " + status)


async def test_slow_clients_and_too_many_of_them_are_left(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST", 1)
    monkeypatch.setattr(serve, "UNREAD", 0.1)
    monkeypatch.setattr(http_server, "SILENCE", 0.1)
    large = content(8 << 20, 2)
    depot.keep(large, digest_of(large), public=True)
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(60), serve.serve(depot, listening):
        port = listening.getsockname()[1]
        request = f"GET /blobs/{digest_of(large)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(request)  # and it reads nothing
        with contextlib.suppress(ConnectionResetError):
            assert await say(port, request) == b""
        status = None
        while status is None:  # until it is left
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                status, _, body = await ask(port, f"/blobs/{DIGEST}")
        assert (status, body) == (200, BLOB)
        assert await say(port, b"GET /blobs") == b""
        deaf.close()


async def test_a_blob_that_goes_while_it_is_sent_is_cut_off(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: Any) -> bytes:
        found = read(*arguments)
        depot.evict(DIGEST)
        return found

    monkeypatch.setattr(serve, "read", gone)
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(60), serve.serve(depot, listening):
        with pytest.raises(http.client.IncompleteRead):
            await ask(listening.getsockname()[1], f"/blobs/{DIGEST}")


def test_a_depot_has_one_name_for_ever(depot: Depot, tmp_path: Path) -> None:
    name = serve.node_of(depot)
    assert serve.node_of(Depot(depot.root, 1)) == name != serve.node_of(Depot(tmp_path / "other", 1))
    (depot.root / "node").write_bytes(b"\xff../..")
    assert serve.node_of(depot) not in (name, "")


async def test_one_address_does_not_hold_all_connections(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MOST_EACH", 2)
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(60), serve.serve(depot, listening):
        port = listening.getsockname()[1]
        with contextlib.ExitStack() as held:
            for _ in range(2):
                held.enter_context(socket.create_connection(("127.0.0.1", port)))
            with contextlib.suppress(ConnectionResetError):
                assert await say(port, REQUEST) == b""
            assert (await say(port, REQUEST, "127.0.0.2")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param(REQUEST.replace(b"Connection: close", b"Range: bytes=0-0") * 3000, id="many small answers"),
        pytest.param(REQUEST, id="a last one"),
    ],
)
async def test_who_reads_nothing_of_small_answers_is_left(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, requests: bytes
) -> None:
    monkeypatch.setattr(serve, "MOST", 1)
    monkeypatch.setattr(serve, "UNREAD", 0.1)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with asyncio.timeout(60), serve.serve(depot, listening):
            port = listening.getsockname()[1]
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", port))
            with contextlib.suppress(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(deaf, requests)
            answer = b""
            while not answer:  # until it is left
                with contextlib.suppress(ConnectionResetError):
                    answer = await say(port, REQUEST)
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_however_low_the_limit_is_bytes_come_at_once_and_a_head_takes_none(depot: Depot) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(60), serve.serve(depot, listening, rate=640):
        port = listening.getsockname()[1]
        assert (await ask(port, f"/blobs/{DIGEST}", "HEAD"))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            writer.write(REQUEST)
            await reader.readuntil(b"\r\n\r\n")
            assert len(await reader.readexactly(100)) == 100


def test_bytes_that_come_with_a_login_while_it_is_read_are_not_given(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread

    def later(*arguments: int) -> bytes:
        (depot.path(DIGEST).parent / "public").unlink(missing_ok=True)
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", later)
    assert read(depot, DIGEST, 0, 100) == b""
