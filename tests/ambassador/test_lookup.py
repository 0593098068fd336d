"""Names are looked up as this machine's resolver would: /etc/hosts, then DNS with search domains and ndots."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.ambassador import lookup
from dom0.ambassador.addresses import SHORTEST
from dom0.ambassador.lookup import Lookup, LookupResult, Names
from dom0.testing.name_server import NameServer
from dom0.testing.wires import PATIENCE


@pytest.fixture
def server() -> Iterator[NameServer]:
    """At port 53 of a loopback address of this process's own."""
    pid = os.getpid()
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((f"127.{53 + (pid >> 16) % 64}.{pid >> 8 & 255}.{pid & 255 or 1}", 53))
    with NameServer(bound) as made:
        yield made


class Files:
    def __init__(self, directory: Path, server: NameServer) -> None:
        self.hosts, self.resolv_conf = directory / "hosts", directory / "resolv.conf"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.use(server)

    def use(self, server: NameServer, *lines: str) -> None:
        """It is asked once: a second question would be counted, too."""
        self.resolv_conf.write_text("\n".join([f"nameserver {server.address}", "options timeout:30", *lines]) + "\n")


@pytest.fixture
def files(tmp_path: Path, server: NameServer) -> Files:
    return Files(tmp_path, server)


async def ask(files: Files, host: str) -> LookupResult:
    return await Lookup(files.resolv_conf, files.hosts).ask(host)


def told(reply: LookupResult) -> set[str]:
    return {address for answer in reply.answers.values() for address in answer.addresses}


async def test_both_families_are_asked(files: Files, server: NameServer) -> None:
    server.say("redis.example.", ["10.0.0.1", "10.0.0.2", "2001:db8::1"])
    server.ttl = 30
    reply = await ask(files, "redis.example")
    assert (told(reply), reply.ttl) == ({"10.0.0.1", "10.0.0.2", "2001:db8::1"}, 30)
    assert sorted(server.asked) == ["redis.example. A", "redis.example. AAAA"]


async def test_a_name_of_one_family_teaches_nothing_about_the_other(files: Files, server: NameServer) -> None:
    server.say("redis.example.", ["10.0.0.1"])
    reply = await ask(files, "redis.example")
    assert (reply.answers["ip"].learned, reply.answers["ip6"].learned, reply.error) == (True, False, "")


async def test_a_time_to_live_of_nothing_is_an_answer(files: Files, server: NameServer) -> None:
    server.say("redis.example.", ["10.0.0.1"])
    reply = await ask(files, "redis.example")
    assert (told(reply), reply.ttl) == ({"10.0.0.1"}, 0)


@pytest.mark.parametrize("ttl", [600, 599])
async def test_the_engines_list_of_its_containers_is_whole_and_what_it_asks_others_for_is_not(
    files: Files, server: NameServer, monkeypatch: pytest.MonkeyPatch, ttl: int
) -> None:
    monkeypatch.setattr(lookup, "ENGINE_SERVER", server.address)
    server.say("redis.", ["10.0.0.1"])
    server.ttl = ttl
    reply = await ask(files, "redis")
    assert reply.engine
    assert reply.answers["ip"].whole == (ttl == lookup.ENGINE_TTL)


async def test_search_domains_are_tried_as_ndots_says(files: Files, server: NameServer) -> None:
    server.say("redis.farm.example.", ["10.0.0.1"])
    files.use(server, "search other.example farm.example", "options ndots:1")
    assert told(await ask(files, "redis")) == {"10.0.0.1"}
    server.say("a.b.", ["10.0.0.2"])
    server.say("a.b.farm.example.", ["10.0.0.3"])
    assert told(await ask(files, "a.b")) == {"10.0.0.2"}
    files.use(server, "search farm.example", "options ndots:2")
    assert told(await ask(files, "a.b")) == {"10.0.0.3"}


async def test_a_name_with_a_dot_at_its_end_is_searched_nowhere(files: Files, server: NameServer) -> None:
    server.say("redis.farm.example.", ["10.0.0.1"])
    files.use(server, "search farm.example")
    assert told(await ask(files, "redis.")) == set()


async def test_hosts_come_before_dns_and_count_alone(files: Files, server: NameServer) -> None:
    server.say("redis.", ["10.0.0.1", "2001:db8::1"])
    files.hosts.write_text("# comment redis\n172.17.0.2\tREDIS 5f3c # redis_1\n172.17.0.3 other redis\n")
    reply = await ask(files, "redis")
    assert told(reply) == {"172.17.0.2", "172.17.0.3"}
    assert (reply.answers["ip6"].learned, reply.ttl, server.asked) == (True, SHORTEST, [])


async def test_hosts_that_lead_to_this_container_lead_nowhere(files: Files, server: NameServer) -> None:
    files.hosts.write_text("127.0.0.1 redis\n::1 redis\nfe80::1 redis\nnonsense redis\n")
    server.say("redis.", ["10.0.0.1"])
    assert told(await ask(files, "redis")) == {"10.0.0.1"}


@pytest.mark.parametrize(
    ("addresses", "why"),
    [(None, "no such name"), ([], "it has no usable A record"), (["127.0.0.1"], "it has no usable A record")],
)
async def test_an_answer_without_an_address_teaches_nothing_and_says_why(
    files: Files, server: NameServer, addresses: list[str] | None, why: str
) -> None:
    if addresses is not None:
        server.say("redis.example.", addresses)
    reply = await ask(files, "redis.example.")
    assert (reply.ttl, reply.error, told(reply)) == (None, why, set())
    assert not any(answer.learned for answer in reply.answers.values())


async def test_a_server_that_does_not_answer_teaches_nothing(files: Files, server: NameServer) -> None:
    server.is_silent = True
    reply = await ask(files, "redis.example.")
    assert reply.ttl is None
    assert "timed out" in reply.error or "expired" in reply.error


@pytest.mark.parametrize("content", ["", "nameserver nonsense\n", None])
async def test_without_a_server_the_reply_says_so(files: Files, content: str | None) -> None:
    files.resolv_conf.unlink() if content is None else files.resolv_conf.write_text(content)
    reply = await ask(files, "redis")
    assert reply.ttl is None
    assert reply.error


class Watching:
    """Names watched until the block ends; `until` waits for a change."""

    def __init__(self, files: Files) -> None:
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.names = Names(Lookup(files.resolv_conf, files.hosts), self._changed.set, self._loop.time)

    async def until(self, *addresses: str, host: str = "redis.example.") -> None:
        async with asyncio.timeout(PATIENCE * 3):
            while self.names.addresses(host) != addresses:
                await self._changed.wait()
                self._changed.clear()

    async def until_unknown(self) -> None:
        async with asyncio.timeout(PATIENCE * 3):
            while not self.names.errors:
                await self._changed.wait()
                self._changed.clear()


async def test_a_name_that_moves_is_followed(files: Files, server: NameServer) -> None:
    server.say("redis.example.", ["10.0.0.1"])
    watching = Watching(files)
    async with asyncio.TaskGroup() as group:
        watching.names.watch(["redis.example."], group)
        await watching.until("10.0.0.1")
        server.say("redis.example.", ["10.0.0.2"])
        await watching.until("10.0.0.2")
        watching.names.watch([], group)
    assert watching.names.all() == {}


async def test_a_name_that_ceases_to_exist_stays_where_it_was(files: Files, server: NameServer) -> None:
    server.say("redis.example.", ["10.0.0.1"])
    watching = Watching(files)
    async with asyncio.TaskGroup() as group:
        watching.names.watch(["redis.example."], group)
        await watching.until("10.0.0.1")
        server.forget("redis.example.")
        await watching.until_unknown()
        assert watching.names.addresses("redis.example.") == ("10.0.0.1",)
        watching.names.watch([], group)
