"""What a scope makes in numbers and at length: nothing of others grows with it, and its owner can end it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.socketproxy import containers, listing
from dom0.socketproxy.context import Asked, Context
from dom0.socketproxy.room import Kind
from dom0.socketproxy.scope import ANONYMOUS_ALONE, LABEL, LARGEST_LABELS, Scope
from dom0.socketproxy.upstream import LARGEST_ANSWER, LISTS_AT_ONCE, MOST_HELD, NEWEST_API, EngineAnswer, Upstream
from dom0.testing import api, busybox, scopes
from dom0.testing.escape import still
from dom0.testing.escape.raw import Client
from dom0.testing.escape.reach import Sent
from dom0.testing.hosts import Host

GRANTS = "{images: {use: [busybox]}}"
LIST = "/containers/json?all=1"
LONG = "x" * 1_000_000  # which a command may be: it is in the list of containers
AT_ONCE = 4  # lists that are not read; MOST_HELD of them may be held
PATIENCE = 60.0  # seconds


def make(host: Host, numbers: Iterable[int]) -> None:
    """Containers as `guest` could have made them one after the other, each reading a longer list than the last."""
    for number in numbers:
        body = {"Image": busybox.IMAGE, "Cmd": ["true", LONG], "Labels": {LABEL: "/guest"}}
        api.request(host.socket, "POST", "/containers/create", body, query={"name": f"guest.{number}"})


def peak(path: Path) -> int:
    """Bytes of memory that the process which made the socket has had at most."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def statuses_of_unread_lists(path: Path) -> list[bytes]:
    """Of as many at once as nobody reads any further than that."""
    with contextlib.ExitStack() as stack:
        asked = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in range(AT_ONCE)]
        for connection in asked:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(f"GET {LIST} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        return [connection.recv(12)[-3:] for connection in asked]


class Noted(Upstream):
    """Notes what the Engine answers."""

    def __init__(self, host: Host) -> None:
        super().__init__(str(host.socket))
        self.names: set[str] = set()

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] = {},
        body: msgspec.Struct | bytes | None = None,
        patience: float | None = None,
        shape: Any = Any,
    ) -> EngineAnswer:
        reply = await super().ask(method, *path, query=query, body=body, patience=patience, shape=shape)
        rows = reply.document.volumes if path == ("volumes",) else reply.document
        for row in map(msgspec.json.decode, rows):
            self.names |= {*(row.get("Names") or [row["Name"]])}
        return reply


@pytest.mark.engine
@pytest.mark.parametrize("api_version", [NEWEST_API, None])
def test_the_engine_lists_nothing_that_has_another_scopes_name(
    engine_host: Host, api_version: tuple[int, int] | None
) -> None:
    anonymous = "0123456789abcdef" * 4
    for name, scope in (("guest.a", "guest"), ("other.guest.a", "other"), ("guests", "other"), (anonymous, "guest")):
        labels = {LABEL: f"/{scope}"}
        api.request(engine_host.socket, "POST", "/volumes/create", {"Name": name, "Labels": labels})
        api.request(engine_host.socket, "POST", "/networks/create", {"Name": name, "Labels": labels})
        body = {"Image": busybox.IMAGE, "Cmd": ["true"], "Labels": labels}
        api.request(engine_host.socket, "POST", "/containers/create", body, query={"name": name})

    async def listed(kind: Kind) -> tuple[set[str], set[str]]:
        upstream = Noted(engine_host)
        newest = api.request(engine_host.socket, "GET", "/version")["ApiVersion"].partition(".")
        upstream.api = api_version or (int(newest[0]), int(newest[2]))
        names = {listing.name(kind, row) async for row in listing.owned(upstream, Scope("guest"), kind)}
        await upstream.close()
        return names, upstream.names

    assert asyncio.run(listed("container")) == ({"guest.a"}, {"/guest.a"})
    assert asyncio.run(listed("network")) == ({"guest.a"}, {"guest.a"})
    assert asyncio.run(listed("volume")) == ({"guest.a", anonymous}, {"guest.a", anonymous})


def test_a_scope_inside_asks_for_its_volumes_without_a_name_as_the_one_around_it() -> None:
    for scope in (Scope("team"), Scope("guest")):
        assert scope.long_pattern(ANONYMOUS_ALONE) == ANONYMOUS_ALONE
    assert re.search(ANONYMOUS_ALONE, "a" * 64)
    for name in ("guest." + "a" * 64, "a" * 65, "a" * 63):
        assert not re.search(ANONYMOUS_ALONE, name)


class Long(still.Still):
    """Lists 5,000 containers of the scope's."""

    async def answer(self, sent: Sent) -> EngineAnswer:
        assert sent.path == ("containers", "json")
        return EngineAnswer(200, [still.OBJECTS["containers", "guest.db", "json"]] * 5000)


def test_a_list_of_thousands_is_not_decoded_at_once_and_others_are_answered_meanwhile() -> None:
    turns = 0

    async def ask() -> list[msgspec.Raw]:
        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        asking = asyncio.create_task(others())
        context = Context(Scope("guest"), still.GRANTS, Long(), still.SOCKET)
        document = await containers.listed(context, Asked(method="GET", path=(), names={}, query={"all": "1"}))
        asking.cancel()
        listed: list[msgspec.Raw] = document.value
        return listed

    tracemalloc.start()
    try:
        listed = asyncio.run(ask())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(listed) == 5000
    assert most < 4 * sum(map(len, listed))
    assert turns > 20


class Waiting(still.Still):
    """Answers when everybody has asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asking = self.most = 0

    async def answer(self, sent: Sent) -> EngineAnswer:
        self.asking += 1
        self.most = max(self.most, self.asking)
        for _ in range(100):
            await asyncio.sleep(0)
        self.asking -= 1
        return await super().answer(sent)


async def test_a_scope_asks_the_engine_for_few_lists_at_once() -> None:
    engine = Waiting()
    context = Context(Scope("guest"), still.GRANTS, engine, still.SOCKET)
    asked = Asked(method="GET", path=(), names={}, query={"all": "1"})
    answers = await asyncio.gather(*(containers.listed(context, asked) for _ in range(20)))
    assert [len(answer.value) for answer in answers] == [1] * 20
    assert engine.most == LISTS_AT_ONCE


@pytest.mark.engine
def test_long_lists_of_one_scope_are_nobody_elses(engine_host: Host, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        scopes.served(engine_host, tmp_path, GRANTS) as path,
        scopes.served(engine_host, tmp_path / "other", GRANTS, scope="other") as other_path,
    ):
        guest, other = Client(path), Client(other_path)
        make(engine_host, range(LARGEST_ANSWER // len(LONG) - 5))
        told = statuses_of_unread_lists(path)
        assert told.count(b"200") >= MOST_HELD - 1, told
        assert set(told) == {b"200", b"503"}, told
        assert peak(path) < 4 * MOST_HELD * LARGEST_ANSWER

        make(engine_host, range(100, 110))
        assert guest.ask("GET", LIST, patience=PATIENCE).status == 502
        before = peak(other_path)
        assert other.ask("GET", LIST, patience=PATIENCE).document == []
        body = {"Image": busybox.IMAGE, "Cmd": ["true"], "Labels": {"a": "x" * LARGEST_LABELS}}
        refused = other.ask("POST", "/containers/create?name=web", body, patience=PATIENCE)
        assert refused.status == 400, refused
        made = other.ask("POST", "/containers/create?name=web", {**body, "Labels": {}}, patience=PATIENCE)
        assert made.status == 201, made
        assert other.ask("GET", f"/containers/{made.document['Id'][:12]}/json", patience=PATIENCE).status == 200
        assert peak(other_path) - before < len(LONG)

        environment = engine_host.environment() | {
            "DOCKER_HOST": engine_host.docker_host,
            "DOM0_RUN": str(tmp_path / "run"),
        }
        argv = [sys.executable, "-m", "dom0", "socket", "rm", "guest"]
        ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        left = api.request(engine_host.socket, "GET", "/containers/json", query={"all": "1"})
        assert [row["Names"] for row in left] == [["/other.web"]]
        assert guest.ask("GET", LIST, patience=PATIENCE).document == []
