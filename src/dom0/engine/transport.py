"""HTTP to one Engine: the connection, its API version, and the one place that turns failures into our errors.

Knows nothing of containers or images; the adapter `docker` does.
"""

from __future__ import annotations

import asyncio
import io
import shlex
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import msgspec

from dom0.engine import frames, parse
from dom0.engine.address import Address
from dom0.engine.bodies import Body
from dom0.errors import Conflict, Dom0Error, EngineError, EngineUnreachable, EngineUnsuitable, NotFound
from dom0.http.channel import READ_AHEAD, Malformed, Streams
from dom0.http.client import Answer, Client, Readable
from dom0.run import dial

Query = Mapping[str, str]

MIN_API = (1, 41)  # Engine 20.10
MAX_API = (1, 51)  # Engine 28.5: the newest that this adapter was tried with

PATIENCE = 300.0  # seconds for one answer; an Engine under load starts a container in ten
_CONNECT = 10.0
_LOG_IN = 60.0
_MAX_ANSWER = 64 << 20
_MAX_REFUSAL = 64 << 10


class _NotConnected(Exception):
    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Transport:
    """One connection pool; `call` for an answer, `stream` for one that keeps coming.

    Raises EngineUnreachable for unusable certificates.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.api = MIN_API
        self._root = ""
        self._client = Client(self._connected, urlsplit(address.base).netloc)
        self._tls = address.tls()

    @property
    def api_version(self) -> str:
        return _dotted(self.api)

    async def negotiate(self) -> None:
        """Settle on the lower of our newest API and the Engine's. Raises EngineUnreachable or EngineUnsuitable."""
        where = f"Docker Engine at {self.address.text}"
        patience = _LOG_IN if self.address.dial else _CONNECT
        async with self.stream("GET", "/_ping", where=where, patience=patience) as answer:
            offered = _version(answer.headers.get("Api-Version"))
            await _read(answer, _MAX_REFUSAL, where)
        if offered is None:
            raise EngineUnsuitable(f"{where}: does not say which API it speaks", hint="is this a Docker Engine?")
        if offered < MIN_API:
            raise EngineUnsuitable(
                f"{where}: speaks API {_dotted(offered)}, older than {_dotted(MIN_API)}",
                hint="dom0 needs Docker Engine 20.10 or newer: upgrade it",
            )
        self.api = min(offered, MAX_API)
        self._root = f"/v{self.api_version}"
        await self.call("GET", "/_ping", where=where, patience=_CONNECT)  # an Engine too new for us refuses this one

    async def close(self) -> None:
        await self._client.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        where: str,
        query: Query | None = None,
        body: Body | Mapping[str, Any] | None = None,
        data: bytes | None = None,
        patience: float | None = PATIENCE,
    ) -> bytes:
        """Ask and return the answer. Raises as the Engine protocol says; `where` starts every message."""
        async with self.stream(
            method, path, where=where, query=query, body=body, data=data, patience=patience
        ) as answer:
            return await _read(answer, _MAX_ANSWER, where)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        where: str,
        query: Query | None = None,
        body: Body | Mapping[str, Any] | None = None,
        data: bytes | Readable | None = None,
        headers: Mapping[str, str] = {},
        patience: float | None = None,
    ) -> AsyncIterator[Answer]:
        """Ask and yield the answer while it comes; what breaks inside the block is raised as our errors too.

        `path` is quoted already; `patience` is seconds for all of it, None for no end.
        """
        target = f"{self._root}{path}{'?' + urlencode(query) if query else ''}"
        headers = dict(headers)
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        elif data is not None:
            headers["Content-Type"] = "application/x-tar"
        try:
            async with (
                asyncio.timeout(patience),
                self._client.ask(method, target, headers=headers, body=data) as answer,
            ):
                if answer.status >= 300 and answer.status != 304:
                    raise _refusal(answer.status, await _read(answer, _MAX_REFUSAL, where), where)
                yield answer
        except frames.Malformed as error:
            raise EngineError(f"{where}: the Engine's answer makes no sense: {error}") from error
        except Malformed as error:
            raise EngineError(
                f"{where}: what answers at {self.address.text} does not speak HTTP: {parse.one_line(str(error))}",
                hint="is this a Docker Engine?",
            ) from error
        except TimeoutError as error:
            raise EngineUnreachable(
                f"{where}: the Docker Engine did not answer within {patience or _CONNECT:g} s",
                hint="is it overloaded or hanging? See its log: journalctl -u docker",
            ) from error
        except ssl.SSLError as error:
            raise self.address.unreachable(error, where) from error
        except _NotConnected as error:
            raise self.address.unreachable(error.error, where) from error.error
        except OSError as error:
            raise EngineUnreachable(
                f"{where}: the connection to the Docker Engine broke: {parse.one_line(str(error)) or 'closed'}",
                hint=f"try it: {shlex.join(self.address.dial)}"
                if self.address.dial
                else "it was restarted or stopped; see systemctl status docker",
            ) from error

    async def _connected(self) -> Streams:
        try:
            async with asyncio.timeout(_CONNECT):
                if self.address.socket:
                    return await asyncio.open_unix_connection(self.address.socket, limit=READ_AHEAD)
                if self.address.dial:  # the input and output of a command are the two ends
                    connection = dial(self.address.dial)
                    connection.setblocking(False)
                    return await asyncio.open_connection(sock=connection, limit=READ_AHEAD)
                parts = urlsplit(self.address.base)
                return await asyncio.open_connection(parts.hostname, parts.port, ssl=self._tls, limit=READ_AHEAD)
        except (TimeoutError, ssl.SSLError):
            raise
        except OSError as error:
            raise _NotConnected(error) from error


async def copy_answer(answer: Answer, into: IO[bytes], limit: int, where: str) -> None:
    """Write the body to `into`. Raises EngineError for one of more than `limit` bytes, Dom0Error on a full disk."""
    length = 0
    async for chunk in answer.chunks():
        length += len(chunk)
        if length > limit:
            raise EngineError(f"{where}: the Engine's answer is longer than {limit >> 10} KiB")
        try:
            into.write(chunk)
        except OSError as error:
            raise Dom0Error(f"{where}: cannot be written: {error.strerror}", hint="free space: df -h") from error


async def read_lines(answer: Answer, limit: int) -> AsyncIterator[bytes]:
    """The lines of the body while they come. Raises Malformed for one of more than `limit` bytes."""
    lines = frames.LineSplitter(limit)
    async for chunk in answer.chunks():
        for line in lines.feed(chunk):
            yield line
    if rest := lines.rest():
        yield rest


async def _read(answer: Answer, limit: int, where: str) -> bytes:
    kept = io.BytesIO()
    await copy_answer(answer, kept, limit, where)
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


def _version(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    if not (text.isascii() and major.isdigit() and minor.isdigit() and len(text) < 10):
        return None
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
