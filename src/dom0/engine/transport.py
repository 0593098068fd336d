"""HTTP to one Engine: the connection, its API version, and the one place that turns failures into our errors.

Knows nothing of containers or images; the adapter `docker` does. Compression, redirects and cookies are off: an Engine
needs none of them, and each is a way for a hostile one to reach further than its answer.
"""

from __future__ import annotations

import asyncio
import errno
import io
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from dom0.engine import parse
from dom0.engine.address import Address
from dom0.engine.frames import Lines, Malformed
from dom0.engine.values import Body
from dom0.errors import Conflict, Dom0Error, EngineError, EngineUnreachable, EngineUnsuitable, NotFound
from dom0.run import dial

Query = Mapping[str, str]

MIN_API = (1, 41)  # Engine 20.10
MAX_API = (1, 51)  # Engine 28.5: the newest that this adapter was tried with

PATIENCE = 300.0  # seconds for one answer; an Engine under load starts a container in ten
_CONNECT = 10.0
_LOG_IN = 60.0
_MAX_ANSWER = 64 << 20
_MAX_REFUSAL = 64 << 10
_LINES = 64 << 10  # what aiohttp may read ahead


class DialConnector(aiohttp.BaseConnector):
    """Each connection is the input and output of a command."""

    def __init__(self, argv: Sequence[str]) -> None:
        super().__init__(limit=0)
        self._argv = argv

    async def _create_connection(self, req: object, traces: object, timeout: object) -> ResponseHandler:
        connection = dial(self._argv)
        connection.setblocking(False)
        _, protocol = await asyncio.get_running_loop().create_connection(self._factory, sock=connection)
        return protocol


class Transport:
    """One connection pool; `call` for an answer, `stream` for one that keeps coming."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.api = MIN_API
        self._root = address.base
        tls = address.tls()
        # The limit of 100 connections would starve calls behind streams that stay open.
        self._session = aiohttp.ClientSession(
            connector=(
                aiohttp.UnixConnector(address.socket, limit=0)
                if address.socket
                else DialConnector(address.dial)
                if address.dial
                else aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "dom0"},
            skip_auto_headers=("Accept-Encoding",),
            read_bufsize=_LINES,
        )

    @property
    def api_version(self) -> str:
        return _dotted(self.api)

    async def negotiate(self) -> None:
        """Settle on the lower of our newest API and the Engine's. Raises EngineUnreachable or EngineUnsuitable."""
        where = f"Docker Engine at {self.address.text}"
        patience = _LOG_IN if self.address.dial else _CONNECT
        async with self.stream("GET", "/_ping", where=where, patience=patience) as response:
            offered = _version(response.headers.get("Api-Version", ""))
        if offered is None:
            raise EngineUnsuitable(f"{where}: does not say which API it speaks", hint="is this a Docker Engine?")
        if offered < MIN_API:
            raise EngineUnsuitable(
                f"{where}: speaks API {_dotted(offered)}, older than {_dotted(MIN_API)}",
                hint="dom0 needs Docker Engine 20.10 or newer: upgrade it",
            )
        self.api = min(offered, MAX_API)
        self._root = f"{self.address.base}/v{self.api_version}"
        await self.call("GET", "/_ping", where=where, patience=_CONNECT)  # an Engine too new for us refuses this one

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        where: str,
        query: Query | None = None,
        body: Body | None = None,
        data: bytes | None = None,
        patience: float | None = PATIENCE,
        limit: int = _MAX_ANSWER,
    ) -> bytes:
        """Ask and return the answer. Raises as the Engine protocol says; `where` starts every message."""
        async with self.stream(
            method, path, where=where, query=query, body=body, data=data, patience=patience
        ) as response:
            return await _read(response, limit, where)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        where: str,
        query: Query | None = None,
        body: Body | None = None,
        data: bytes | IO[bytes] | None = None,
        patience: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask and yield the answer while it comes; what breaks inside the block is raised as our errors too.

        `path` is quoted already; `patience` is seconds for all of it, None for no end.
        """
        url = URL(f"{self._root}{path}{'?' + urlencode(query) if query else ''}", encoded=True)
        headers = {}
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        elif data is not None:
            headers["Content-Type"] = "application/x-tar"
        try:
            async with self._session.request(
                method,
                url,
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=patience, sock_connect=_CONNECT),
            ) as response:
                if response.status >= 300 and response.status != 304:
                    raise _refusal(response.status, await _read(response, _MAX_REFUSAL, where), where)
                yield response
        except Malformed as error:
            raise EngineError(f"{where}: the Engine's answer makes no sense: {error}") from error
        except TimeoutError as error:
            raise EngineUnreachable(
                f"{where}: the Docker Engine did not answer within {patience or _CONNECT:g} s",
                hint="is it overloaded or hanging? See its log: journalctl -u docker",
            ) from error
        except aiohttp.ClientSSLError as error:
            why = parse.printable(str(error.__cause__ or error))
            raise EngineUnreachable(
                f"{where}: no trusted connection to {self.address.text}: {why}",
                hint="DOCKER_CERT_PATH must hold the Engine's ca.pem, and a cert.pem and key.pem that it trusts",
                transient=False,
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise _unreachable(self.address, error.os_error, where) from error
        except aiohttp.ClientResponseError as error:
            raise EngineError(
                f"{where}: what answers at {self.address.text} does not speak HTTP: {parse.printable(error.message)}",
                hint="is this a Docker Engine?",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnreachable(
                f"{where}: the connection to the Docker Engine broke: {parse.printable(str(error)) or 'closed'}",
                hint=f"try it: {shlex.join(self.address.dial)}"
                if self.address.dial
                else "it was restarted or stopped; see systemctl status docker",
            ) from error


async def copy_answer(response: aiohttp.ClientResponse, into: IO[bytes], limit: int, where: str) -> None:
    """Write the body to `into`. Raises EngineError for one of more than `limit` bytes, Dom0Error on a full disk."""
    length = 0
    async for chunk in response.content.iter_any():
        length += len(chunk)
        if length > limit:
            raise EngineError(f"{where}: the Engine's answer is longer than {limit >> 10} KiB")
        try:
            into.write(chunk)
        except OSError as error:
            raise Dom0Error(f"{where}: cannot be written: {error.strerror}", hint="free space: df -h") from error


async def read_lines(response: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    """The lines of the body while they come. Raises Malformed for one of more than `limit` bytes."""
    lines = Lines(limit)
    async for chunk in response.content.iter_any():
        for line in lines.feed(chunk):
            yield line
    if rest := lines.rest():
        yield rest


async def _read(response: aiohttp.ClientResponse, limit: int, where: str) -> bytes:
    kept = io.BytesIO()
    await copy_answer(response, kept, limit, where)
    return kept.getvalue()


def _refusal(status: int, body: bytes, where: str) -> EngineError:
    words = parse.refusal_message(body) or f"the Engine answered with status {status}"
    message = f"{where}: {words}"
    if status == 404:
        return NotFound(message)
    if status == 409 or (status == 403 and ("has active endpoints" in words or "already exists in network" in words)):
        return Conflict(message)
    if status == 400 and "Minimum supported API version" in words:
        return EngineUnsuitable(message, hint=f"this dom0 speaks API {_dotted(MAX_API)}: use a newer dom0")
    return EngineError(message)


def _unreachable(address: Address, error: OSError, where: str) -> EngineUnreachable:
    """Say what to do, by the reason of the refused connection."""
    start = "start it: systemctl start docker; or set DOCKER_HOST if it is elsewhere"
    match error.errno:
        case errno.EACCES | errno.EPERM:
            why, hint = "no permission", "run as root, or join the group: usermod -aG docker $USER, then log in again"
        case errno.ENOENT:
            why, hint = "there is no such socket", f"is a Docker Engine installed and running? {start}"
        case errno.ECONNREFUSED:
            why, hint = "nobody listens", start
        case _:
            why, hint = parse.printable(str(error)), start
    place = f"Docker Engine at {address.text}"
    return EngineUnreachable(f"{where}: {why}" if where == place else f"{where}: {place}: {why}", hint=hint)


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    if not (text.isascii() and major.isdigit() and minor.isdigit() and len(text) < 10):
        return None
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
