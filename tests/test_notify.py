"""Messages to people, to real servers of each kind: delivered, tried again, over a restart, with no word of secrets."""

from __future__ import annotations

import asyncio
import json
import socketserver
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.agent import alerts, notify
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.progress import Changes
from dom0.agent.status import Status
from dom0.health import Problem, Severity
from dom0.plan.desired import Notify
from dom0.testing.fake_agent import make_status
from dom0.testing.receiver import Receiver

WRONG = Problem(code="crash-loop", subject="web-1", title="web keeps exiting", hint="dom0 logs web")
WITHIN = 60.0


class Smtp(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as one letter takes."""

    def handle(self) -> None:
        server: Any = self.server
        self.wfile.write(b"220 test\r\n")
        while line := self.rfile.readline():
            word = line.split()[0].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    text += part
                server.got.append(text)
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 test\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def web() -> Iterator[Receiver]:
    with Receiver() as web:
        yield web


@pytest.fixture
def mail() -> Iterator[Any]:
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Smtp)
    server.got = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Agent:
    """Of which nothing but the status is there."""

    def __init__(self, state: Path, wanted: Notify | None) -> None:
        self.journal = Journal(state, now=lambda: 0.0, boot="00000000")
        self.changed = Changes()
        self.status: Status = make_status(problems=())
        self.wanted = wanted
        self.notifier = notify.Notifier(state, self.journal.note)
        self.tell = partial(
            notify.tell,
            self.notifier,
            self.changed,
            status=lambda: self.status,
            wanted=lambda: self.wanted,
            is_seen=lambda: True,
        )

    def noted(self) -> list[tuple[str, str, str]]:
        return [(one.kind, one.text, one.reason) for one in self.journal.read(0, 1000)]


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything waits for a moment only."""
    for module, name in ((notify, "EVERY"), (notify, "FIRST_PAUSE"), (alerts, "HOLD"), (alerts, "BETWEEN")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(alerts, "CALM", 0.3)


async def run_until(agent: Agent, condition: Any) -> None:
    async def look() -> None:
        while not condition():
            agent.changed.tell()
            await asyncio.sleep(0.02)

    running = asyncio.create_task(agent.tell())
    try:
        async with asyncio.timeout(WITHIN):
            await look()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_each_place_is_told_once_and_once_when_it_is_over(tmp_path: Path, web: Receiver, mail: Any) -> None:
    (tmp_path / "env").write_text(f"NTFY_TOKEN=tk_1\nWEBHOOK_TOKEN=tk_2\nWEBHOOK_URL={web.url}/hook/s3cret?x=1\n")
    wanted = Notify(
        env_file=str(tmp_path / "env"),
        ntfy=f"{web.url}/topic",
        mail_to=("me@example.org",),
        mail_from="box@example.org",
        mail_server="{}:{}".format(*mail.server_address),
    )
    agent = Agent(tmp_path, wanted)
    await run_until(agent, lambda: len(agent.noted()) == 3)
    agent.status = make_status(problems=(WRONG, replace(WRONG, subject="x", severity=Severity.WARNING)))
    await run_until(agent, lambda: len(agent.noted()) == 6)
    agent.status = make_status(problems=())
    await run_until(agent, lambda: len(agent.noted()) == 9)
    topic = [(headers, body.decode()) for path, headers, body in web.got if path == "/topic"]
    assert [headers["Title"] for headers, _ in topic] == [
        "box: dom0 will tell you here",
        "box: web keeps exiting",
        "box: over: web keeps exiting",
    ]
    assert topic[1][1] == "  error web-1: web keeps exiting  [crash-loop]\n      dom0 logs web"
    assert {headers["Authorization"] for headers, _ in topic} == {"Bearer tk_1"}
    hook = [(headers, json.loads(body)) for path, headers, body in web.got if path == "/hook/s3cret?x=1"]
    assert {headers["Authorization"] for headers, _ in hook} == {"Bearer tk_2"}
    assert [one["subject"] for one in hook[1][1]["problems"]] == ["web-1"]
    assert [one["subject"] for one in hook[2][1]["over"]] == ["web-1"]
    assert b"Subject: box: web keeps exiting" in mail.got[1]
    assert [kind for kind, *_ in agent.noted()] == [Kind.NOTIFIED] * 9
    assert not any(secret in str(agent.noted()) for secret in ("tk_", "s3cret"))


async def test_what_cannot_be_delivered_is_tried_again_also_by_the_next_agent(tmp_path: Path, web: Receiver) -> None:
    (tmp_path / "env").write_text(f"WEBHOOK_URL={web.url}/s3cret\n")
    wanted = Notify(env_file=str(tmp_path / "env"))
    agent = Agent(tmp_path, wanted)
    web.status = 500
    await run_until(agent, lambda: len(web.got) == 3)
    web.status = 302
    await run_until(agent, lambda: len(web.got) == 4)
    [failed] = agent.noted()
    assert failed == (
        Kind.NOTIFY_FAILED,
        "box: dom0 will tell you here: not sent yet",
        "webhook: it answered with status 500",
    )
    web.status = 200
    agent = Agent(tmp_path, wanted)
    await run_until(agent, lambda: len(agent.noted()) == 2)
    assert agent.noted()[1][:2] == (Kind.NOTIFIED, "box: dom0 will tell you here: sent by webhook")
    agent = Agent(tmp_path, wanted)
    agent.status = make_status(problems=(WRONG,))
    await run_until(agent, lambda: len(agent.noted()) == 3)
    assert json.loads(web.got[-1][2])["title"] == "box: web keeps exiting"
    agent = Agent(tmp_path, wanted)  # another one, which finds the same problem
    agent.status = make_status(problems=(WRONG, replace(WRONG, subject="db-1", title="db fails")))
    await run_until(agent, lambda: len(agent.noted()) == 4)
    assert [one["subject"] for one in json.loads(web.got[-1][2])["problems"]] == ["db-1"]


async def test_the_status_says_that_nobody_is_told_until_somebody_is(tmp_path: Path, web: Receiver) -> None:
    secrets = tmp_path / "notify.env"
    wanted = Notify(webhook=f"{web.url}/hook", env_file=str(secrets))
    agent = Agent(tmp_path, wanted)
    await run_until(agent, agent.notifier.unsent)
    [problem] = notify.Notifier(tmp_path, agent.journal.note).unsent()  # of the next agent
    assert (problem.code, problem.severity) == ("notify-unsent", Severity.WARNING)
    assert problem.title == f"nobody is told: {secrets}: cannot be read: No such file or directory"
    secrets.write_text("WEBHOOK_TOKEN=x\n")
    seen = agent.changed.count
    await run_until(agent, lambda: web.posted("/hook") and not agent.notifier.unsent())
    assert agent.changed.count > seen


async def test_a_title_of_several_lines_is_sent_in_one(tmp_path: Path, web: Receiver) -> None:
    agent = Agent(tmp_path, Notify(ntfy=f"{web.url}/topic"))
    agent.status = make_status(problems=(replace(WRONG, title="web fails\nwith two lines"),))
    await run_until(agent, lambda: len(web.got) == 2)
    assert web.got[1][1]["Title"] == "box: web fails with two lines"


async def test_nobody_is_told_unless_it_is_asked_for(tmp_path: Path, web: Receiver) -> None:
    agent = Agent(tmp_path, None)
    agent.status = make_status(problems=(WRONG,))
    running = asyncio.create_task(agent.tell())
    for _ in range(20):
        agent.changed.tell()
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not (tmp_path / "notify.json").exists()


async def test_a_server_that_is_not_there_and_a_file_that_is_gone_are_said_without_addresses(tmp_path: Path) -> None:
    wanted = Notify(ntfy="http://127.0.0.1:1/s3cret")
    agent = Agent(tmp_path, wanted)
    await run_until(agent, agent.noted)
    assert agent.noted()[0][2] == "ntfy: Connection refused"
    assert [one.title for one in agent.notifier.unsent()] == ["nobody is told: ntfy: Connection refused"]
    agent.wanted = replace(wanted, env_file=str(tmp_path / "gone"))
    await run_until(agent, lambda: len(agent.noted()) > 1)
    assert agent.noted()[1][2] == f"{tmp_path}/gone: cannot be read: No such file or directory"
