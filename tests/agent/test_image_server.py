"""Where the agent gives blobs of images, and to whom: on real sockets and in real time. What it gives is in
tests/registry/test_serve.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dom0.agent import image_server, listener
from dom0.agent.image_server import ImageServer
from dom0.agent.progress import Changes
from dom0.agent.status import SharingStatus
from dom0.health import Severity
from dom0.names import pull_directory
from dom0.plan.desired import Sharing
from dom0.registry.depot import Depot
from dom0.registry.manifest import digest_of

OPEN, SECRET = b"of everybody", b"of one with a login"
HERE = ("127.0.0.1", "127.0.0.3")


@pytest.fixture(autouse=True)
def depot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOM0_STATE", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(listener, "FIRST_PAUSE", 0.01)
    made = Depot(pull_directory(), 1 << 30)
    made.keep(OPEN, digest_of(OPEN), public=True)
    made.keep(SECRET, digest_of(SECRET), public=False)


def free() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def ask(address: str, target: str, own: str = "127.0.0.1") -> tuple[int, bytes]:
    """0: the connection was refused or closed."""
    host, _, port = address.partition(":")
    asked = http.client.HTTPConnection(host, int(port), timeout=20, source_address=(own, 0))
    with contextlib.closing(asked) as connection:
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
        except (ConnectionError, http.client.BadStatusLine):
            return 0, b""
        return answer.status, answer.read()


async def blob(address: str, content: bytes = OPEN, own: str = "127.0.0.1") -> tuple[int, bytes]:
    return await asyncio.to_thread(ask, address, f"/blobs/{digest_of(content)}", own)


class Served:
    def __init__(self, sharing: Sharing, *, mirrors: tuple[str, ...] = (), is_guest: bool = False) -> None:
        self.sharing = sharing
        self.changed = Changes()
        self.server = ImageServer(self.changed, lambda: self.sharing, mirrors=mirrors, is_guest=is_guest)

    async def until(self, condition: Callable[[ImageServer], bool]) -> None:
        await self.changed.until(lambda: condition(self.server))

    async def change(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self.changed.tell()
        await self.until(lambda server: _listens_at(server) == sharing.listen)


def _listens_at(server: ImageServer) -> str:
    return server.status.served_at if server.status else ""


@asynccontextmanager
async def running(served: Served) -> AsyncIterator[Served]:
    task = asyncio.create_task(served.server.run())
    try:
        async with asyncio.timeout(60):
            yield served
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_what_came_without_a_login_is_given_and_nothing_else() -> None:
    async def main() -> None:
        sharing = Sharing(listen=free(), allow=HERE)
        async with running(Served(sharing)) as served:
            await served.change(sharing)
            assert await blob(sharing.listen) == (200, OPEN)
            assert (await blob(sharing.listen, SECRET))[0] == 404
            assert (await asyncio.to_thread(ask, sharing.listen, "/v2/"))[0] == 404

    asyncio.run(main())


def test_only_those_who_are_allowed_are_answered() -> None:
    async def main() -> None:
        sharing = Sharing(listen=free(), allow=("127.0.0.3", "192.0.2.0/24"))
        async with running(Served(sharing)) as served:
            await served.change(sharing)
            assert await blob(sharing.listen) == (0, b"")
            assert await blob(sharing.listen, own="127.0.0.3") == (200, OPEN)

    asyncio.run(main())


def test_another_generation_decides_anew_where_and_to_whom() -> None:
    async def main() -> None:
        first, second = free(), free()
        async with running(Served(Sharing())) as served:
            await served.change(Sharing(listen=first, allow=HERE))
            assert (await blob(first))[0] == 200
            await served.change(Sharing(listen=second, allow=HERE, peers=("192.0.2.1:5050",)))
            assert ((await blob(first))[0], (await blob(second))[0]) == (0, 200)
            assert served.server.status == SharingStatus(
                peers=("192.0.2.1:5050",), served_at=second, allow=HERE, mirror=""
            )
            await served.change(Sharing(listen=second, allow=("127.0.0.3",)))
            await served.until(lambda server: server.status is not None and server.status.allow == ("127.0.0.3",))
            assert (await blob(second))[0] == 0
            await served.change(Sharing())
            assert (await blob(second, own="127.0.0.3"))[0] == 0

    asyncio.run(main())


def test_a_port_that_is_taken_is_a_problem_until_it_is_free() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            sharing = Sharing(listen=f"127.0.0.1:{taken.getsockname()[1]}", allow=HERE)
            served = Served(sharing)
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(running(served))
                await served.until(lambda server: bool(server.problems))
                (problem,) = served.server.problems
                assert (problem.code, problem.severity) == ("images-unserved", Severity.ERROR)
                assert problem.title == f"images are not served at {sharing.listen}: Address already in use"
                assert served.server.status is None
                taken.close()
                await served.until(lambda server: not server.problems)
                assert (await blob(sharing.listen))[0] == 200

    asyncio.run(main())


def test_an_address_of_another_machine_is_a_problem_until_nobody_asks_for_it() -> None:
    async def main() -> None:
        async with running(Served(Sharing(listen="192.0.2.1:5050", allow=HERE))) as served:
            await served.until(lambda server: bool(server.problems))
            assert "192.0.2.1:5050: Cannot assign requested address" in served.server.problems[0].title
            await served.change(Sharing())
            await served.until(lambda server: not server.problems)

    asyncio.run(main())


def with_mirror(monkeypatch: pytest.MonkeyPatch, test: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """The port of a mirror is always the same one, which this machine may use for something else."""
    address = free()
    monkeypatch.setattr(image_server, "MIRROR", address)
    asyncio.run(test(address))


def test_where_the_engine_asks_it_it_is_a_mirror_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(address: str) -> None:
        served = Served(Sharing(peers=("127.0.0.1:9",)), mirrors=("https://mirror.example/", f"http://{address}/"))
        async with running(served):
            await served.until(lambda server: server.status is not None and server.status.mirror == address)
            assert await asyncio.to_thread(ask, address, "/v2/") == (200, b"{}")
        for mirrors in ((), (f"https://{address}",), ("http://127.0.0.1:9/",)):
            assert Served(Sharing(), mirrors=mirrors).server.mirrored() is None

    with_mirror(monkeypatch, main)


def test_a_mirror_that_a_person_has_started_is_no_problem_and_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(address: str) -> None:
        host, _, port = address.partition(":")
        with socket.create_server((host, int(port))) as theirs:
            served = Served(Sharing(), mirrors=(f"http://{address}",))
            async with running(served):
                assert served.server.status is None
                theirs.close()
                await served.until(lambda server: server.problems != () or server.status is not None)
                assert served.server.problems == ()
                assert (await asyncio.to_thread(ask, address, "/v2/"))[0] == 200

    with_mirror(monkeypatch, main)


def test_in_a_scope_nothing_is_given_and_why_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(address: str) -> None:
        sharing = Sharing(listen=free(), allow=HERE, peers=("192.0.2.1:5050",))
        async with running(Served(sharing, mirrors=(f"http://{address}",), is_guest=True)) as served:
            (problem,) = served.server.problems
            assert (problem.code, problem.severity) == ("images-unserved", Severity.WARNING)
            assert served.server.status is None
            assert (await blob(sharing.listen))[0] == 0

    with_mirror(monkeypatch, main)
