"""The page for devices of the network: over TLS, in a process without rights, which has a listening socket and nothing
else of the network, and in its root directory the agent's socket and nothing else of the machine. Who is a device is
decided by the agent, at each question; here is what a stranger meets first.

A device has two halves of a secret. Its cookie is out of reach of scripts, but goes to every port of this host; what
its page keeps goes to nobody else, but scripts can read it. Neither is worth anything without the other.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from socket import socket

import msgspec
from msgspec.structs import replace

from dom0.http import server
from dom0.http.client import Answer, Client
from dom0.http.server import Handler, HttpError, Request, Response
from dom0.http.web_pages import check_request
from dom0.web import page
from dom0.web.page import Opened

MOST, MOST_EACH = 96, 24  # connections at once, and of one address; a browser has six to a server
MOST_UNPROVED = 48  # of those on which no device was answered: the others are for devices
UNREAD = 30.0  # seconds
MOST_REFUSED = 30  # of one address within …
WINDOW = 60.0  # … seconds, and it is not heard for the rest of them
MOST_KNOWN = 1000  # addresses that were refused something
IDLE = 600.0  # seconds without a connection, and the process ends
COOKIE = "__Host-dom0"  # the prefix binds it to this host, all of it, and to TLS
COOKIE_LIFE = 400 * 86400  # seconds
ADDRESS = "Dom0-Address"  # the header that tells the agent who asks
PEM = "/certificate"
_HALF = re.compile(r"[A-Za-z0-9_-]{43}")


class PairingCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    address: str


class Paired(msgspec.Struct, frozen=True):
    """What the agent answers to a code."""

    cookie: str
    token: str
    operates: bool


async def serve(
    listening: socket, agent_socket: Path, names: tuple[str, ...], *, leave: Callable[[], None] = lambda: None
) -> None:
    """Until nobody looks. `names`: that lead here, besides addresses; `leave` gives up all but the agent's socket,
    before a stranger has been heard.
    """
    agent = Client(lambda: asyncio.open_unix_connection(agent_socket), "dom0")
    async with agent.ask("GET", PEM) as answer:
        tls = _context(b"".join([chunk async for chunk in answer.chunks()]))
    handler = limited(page.serving(agent, Devices(agent, names)))
    leave()
    serving = server.serve(
        handler, listening, most=MOST, most_each=MOST_EACH, most_unproved=MOST_UNPROVED, unread=UNREAD, tls=tls
    )
    async with serving as count:
        idle_since = time.monotonic()
        while (busy := count()) or time.monotonic() - idle_since < IDLE:
            await asyncio.sleep(1)
            idle_since = time.monotonic() if busy else idle_since
    await agent.close()


def _context(pem: bytes) -> ssl.SSLContext:
    """Python reads it from a file only; this one is in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with os.fdopen(os.memfd_create("certificate"), "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


def limited(handler: Handler) -> Handler:
    """Whoever is refused again and again is not listened to for a while."""
    refused: dict[str, tuple[float, int]] = {}  # address -> since when, how often

    async def answer(request: Request) -> Response:
        now = time.monotonic()
        since, count = refused.get(request.address, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        if count >= MOST_REFUSED:
            return replace(server.refusal(429, "too much was refused", "wait for a minute"), headers=page.SECURITY)
        response = await handler(request)
        if request.parts[:2] == ("", "v1") and response.status < 400:  # which the agent answers devices alone
            request.prove(is_known=True)
        if response.status in (401, 403):
            request.prove(is_known=False)
            if len(refused) >= MOST_KNOWN:
                refused.clear()
            last, count = refused.get(request.address, (since, 0))  # others have come meanwhile
            refused[request.address] = since, count + 1 if last == since else 1
        return response

    return answer


class Devices:
    """The page's gate: a code pairs a device, and what that has got is passed on to the agent."""

    def __init__(self, agent: Client, names: tuple[str, ...]) -> None:
        self._agent = agent
        self._names = names

    def check(self, request: Request, *, may_be_link: bool) -> None:
        """By the very address that was asked, or a name that the project says leads here: no other can be rebound."""
        own = _plain(request.reached)
        check_request(
            request, (*self._names, f"[{own}]" if ":" in own else own), may_be_link=may_be_link, scheme="https"
        )

    async def open(self, code: str, request: Request) -> Response:
        body = msgspec.json.encode(PairingCode(code, _plain(request.address)))
        try:
            async with self._agent.ask("POST", "/session", headers={"Content-Type": server.JSON}, body=body) as answer:
                said = await _read(answer)
                if answer.status == 401:
                    return Response(said, answer.status)
                if answer.status != 200:  # what is wrong here is told to nobody who is not a device
                    return server.refusal(503, "no device can be paired now", "dom0 status")
        except OSError as error:
            return server.refusal(503, f"dom0 does not answer: {error}", "dom0 status")
        paired = msgspec.json.decode(said, type=Paired)
        kept = f"{COOKIE}={paired.cookie}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={COOKIE_LIFE}"
        opened = msgspec.json.encode(Opened(paired.token, "dom0", paired.operates))
        return Response(opened, headers=(("Set-Cookie", kept),))

    def admit(self, request: Request) -> Mapping[str, str]:
        scheme, _, token = request.headers.get("Authorization").partition(" ")
        sent = [part.strip().partition("=") for line in request.headers.all("Cookie") for part in line.split(";")]
        cookies = [value for name, _, value in sent if name == COOKIE]
        cookie = cookies[0] if len(cookies) == 1 else ""
        if scheme != "Bearer" or not (_HALF.fullmatch(token) and _HALF.fullmatch(cookie)):
            raise HttpError(401, "this device is not paired: dom0 web pair")
        return {"Authorization": f"Bearer {cookie}.{token}", ADDRESS: _plain(request.address)}


async def _read(answer: Answer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks()])


def _plain(address: str) -> str:
    """One of IPv4 as such that a socket of IPv6 has taken in."""
    found = ip_address(address)
    return str((found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found)
