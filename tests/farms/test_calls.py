"""A node's Engine at a socket on the server, over TLS between them. The Engine is whatever the test says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from dom0.errors import Dom0Error, UsageError
from dom0.farms import calls, join, nodes, pin, serve
from dom0.farms.directory import FarmDirectory
from dom0.farms.join import Membership
from dom0.farms.nodes import MachineInfo, key_of
from dom0.farms.pin import Pin
from dom0.farms.revisions import Order
from dom0.http import blocking
from dom0.http.channel import Streams
from dom0.http.client import Client
from dom0.names import FARM_SOCKET

MUCH = os.urandom(3 << 20)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class NodeTask:
    """It follows the server, and answers its calls unless the test does."""

    def __init__(self, farm: FarmDirectory, name: str, server: Pin) -> None:
        secret = secrets.token_hex(32)
        hear = (key_of(secret), MachineInfo(), "10.0.0.1", 1e6, nodes.draw_code)
        waiting = farm.change(lambda before: nodes.hear(before, *hear))
        farm.change(lambda before: nodes.approve(before, waiting.code, name, "web"))
        farm.change(lambda before: nodes.hear(before, *hear))
        at = f"{server.host}:{server.port}"
        self.membership = Membership(fingerprint=server.fingerprint, secret=secret, address=at, name=name)
        self.client = Client(lambda: pin.connect(server), "farm")
        self.told = ""
        self.ended = 0

    async def hear(self) -> list[str]:
        """IDs of calls, as soon as there are some."""
        while True:
            body = msgspec.json.encode({"report": {}, "told": self.told})
            status, said = await join.ask(self.client, "/v1/follow", self.membership.secret, body, within=60)
            if status == 200:
                order = msgspec.json.decode(said, type=Order)
                self.told = order.digest
                if order.calls:
                    return list(order.calls)

    async def live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                for call in await self.hear():
                    tasks.create_task(self._answer(call))

    async def _answer(self, call: str) -> None:
        await calls.answer(self.membership, call)
        self.ended += 1

    async def post(self, call: str) -> int:
        """What comes of it to answer a call with nothing."""
        headers = {"Authorization": f"Bearer {self.membership.secret}"}
        async with self.client.ask("POST", f"/v1/calls/{call}", headers=headers) as answer:
            return answer.status


@pytest.fixture
async def server(farm: FarmDirectory, port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pin]:
    monkeypatch.setattr(calls, "TELL_AGAIN", 0.05)
    monkeypatch.setattr(calls, "GONE_WITHIN", 0.05)
    listening = socket.create_server(("127.0.0.1", port), reuse_port=True)
    async with asyncio.timeout(120), serve.serve(farm, listening):
        yield Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem))


@pytest.fixture
async def node(farm: FarmDirectory, server: Pin) -> AsyncIterator[NodeTask]:
    made = NodeTask(farm, "nas", server)
    living = asyncio.create_task(made.live())
    yield made
    living.cancel()
    await asyncio.gather(living, return_exceptions=True)


@contextlib.asynccontextmanager
async def engine(talk: Talk, directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The node's, which talks so with everybody."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await talk(reader, writer)
        writer.close()

    path = directory / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    async with await asyncio.start_unix_server(begin, path):
        yield


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All of it, once it has ended."""
    writer.write(await reader.read())
    await writer.drain()


def reach(farm: FarmDirectory, name: str = "nas") -> str:
    """As commands do. Raises Dom0Error."""
    connection = blocking.connect(os.path.realpath(farm.reach / FARM_SOCKET))
    with blocking.ask(connection, "POST", f"/nodes/{name}", timeout=60) as answer:
        said = msgspec.json.decode(answer.read(), type=dict[str, str])
        if answer.status == 400:
            raise UsageError(said["message"], hint=said["hint"])
        if answer.status != 200:
            raise Dom0Error(said["message"], hint=said["hint"])
    return said["socket"]


def say_without_end(path: str) -> bytes:
    """What is heard meanwhile, as a program hears it that does not mind that nobody listens."""
    with contextlib.closing(blocking.connect(path)) as connection:
        heard = b""
        while True:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                connection.send(b"more", socket.MSG_DONTWAIT)
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return heard
            if not piece:
                return heard
            heard += piece


async def call(farm: FarmDirectory) -> Streams:
    return await asyncio.open_unix_connection(await asyncio.to_thread(reach, farm))


async def say_and_hear(streams: Streams, said: bytes) -> bytes:
    reader, writer = streams
    writer.write(said)
    writer.write_eof()
    heard = await reader.read()
    writer.close()
    return heard


async def test_each_way_ends_by_itself_and_nothing_is_lost(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine(echo, tmp_path, monkeypatch):
        assert await say_and_hear(await call(farm), MUCH) == MUCH
        assert await say_and_hear(await call(farm), b"") == b""


async def test_who_takes_no_more_is_heard_to_the_end(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a command that ends while its input goes on."""

    async def last_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(MUCH)
        await writer.drain()

    async with engine(last_words, tmp_path, monkeypatch):
        path = await asyncio.to_thread(reach, farm)
        assert await asyncio.to_thread(say_without_end, path) == MUCH


async def test_calls_count_for_no_limit_of_connections(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine(echo, tmp_path, monkeypatch):
        path = await asyncio.to_thread(reach, farm)
        opened = [await asyncio.open_unix_connection(path) for _ in range(2 * serve.MOST_EACH)]
        for streams in opened:
            streams[1].write(b"begun, ")
        assert await say_and_hear(await call(farm), b"one more") == b"one more"
        heard = await asyncio.gather(*(say_and_hear(streams, b"ended") for streams in opened))
        assert set(heard) == {b"begun, ended"}


async def test_a_server_without_a_descriptor_for_a_caller_lets_it_in_later(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, refused = asyncio.get_running_loop(), asyncio.Event()
    accept = loop.sock_accept

    async def refuse(_listening: socket.socket) -> tuple[socket.socket, object]:
        refused.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(calls, "ACCEPT_AGAIN", 0.05)
    async with engine(echo, tmp_path, monkeypatch):
        monkeypatch.setattr(loop, "sock_accept", refuse)
        opened = await call(farm)
        await refused.wait()
        monkeypatch.setattr(loop, "sock_accept", accept)
        assert await say_and_hear(opened, b"later") == b"later"


async def test_a_call_whose_caller_is_gone_ends_at_the_engine_too(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            begun.set()
        await over.wait()

    async with engine(says_nothing, tmp_path, monkeypatch):
        _, writer = await call(farm)
        writer.write(b"1")
        await begun.wait()
        writer.transport.abort()
        while node.ended < 2:  # noqa: ASYNC110 -- the one that has tried whether it answers, and this one
            await asyncio.sleep(0.01)
        over.set()


async def test_a_node_answers_its_own_calls_and_each_once(farm: FarmDirectory, server: Pin) -> None:
    node, other = NodeTask(farm, "nas", server), NodeTask(farm, "thief", server)
    reaching = asyncio.create_task(asyncio.to_thread(reach, farm))
    (asked,) = await node.hear()
    assert await other.post(asked) == 403
    assert await other.post(secrets.token_hex(16)) == 403
    assert (await join.ask(node.client, f"/v1/calls/{asked}", "0" * 64, b""))[0] == 403
    assert await node.post(asked) == 200
    await reaching
    assert await node.post(asked) == 403


async def test_a_call_that_was_told_on_a_connection_that_broke_is_told_again(farm: FarmDirectory, server: Pin) -> None:
    node = NodeTask(farm, "nas", server)
    reaching = asyncio.create_task(asyncio.to_thread(reach, farm))
    first = await node.hear()
    assert await node.hear() == first
    assert await node.post(*first) == 200
    await reaching


async def test_what_cannot_be_reached_is_refused_with_what_to_do(
    farm: FarmDirectory, server: Pin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "ANSWER_WITHIN", 0.1)
    NodeTask(farm, "nas", server)
    with pytest.raises(Dom0Error, match="nas: does not answer; the server has heard of it last at ") as refused:
        await asyncio.to_thread(reach, farm)
    assert "dom0 farm status" in refused.value.hint
    for unknown in ("nas2", "..%2fnas", "%00"):
        with pytest.raises(UsageError, match="is no node of this farm"):
            await asyncio.to_thread(reach, farm, unknown)
    waiting = farm.change(lambda before: nodes.hear(before, "f" * 64, MachineInfo(), "10.0.0.2", 1e6, nodes.draw_code))
    farm.change(lambda before: nodes.approve(before, waiting.code, "new", "web"))
    with pytest.raises(Dom0Error, match="new: is approved, and has not asked yet"):
        await asyncio.to_thread(reach, farm, "new")


async def test_a_node_whose_engine_does_not_answer_ends_the_call(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "ANSWER_WITHIN", 0.2)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(Dom0Error, match="nas: does not answer"):
        await call(farm)


async def test_what_is_open_ends_when_a_node_is_removed(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await reader.read(1)
        over.set()

    async with engine(goes_on, tmp_path, monkeypatch):
        path = await asyncio.to_thread(reach, farm)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"1")
        assert await reader.read(100) == b"1"
        farm.change(lambda before: nodes.remove(before, "nas"))
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await over.wait()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(path)
        with pytest.raises(UsageError, match="is no node of this farm"):
            await asyncio.to_thread(reach, farm)


async def test_nobody_but_who_serves_reaches_a_node(
    farm: FarmDirectory, node: NodeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine(echo, tmp_path, monkeypatch):
        path = await asyncio.to_thread(reach, farm)
        connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        for where in (path, str(Path(path).with_name(FARM_SOCKET))):
            argv = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", connect, where]
            tried = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
            assert "PermissionError" in tried.stderr


async def test_with_the_server_all_of_it_ends(
    farm: FarmDirectory, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = socket.create_server(("127.0.0.1", port), reuse_port=True)
    async with engine(echo, tmp_path, monkeypatch), serve.serve(farm, listening):
        made = NodeTask(farm, "nas", Pin("127.0.0.1", port, pin.fingerprint(farm.server_pem)))
        living = asyncio.create_task(made.live())
        reader, writer = await call(farm)
        writer.write(b"begun")
        directory = farm.reach.resolve()
        assert len(list(directory.iterdir())) == 2
    living.cancel()
    with contextlib.suppress(ConnectionResetError):  # it may not have been read
        assert await reader.read() == b""
    assert not directory.exists()
    assert not farm.reach.is_symlink()
    with pytest.raises(FileNotFoundError):
        reach(farm)
