"""An agent's API that answers what a test wants, on a real socket; and builders of the documents it serves."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dom0.agent.status import GenerationInfo, Outcome, Phase, ServiceStatus, Status
from dom0.health import Problem, Severity
from dom0.http import server
from dom0.http.server import Request, Response

LARGEST_BODY = 32 << 20  # bytes


class Lines(list[Any]):
    """Documents of a stream, one a line."""


class EndlessLines(Lines):
    """The stream stays open after the last one."""


class Turns(list[Any]):
    """What is answered first, and then, and so on."""


@dataclass
class FakeAgent:
    """Answers by method and path; a list is a stream of JSON lines. Remembers what it was asked."""

    answers: dict[str, Any] = field(default_factory=dict)
    refusals: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    at_once: int = 0  # POSTs that have to wait before one is answered
    waiting: int = 0

    async def handle(self, request: Request) -> Response:
        what = f"{request.method} {request.path}"
        self.queries.append(request.query)
        self.asked.append((what, await request.read(LARGEST_BODY)))
        if request.method == "POST":
            self.waiting += 1
            while self.waiting % (self.at_once or 1):  # noqa: ASYNC110 -- nobody tells of that
                await asyncio.sleep(0.01)
        if what in self.refusals:
            status, body = self.refusals[what]
            return Response(msgspec.json.encode(body), status)
        answer = self.answers.get(what)
        if isinstance(answer, Turns):
            answer = answer.pop(0)
        if isinstance(answer, Lines):
            return Response(_stream(answer))
        return Response(answer if isinstance(answer, bytes) else msgspec.json.encode(answer))


async def _stream(lines: Sequence[Any]) -> AsyncGenerator[bytes]:
    for line in lines:
        yield msgspec.json.encode(line) + b"\n"
    if isinstance(lines, EndlessLines):
        await asyncio.Event().wait()


@contextmanager
def serving(path: Path) -> Iterator[FakeAgent]:
    """An agent on the socket `path`, served by a thread of its own while the block runs."""
    fake = FakeAgent({"GET /v1/status": make_status()})
    path.parent.mkdir(parents=True, exist_ok=True)
    begun: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(fake, path, begun)))
    thread.start()
    stop = begun.get(timeout=60)
    try:
        yield fake
    finally:
        stop()
        thread.join(60)


async def _serve(fake: FakeAgent, path: Path, begun: queue.SimpleQueue[Callable[[], None]]) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    async with server.serve(fake.handle, path, end_within=0.1):
        begun.put(stop)
        await stopped.wait()


def make_status(**changes: Any) -> Status:
    """A machine with one service that runs and one that does not."""
    generation = GenerationInfo(
        number=3, created=1000.0, cause="dom0 up", dom0_image="sha256:" + "a" * 64, outcome=Outcome.GOOD, current=True
    )
    redis = make_service("redis", Phase.READY, started=1000.0, ports=("6379/tcp",))
    web_ = make_service("web", Phase.CRASH_LOOP, reason="exited with code 1 five times")
    problem = Problem(
        code="crash-loop", subject="web", title="ends again and again", severity=Severity.ERROR, hint="dom0 logs web"
    )
    status = Status(
        project="box",
        version="0.1.0",
        dom0_image="sha256:" + "a" * 64,
        generation=generation,
        last_good=3,
        converged=True,
        services=(redis, web_),
        steps=(),
        problems=(problem,),
        now=1180.0,
    )
    return msgspec.structs.replace(status, **changes)


def make_service(name: str, phase: Phase, **changes: Any) -> ServiceStatus:
    service = ServiceStatus(
        service=name,
        number=1,
        container=f"box-{name}-1",
        container_id="c" * 64,
        image=f"box-{name}",
        image_id="sha256:" + "b" * 64,
        phase=phase,
    )
    return msgspec.structs.replace(service, **changes)
