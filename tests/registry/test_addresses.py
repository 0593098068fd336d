"""Answers about names are kept, and asked for anew beside the work; the name server is the test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dom0.registry import addresses as module
from dom0.registry.addresses import Addresses

NAME = "registry.example"


class NameServer:
    """It answers when `answers` is set, with `says`."""

    def __init__(self) -> None:
        self.questions = 0
        self.is_asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.says: list[str] | Exception = ["192.0.2.1", "192.0.2.2"]

    async def getaddrinfo(self, host: str, port: object, **_: object) -> list[Any]:
        assert (host, port) == (NAME, None)
        self.questions += 1
        self.is_asked.set()
        await self.answers.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in self.says]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    made = NameServer()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", made.getaddrinfo)
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
