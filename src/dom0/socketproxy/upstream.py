"""The Engine behind the socket: our own questions to it, and one connection for each request that is passed on."""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from dom0.errors import EngineUnsuitable
from dom0.http.channel import Malformed, Streams
from dom0.http.client import Client
from dom0.socketproxy.refusal import UNAVAILABLE, Refused

NEWEST_API = (1, 45)  # the newest whose keys the rules know
LARGEST_ANSWER = 64 << 20  # bytes
LARGEST_OF_A_SCOPE = 1 << 30  # bytes, for its owner, whatever it has made of its rows
MOST_HELD = 2  # such answers, of all tasks together: a decoded one is some times as large
LISTS_AT_ONCE = 4  # that are asked for; long ones keep the Engine from others
HOST = "docker"
READ_AHEAD = 256 << 10  # bytes
SEND_AHEAD = 512 << 10  # bytes, of an archive: a piece goes at once
OK, BAD_GATEWAY = 200, 502


class EngineAnswer(NamedTuple):
    status: int
    document: Any  # None for an empty answer


class Upstream:
    """`socket` is the path of an Engine's socket, or of another scope's; `largest`: bytes of an answer."""

    def __init__(self, socket: str, *, largest: int = LARGEST_ANSWER) -> None:
        self.socket = socket
        self._largest = largest
        self._held: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()  # by task, bytes
        self.listing = asyncio.Semaphore(LISTS_AT_ONCE)
        self.api = NEWEST_API
        self._client = Client(self.connect, HOST)

    async def connect(self) -> Streams:
        try:
            streams = await asyncio.open_unix_connection(self.socket, limit=READ_AHEAD)
        except OSError as error:
            raise Refused(BAD_GATEWAY, f"the Engine behind this socket does not answer: {error.strerror}") from error
        streams[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_AHEAD)
        return streams

    async def negotiate(self) -> None:
        """Raises Refused while it does not answer, EngineUnsuitable."""
        async with self._client.ask("GET", "/_ping") as answer:
            major, _, minor = answer.headers.get("Api-Version").partition(".")
        if not (major.isdigit() and minor.isdigit()):
            raise EngineUnsuitable(f"{self.socket}: does not say which API it speaks", hint="is this a Docker Engine?")
        self.api = min(NEWEST_API, (int(major), int(minor)))

    def target(self, path: tuple[str, ...], query: Mapping[str, str | tuple[str, ...]]) -> str:
        major, minor = self.api
        spelled = "/".join(quote(part, safe=":@") for part in path)
        return f"/v{major}.{minor}/{spelled}" + (f"?{urlencode(query, doseq=True)}" if query else "")

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] = {},
        body: msgspec.Struct | bytes | None = None,
        patience: float | None = None,
        shape: Any = Any,
    ) -> EngineAnswer:
        """`body`: JSON, or an archive as it is. `patience`: seconds for the whole answer, None for no end.

        `shape`: type of the document where the Engine does what is asked.

        Raises Refused where there is no answer that makes sense.
        """
        kind = "x-tar" if isinstance(body, bytes) else "json"
        headers = {"Content-Type": f"application/{kind}"} if body is not None else {}
        data = msgspec.json.encode(body) if isinstance(body, msgspec.Struct) else body
        content = bytearray()
        try:
            async with (
                asyncio.timeout(patience),
                self._client.ask(method, self.target(path, query), headers=headers, body=data) as answer,
            ):
                async for chunk in answer.chunks():
                    content += chunk
                    self._hold(len(content))
                type_ = shape if answer.status == OK else Any
                document = msgspec.json.decode(content, type=type_) if content else None
                return EngineAnswer(answer.status, document)
        except TimeoutError as error:
            message = f"the Engine behind this socket has not answered within {patience:g} s"
            raise Refused(BAD_GATEWAY, message) from error
        except (OSError, Malformed, msgspec.DecodeError) as error:
            raise Refused(BAD_GATEWAY, f"the Engine behind this socket: {error}") from error

    def _hold(self, size: int) -> None:
        """Raises Refused where that is too much: who asks for much, and reads none of it, gets no more memory."""
        task = asyncio.current_task()
        self._held[task] = max(size, self._held.get(task, 0))
        if size > self._largest:
            self.let_go()
            raise Refused(BAD_GATEWAY, "the Engine's answer is too long")
        if sum(self._held.values()) > MOST_HELD * self._largest:
            self.let_go()
            raise Refused(UNAVAILABLE, "too much is answered at once: ask again when that has been read")

    def let_go(self) -> None:
        """What this task was answered is no longer held."""
        self._held.pop(asyncio.current_task(), None)

    async def close(self) -> None:
        await self._client.close()
