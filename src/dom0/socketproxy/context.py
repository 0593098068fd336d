"""What a request is answered from: the scope, what it was granted, its Engine. And what an answer can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import field

from dom0.socketproxy import paths
from dom0.socketproxy.cgroup import CgroupDriver
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, Refused
from dom0.socketproxy.refusals import Refusals
from dom0.socketproxy.room import Room
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.tarstream import Pieces
from dom0.socketproxy.upstream import EngineAnswer, Upstream

Line = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Of a stream of documents: as the scope sees it, None where it is none of its business."""


Archive = Callable[[Pieces], Pieces]
"""From what a client sends to what the Engine gets. Raises Refused: the Engine then gets no end, and does nothing."""


class Context(msgspec.Struct, frozen=True):
    scope: Scope
    grants: Grants
    upstream: Upstream
    socket: str  # the scope's own, where the Engine finds it
    refusals: Refusals | None = None  # where they are written
    cgroup_parent: str = ""  # of each container; the Engine's default where there is no group for the scope
    cgroups: CgroupDriver | None = None  # for groups of the scopes inside; None in another scope, which is asked
    observe: Callable[[Handler], Handler] | None = None  # allows all, and writes down what it takes: a recording
    making: asyncio.Lock = field(default_factory=asyncio.Lock)  # held from counting what is there to one more
    room: Room = field(default_factory=Room)
    unseen: set[str] = field(default_factory=set)  # names in the Engine of containers that are not known to be as asked

    async def ask(
        self, method: str, *path: str, query: Mapping[str, str] = {}, body: msgspec.Struct | bytes | None = None
    ) -> EngineAnswer:
        """As `upstream` is asked. Raises Refused for what the Engine says against it too."""
        reply = await self.upstream.ask(method, *path, query=query, body=body)
        if not 200 <= reply.status < 300:
            raise self.refusal(reply)
        return reply

    def refusal(self, reply: EngineAnswer) -> Refused:
        """What the Engine says against a question of ours."""
        message = (reply.document or {}).get("message", f"the Engine answered with status {reply.status}")
        return self.refused(reply.status, message)

    def refused(self, status: int, message: str) -> Refused:
        """By the scope's names; whether a link leads to something on the host is not told."""
        if any(text in message for text in paths.SAYS_OF_LINKS):
            return Refused(BAD_REQUEST, paths.LEADS_NOWHERE)
        return Refused(status, self.scope.without_prefix(message))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the table knows: `names` are the parts of its path that stand for something."""

    method: str
    path: tuple[str, ...]
    names: Mapping[str, str]
    query: dict[str, str]
    body: Any = None  # of the endpoint's model
    registry_auth: str = ""  # the header X-Registry-Auth


class Document(msgspec.Struct, frozen=True):
    """An answer of our own."""

    value: Any = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request for the Engine, whose answer is passed on: as it is, or each document of it through `line`.

    `body` is ours; where the endpoint takes an archive, the client's is sent while it comes, through `archive` if there
    is one.
    """

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str | tuple[str, ...]] = {}  # a parameter may be there several times
    body: msgspec.Struct | None = None
    registry_auth: str = ""
    archive: Archive | None = None
    answer: Archive | None = None  # what the Engine's goes through
    line: Line | None = None
    hijack: bool = False  # after its answer the connection is the container's input and output


Handler = Callable[[Context, Asked], Awaitable[Document | Call]]
