"""Serves the page on a port of this machine, and passes on what it asks of the agent: questions, and what changes the
machine where it was opened for that. Which of them are answered the agent decides, by its socket.

Every answer carries the same headers, which let the browser run nothing but the files of this directory. What the agent
answers is passed on as it is, so all in it is data to the page, never markup.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec
from msgspec.structs import replace

from dom0.errors import Dom0Error
from dom0.http import server
from dom0.http.channel import Malformed
from dom0.http.client import Answer, Client
from dom0.http.server import Handler, HttpError, Request, Response
from dom0.http.web_pages import LOOPBACK, check_request
from dom0.web.session import Sessions

ASSETS = Path(__file__).with_name("assets")
INDEX = "index.html"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LARGEST_BODY = 1024  # bytes
ANSWER_WITHIN = 30.0  # seconds for the agent to begin, where it is asked to change nothing
NOT_ASKED = (FileNotFoundError, ConnectionRefusedError)  # by whom it was never heard
PASSED_ON = ("application/json", "application/x-ndjson")  # types of answers
SECURITY = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for a session."""

    code: str


class Opened(msgspec.Struct, frozen=True):
    """`command`: what a person types to ask the same machine: `dom0 -H ssh://me@server`."""

    token: str
    command: str
    operates: bool


class Gate(Protocol):
    """Who may look. Both raise HttpError."""

    def check(self, request: Request, *, may_be_link: bool) -> None:
        """Whether it may come from the browser that it comes from. Raises HttpError."""

    async def open(self, code: str, request: Request) -> Response:
        """What a code opens."""

    def admit(self, request: Request) -> Mapping[str, str]:
        """The headers that a question of somebody who may look is passed on with."""


def handler(
    agent: Client, sessions: Sessions, *, command: str, opened: Callable[[], None], operates: bool = False
) -> Handler:
    """`agent`: asks its socket for looking, or `operates` by that for it. `opened` is called when a code was used."""
    return serving(agent, _Tabs(sessions, command, opened, operates))


def serving(agent: Client, gate: Gate) -> Handler:
    files = {f"/{file.name}": file for file in ASSETS.iterdir()} | {"/": ASSETS / INDEX}
    contents = {path: Response(file.read_bytes(), content_type=TYPES[file.suffix]) for path, file in files.items()}
    return partial(_answer, _Page(agent, gate, contents))


async def _answer(page: _Page, request: Request) -> Response:
    try:
        page.gate.check(request, may_be_link=request.method == "GET" and request.path in page.contents)
        response = await page.respond(request)
    except HttpError as error:
        response = server.refusal(error.status, f"{request.path}: {error.reason}", "see docs/web.md")
    return replace(response, headers=(*response.headers, *SECURITY))


class _Tabs:
    """Those of this machine's browser: each has a token, which is worth nothing to a server on another port."""

    def __init__(self, sessions: Sessions, command: str, opened: Callable[[], None], operates: bool) -> None:
        self._sessions = sessions
        self._command = command
        self._opened = opened
        self._operates = operates

    def check(self, request: Request, *, may_be_link: bool) -> None:
        check_request(request, LOOPBACK, may_be_link=may_be_link)

    async def open(self, code: str, request: Request) -> Response:
        if (token := self._sessions.open(code)) is None:
            raise HttpError(401, "this address is not valid any more: each works once")
        self._opened()
        return Response(msgspec.json.encode(Opened(token, self._command, self._operates)))

    def admit(self, request: Request) -> Mapping[str, str]:
        scheme, _, token = request.headers.get("Authorization").partition(" ")
        if scheme != "Bearer" or not self._sessions.knows(token):
            raise HttpError(401, "this needs the address that `dom0 web` has printed")
        if request.method == "POST" and not self._operates:
            raise HttpError(405, "this page changes nothing")
        return {}


class _Page:
    def __init__(self, agent: Client, gate: Gate, contents: dict[str, Response]) -> None:
        self.contents = contents
        self.gate = gate
        self._agent = agent

    async def respond(self, request: Request) -> Response:
        """Raises HttpError."""
        match request.method, request.parts:
            case "POST", ("", "session"):
                try:
                    asked = msgspec.json.decode(await request.read(LARGEST_BODY), type=Code)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise HttpError(400, str(error)) from error
                return await self.gate.open(asked.code, request)
            case method, ("", "v1", *_):
                admitted = self.gate.admit(request)
                if method not in ("GET", "HEAD", "POST"):
                    raise HttpError(405, "this page changes nothing")
                return await self._pass_on(request, admitted)
            case method, _ if method not in ("GET", "HEAD"):
                raise HttpError(405, "this page changes nothing")
        if (found := self.contents.get(request.path)) is None:
            raise HttpError(404, "Not Found")
        return found

    async def _pass_on(self, request: Request, admitted: Mapping[str, str]) -> Response:
        path = "/".join(quote(part, safe="") for part in request.parts)
        target = f"{path}?{urlencode(request.query)}" if request.query else path
        asking = AsyncExitStack()
        changes = request.method == "POST"
        body = await request.read(LARGEST_BODY) if changes else None
        headers = {**admitted, **({"Content-Type": server.JSON} if body else {})}
        try:
            async with asyncio.timeout(None if changes else ANSWER_WITHIN):
                asked = self._agent.ask("POST" if changes else "GET", target, headers=headers, body=body)
                answer = await asking.enter_async_context(asked)
        except NOT_ASKED as error:
            return server.refusal(503, f"dom0 does not answer: {error}", "dom0 status")
        except TimeoutError:
            return server.refusal(502, f"dom0 does not answer within {ANSWER_WITHIN:g} s", "dom0 status")
        except (OSError, Malformed, Dom0Error) as error:
            return server.refusal(502, f"dom0 does not answer: {error}", "dom0 status")
        type_ = answer.headers.get("Content-Type")
        return Response(
            server.while_asked(request, _content(asking, answer)),
            status=answer.status,
            content_type=type_ if type_ in PASSED_ON else "text/plain",
        )


async def _content(asking: AsyncExitStack, answer: Answer) -> AsyncGenerator[bytes]:
    async with asking:
        async for chunk in answer.chunks():
            yield chunk
