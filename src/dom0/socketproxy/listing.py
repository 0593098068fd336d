"""The Engine's lists of what is a scope's. The Engine is asked for what has the scope's names, so that no list grows
with what others have; then it is checked whose each row is.

Rows are decoded one by one: all at once they take several times the memory of their JSON, and nobody else is answered
in the meantime.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from dom0.socketproxy import shown
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.room import Kind
from dom0.socketproxy.scope import ANONYMOUS_ALONE, LABEL, Scope
from dom0.socketproxy.upstream import BAD_GATEWAY, OK, Upstream

KINDS: tuple[Kind, ...] = ("container", "network", "volume")
Row = dict[str, Any]
ALL = Filters({})
EVERY = {"all": "1"}  # containers that do not run too
DECODED_AT_ONCE = 64 << 10  # bytes


class _Volumes(msgspec.Struct, frozen=True, rename="pascal"):
    volumes: list[msgspec.Raw] | None = None


async def owned(
    upstream: Upstream, scope: Scope, kind: Kind, filters: Filters = ALL, query: Mapping[str, str] = EVERY
) -> AsyncIterator[Row]:
    """As the Engine has them; `query` is for containers. Raises Refused."""
    if "name" not in filters.values:  # so that none of another scope comes, however long its labels are
        names = [scope.long_pattern("^"), *([ANONYMOUS_ALONE] if kind == "volume" else [])]
        filters = filters.with_values("name", names)
    owns = scope.owns_volume if kind == "volume" else scope.owns
    try:
        async for row in of_scopes(upstream, kind, filters, query):
            if owns(name(kind, row), row["Labels"]):
                yield row
    except Refused as refused:
        raise Refused(refused.status, scope.without_prefix(refused.message)) from refused


async def of_scopes(
    upstream: Upstream, kind: Kind, filters: Filters = ALL, query: Mapping[str, str] = EVERY
) -> AsyncIterator[Row]:
    """Rows of all scopes. Raises Refused."""
    path = ("containers", "json") if kind == "container" else (f"{kind}s",)
    labels = [*filters.values.get("label", ()), LABEL]
    asked = {**(query if kind == "container" else {}), "filters": filters.with_values("label", labels).written()}
    async with upstream.listing:
        reply = await upstream.ask("GET", *path, query=asked, shape=_Volumes if kind == "volume" else list[msgspec.Raw])
    if reply.status != OK:
        said = f"the Engine behind this socket does not list its {kind}s: status {reply.status}"
        raise Refused(reply.status, (reply.document or {}).get("message", said))
    decoded = 0
    for row in (reply.document.volumes or ()) if kind == "volume" else reply.document:
        decoded += len(row)
        if decoded >= DECODED_AT_ONCE:
            decoded = 0
            await asyncio.sleep(0)
        try:
            yield msgspec.json.decode(row)
        except msgspec.DecodeError as error:
            raise Refused(BAD_GATEWAY, f"the Engine behind this socket: {error}") from error


async def written(rows: AsyncIterator[Row], show: Callable[[Row], Row], filters: Filters) -> list[msgspec.Raw]:
    """As `show` says them, those whose labels fit."""
    found = []
    async for row in rows:
        seen = show(row)
        if filters.fit(seen["Labels"]):
            found.append(msgspec.Raw(msgspec.json.encode(seen)))
    return found


def name(kind: Kind, row: Row) -> str:
    """In the Engine."""
    return shown.own_name(row) if kind == "container" else str(row["Name"])
