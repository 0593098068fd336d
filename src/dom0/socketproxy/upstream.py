"""The Engine behind the socket: our own questions to it, and one connection for each request that is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from dom0.errors import EngineUnsuitable
from dom0.http.channel import Malformed, Streams
from dom0.http.client import Client
from dom0.socketproxy.refusal import Refused

NEWEST_API = (1, 45)  # the newest whose keys the rules know
LARGEST_ANSWER = 64 << 20  # bytes
HOST = "docker"
READ_AHEAD = 256 << 10  # bytes
BAD_GATEWAY = 502


class Reply(NamedTuple):
    status: int
    document: Any  # None for an empty answer


class Upstream:
    """`socket` is the path of an Engine's socket, or of another scope's."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.api = NEWEST_API
        self._client = Client(self.connect, HOST)

    async def connect(self) -> Streams:
        try:
            return await asyncio.open_unix_connection(self.socket, limit=READ_AHEAD)
        except OSError as error:
            raise Refused(BAD_GATEWAY, f"the Engine behind this socket does not answer: {error.strerror}") from error

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
    ) -> Reply:
        """`body`: JSON, or an archive as it is. `patience`: seconds for the whole answer, None for no end.

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
                    if len(content) > LARGEST_ANSWER:
                        raise Refused(BAD_GATEWAY, "the Engine's answer is too long")
                document = msgspec.json.decode(content) if content else None
                return Reply(answer.status, document)
        except TimeoutError as error:
            message = f"the Engine behind this socket has not answered within {patience:g} s"
            raise Refused(BAD_GATEWAY, message) from error
        except (OSError, Malformed, msgspec.DecodeError) as error:
            raise Refused(BAD_GATEWAY, f"the Engine behind this socket: {error}") from error

    async def close(self) -> None:
        await self._client.close()
