"""The page in a real browser, before an agent that says what a test wants: what a machine seldom is."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.agent.problems import of_engine
from dom0.agent.storage import StorageStatus
from dom0.errors import EngineUnreachable
from dom0.host.boot import Boot
from dom0.http import server
from dom0.http.client import Client
from dom0.http.server import Request, Response
from dom0.testing import browser
from dom0.testing.browser import Browser
from dom0.testing.fake_agent import make_status
from dom0.testing.possible import require
from dom0.web import page
from dom0.web.session import Sessions

BLIND = make_status(problems=(of_engine(EngineUnreachable("gone"), 1000.0),))
BOOTS = [
    Boot(number=number, running=number == 4, written=1000.0, stages=(), slowest="", firmware=None, ready=1.0)
    for number in range(1, 5)
]
ANSWERS: dict[str, Any] = {
    "GET /v1/history": [],
    "GET /v1/ambassadors": [],
    "GET /v1/boots": BOOTS,
    "GET /v1/storage": StorageStatus(volumes=(), others=0, home_snapshots=0, last_home_snapshot=0.0, disks=()),
}


async def stream(*documents: Any) -> AsyncGenerator[bytes]:
    for one in documents:
        yield msgspec.json.encode(one) + b"\n"
    await asyncio.Event().wait()


async def answer(request: Request) -> Response:
    if request.path == "/v1/watch":
        return Response(stream(BLIND), content_type="application/x-ndjson")
    if request.path == "/v1/events":
        return Response(stream(), content_type="application/x-ndjson")
    return Response(msgspec.json.encode(ANSWERS[f"GET {request.path}"]))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of the page; its server has a loop of its own, as the browser is waited for."""
    sessions, loop, begun = Sessions(), asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        async with AsyncExitStack() as running:
            await running.enter_async_context(server.serve(answer, tmp_path / "agent"))
            agent = Client(lambda: asyncio.open_unix_connection(tmp_path / "agent"), "dom0")
            running.push_async_callback(agent.close)
            handler = page.handler(agent, sessions, command="dom0", opened=lambda: None)
            await running.enter_async_context(server.serve(handler, listening))
            begun.set()
            await ended.wait()

    serving = threading.Thread(target=loop.run_until_complete, args=(run(),))
    serving.start()
    begun.wait()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/#{sessions.code}"
    loop.call_soon_threadsafe(ended.set)
    serving.join()
    loop.close()


def test_what_is_old_and_what_is_chosen_is_said(address: str) -> None:
    require(browser.missing(), "tests of the page")
    with Browser() as looking:
        looking.open(address)
        looking.until_text("The Docker Engine cannot be asked", "h1")
        for view in ("storage", "wiring"):
            looking.run(f"location.hash = '#/{view}'")
            looking.until_text("This is as it was seen last: the Docker Engine does not answer", "main")
        looking.run("location.hash = '#/boots'")
        select = "document.querySelector('select[data-pick=boot]')"
        looking.until(f"!!{select}")
        looking.run(f"{select}.focus()")
        for key, chosen in (("1", 1), ("ArrowDown", 2)):  # as a person does: a script would leave no trace in it
            looking.press(key)
            looking.until_text(f"than in boot {chosen}", ".stages thead")
        looking.run("location.hash = '#/boots/2'")
        looking.until_text("than in boot 1", ".stages thead")
        assert looking.run(f"{select}.value") == "1"
        assert looking.problems == []
