"""What is passed on to an agent that does not do well."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dom0.http import server
from dom0.http.client import Client
from dom0.web import page
from dom0.web.session import Sessions


async def test_an_agent_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "ANSWER_WITHIN", 0.1)
    given_up = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        given_up.set()

    sessions = Sessions()
    token = {"Authorization": f"Bearer {sessions.open(sessions.code)}"}
    async with AsyncExitStack() as running:
        silent = await asyncio.start_unix_server(say_nothing, tmp_path / "agent")
        running.callback(silent.close)
        agent = Client(lambda: asyncio.open_unix_connection(tmp_path / "agent"), "dom0")
        handler = page.handler(agent, sessions, command="dom0", opened=lambda: None)
        listening = running.enter_context(socket.create_server(("127.0.0.1", 0)))
        await running.enter_async_context(server.serve(handler, listening))
        browser = Client(lambda: asyncio.open_connection(*listening.getsockname()), "127.0.0.1")
        running.push_async_callback(browser.close)
        async with asyncio.timeout(60), browser.ask("GET", "/v1/status", headers=token) as answer:
            assert answer.status == 502
            assert b"does not answer" in b"".join([chunk async for chunk in answer.chunks()])
            await given_up.wait()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"code": "\xff"}', b"[" * 900, b'{"code": "0"'])
async def test_what_is_no_code_is_refused(body: bytes, tmp_path: Path) -> None:
    async with AsyncExitStack() as running:
        agent = Client(lambda: asyncio.open_unix_connection(tmp_path / "none"), "dom0")
        handler = page.handler(agent, Sessions(), command="dom0", opened=lambda: None)
        listening = running.enter_context(socket.create_server(("127.0.0.1", 0)))
        await running.enter_async_context(server.serve(handler, listening))
        browser = Client(lambda: asyncio.open_connection(*listening.getsockname()), "127.0.0.1")
        running.push_async_callback(browser.close)
        headers = {"Content-Type": "application/json"}
        async with asyncio.timeout(60), browser.ask("POST", "/session", body=body, headers=headers) as answer:
            assert answer.status == 400
