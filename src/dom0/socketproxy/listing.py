"""The Engine's lists of what is a scope's. It is asked for what has the scope's names, so that no list grows with what
others have; whose a row is, is then looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dom0.socketproxy import shown
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.room import Kind
from dom0.socketproxy.scope import ANONYMOUS_ALONE, LABEL, Scope
from dom0.socketproxy.upstream import Upstream

KINDS: tuple[Kind, ...] = ("container", "network", "volume")
Row = dict[str, Any]
ALL = Filters({})
EVERY = {"all": "1"}  # containers that do not run too


async def owned(
    upstream: Upstream, scope: Scope, kind: Kind, filters: Filters = ALL, query: Mapping[str, str] = EVERY
) -> list[Row]:
    """As the Engine has them; `query` is for containers. Raises Refused."""
    if "name" not in filters.values:  # so that none of another scope comes, however long its labels are
        names = [scope.long_pattern("^"), *([ANONYMOUS_ALONE] if kind == "volume" else [])]
        filters = filters.with_values("name", names)
    owns = scope.owns_volume if kind == "volume" else scope.owns
    try:
        rows = await of_scopes(upstream, kind, filters, query)
    except Refused as refused:
        raise Refused(refused.status, scope.without_prefix(refused.message)) from refused
    return [row for row in rows if owns(name(kind, row), row["Labels"])]


async def of_scopes(
    upstream: Upstream, kind: Kind, filters: Filters = ALL, query: Mapping[str, str] = EVERY
) -> list[Row]:
    """Rows of all scopes. Raises Refused."""
    path = ("containers", "json") if kind == "container" else (f"{kind}s",)
    labels = [*filters.values.get("label", ()), LABEL]
    asked = {**(query if kind == "container" else {}), "filters": filters.with_values("label", labels).written()}
    reply = await upstream.ask("GET", *path, query=asked)
    if reply.status != 200:
        said = f"the Engine behind this socket does not list its {kind}s: status {reply.status}"
        raise Refused(reply.status, (reply.document or {}).get("message", said))
    return list((reply.document["Volumes"] or ()) if kind == "volume" else reply.document)


def name(kind: Kind, row: Row) -> str:
    """In the Engine."""
    return shown.own_name(row) if kind == "container" else str(row["Name"])
