"""Answers about names are kept, and asked for anew beside the work; the name server is the test."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from dom0.http.channel import Streams
from dom0.registry import addresses as module
from dom0.registry.addresses import Addresses
from dom0.testing.web_server import reply, served

NAME = "registry.example"


class NameServer:
    """It answers when `answers` is set, with `says`."""

    def __init__(self) -> None:
        self.questions = 0
        self.is_asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.says: list[str] | Exception = ["192.0.2.1", "192.0.2.2"]

    async def look_up(self, host: str) -> list[str]:
        assert host == NAME
        self.questions += 1
        self.is_asked.set()
        await self.answers.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    made = NameServer()
    monkeypatch.setattr(module, "look_up", made.look_up)
    return made


@pytest.fixture
async def addresses() -> AsyncIterator[Addresses]:
    made = Addresses()
    yield made
    await made.close()


async def test_a_name_is_asked_for_once(server: NameServer, addresses: Addresses) -> None:
    found = await asyncio.gather(*(addresses.find(NAME) for _ in range(3)))
    assert [*found, await addresses.find(NAME)] == [("192.0.2.1", "192.0.2.2")] * 4
    assert server.questions == 1


async def test_who_does_not_answer_is_tried_last_also_after_the_next_question(
    server: NameServer, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await addresses.find(NAME)
    addresses.put_last(NAME, "192.0.2.1")
    addresses.put_last(NAME, "192.0.2.9")
    addresses.put_last("other.example", "192.0.2.1")
    assert await addresses.find(NAME) == ("192.0.2.2", "192.0.2.1")
    monkeypatch.setattr(module, "FRESH", 0.0)
    server.says = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    async with asyncio.timeout(30):
        while len(found := await addresses.find(NAME)) < 3:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0)
    assert found == ("192.0.2.2", "192.0.2.1", "192.0.2.3")


@pytest.mark.parametrize("says", [socket.gaierror(socket.EAI_AGAIN, "lost"), UnicodeError("no name")])
async def test_an_old_answer_is_good_while_there_is_no_new_one(
    server: NameServer, addresses: Addresses, monkeypatch: pytest.MonkeyPatch, says: Exception
) -> None:
    await addresses.find(NAME)
    monkeypatch.setattr(module, "FRESH", 0.0)
    server.answers.clear()
    for _ in range(3):
        assert await addresses.find(NAME) == ("192.0.2.1", "192.0.2.2")
    server.says = says
    server.answers.set()
    async with asyncio.timeout(30):
        while server.questions < 3:  # each that fails is followed by the next
            assert await addresses.find(NAME) == ("192.0.2.1", "192.0.2.2")
            await asyncio.sleep(0)


async def test_a_question_that_fails_is_asked_again(server: NameServer, addresses: Addresses) -> None:
    server.says = socket.gaierror(socket.EAI_AGAIN, "lost")
    with pytest.raises(socket.gaierror, match="lost"):
        await addresses.find(NAME)
    server.says = ["192.0.2.3"]
    assert await addresses.find(NAME) == ("192.0.2.3",)


async def test_a_question_goes_on_when_who_asked_loses_patience(server: NameServer, addresses: Addresses) -> None:
    server.answers.clear()
    asking = asyncio.create_task(addresses.find(NAME))
    await server.is_asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    server.answers.set()
    assert await addresses.find(NAME) == ("192.0.2.1", "192.0.2.2")
    assert server.questions == 1


async def test_no_question_is_left_at_the_end(server: NameServer) -> None:
    addresses = Addresses()
    server.answers.clear()
    asking = asyncio.create_task(addresses.find(NAME))
    await server.is_asked.wait()
    await addresses.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


def test_a_question_that_nobody_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    is_asked, goes_on, has_ended = threading.Event(), threading.Event(), threading.Event()

    def silent(*_: object, **__: object) -> None:
        is_asked.set()
        goes_on.wait(60)
        has_ended.set()
        raise OSError

    async def ask() -> None:
        asking = asyncio.create_task(Addresses().find(NAME))
        await asyncio.to_thread(is_asked.wait)
        asking.cancel()

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    asyncio.run(ask())
    assert not has_ended.is_set()
    goes_on.set()
    assert has_ended.wait(60)


# connections


async def test_an_address_that_is_slow_is_given_time_while_others_are_tried(
    server: NameServer, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEXT_ADDRESS", 0.001)
    server.says = [f"192.0.2.{number}" for number in range(1, 6)]
    begun: list[str] = []
    given_up: list[str] = []
    all_begun = asyncio.Event()

    async def slow(address: str) -> Streams:
        begun.append(address)
        try:
            if len(begun) == len(server.says):  # type: ignore[arg-type]
                all_begun.set()
            await (all_begun if address == "192.0.2.1" else asyncio.Event()).wait()
            return await asyncio.open_connection("127.0.0.1", int(web.netloc.partition(":")[2]))
        except asyncio.CancelledError:
            given_up.append(address)
            raise

    async with served(lambda _: reply(200)) as web:
        _, writer = await addresses.connect(NAME, slow)
        writer.transport.abort()
    assert begun == server.says
    assert sorted(given_up) == begun[1:]
    assert (await addresses.find(NAME))[0] == "192.0.2.1"


async def test_an_address_that_refuses_is_not_waited_for_and_the_last_ones_error_is_raised(
    server: NameServer, addresses: Addresses
) -> None:
    refusing: list[str] = []

    async def refused(address: str) -> Streams:
        refusing.append(address)
        raise ConnectionRefusedError(address)

    with pytest.raises(ConnectionRefusedError, match=r"192\.0\.2\.2"):
        await addresses.connect(NAME, refused)
    assert refusing == ["192.0.2.1", "192.0.2.2"]


async def test_of_two_connections_that_come_at_once_one_is_closed(
    server: NameServer, addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEXT_ADDRESS", 0.0)
    made: list[asyncio.StreamWriter] = []
    both = asyncio.Event()

    async def at_once(_: str) -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", int(web.netloc.partition(":")[2]))
        made.append(streams[1])
        if len(made) == 2:
            asyncio.get_running_loop().call_soon(both.set)
        await both.wait()
        return streams

    async with served(lambda _: reply(200)) as web:
        _, writer = await addresses.connect(NAME, at_once)
        assert [each.transport.is_closing() for each in made] == [each is not writer for each in made]
        writer.transport.abort()
