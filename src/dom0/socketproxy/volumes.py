"""Volumes of the scope, of the local driver and without options: one with options can be any directory of the host."""

from __future__ import annotations

import secrets
from typing import Any

from msgspec.structs import replace

from dom0.engine import bodies
from dom0.socketproxy import owned, rules, shown
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters, by_name
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, NOT_FOUND, Refused, too_many

FILTERS = ("dangling", "driver", "label", "name")


async def listed(context: Context, asked: Asked) -> Document:
    rows = await _rows(context, by_name(asked.query, FILTERS, context.scope))
    return Document({"Volumes": [shown.volume(context.scope, row) for row in rows], "Warnings": None})


async def created(context: Context, asked: Asked) -> Document:
    return Document(shown.volume(context.scope, await provide(context, asked.body)), status=201)


async def provide(context: Context, body: bodies.VolumeBody) -> dict[str, Any]:
    """One of that name, made if there is none: the Engine answers with what is there, whoever made it.

    Raises Refused.
    """
    name = owned.check_name(body.name or secrets.token_hex(32))
    rows = await _rows(context, {})
    if len(rows) >= context.grants.volumes and context.scope.long(name) not in [row["Name"] for row in rows]:
        raise too_many("volumes", context.grants.volumes, Grants(volumes=len(rows) + 1))
    checked = rules.volume(replace(body, name=name), context.scope)
    reply = await context.upstream.ask("POST", "volumes", "create", body=checked)
    if reply.status >= BAD_REQUEST:
        raise context.refusal(reply)
    if not context.scope.owns(reply.document["Name"], reply.document["Labels"]):
        raise Refused(FORBIDDEN, f"volume {name}: there is one of that name that is not of this scope", field="Name")
    found: dict[str, Any] = reply.document
    return found


async def inspected(context: Context, asked: Asked) -> Document:
    return Document(shown.volume(context.scope, await _volume(context, asked.names["volume"])))


async def removed(context: Context, asked: Asked) -> Call:
    volume = await _volume(context, asked.names["volume"])
    return Call(method="DELETE", path=("volumes", volume["Name"]), query=asked.query)


async def pruned(context: Context, asked: Asked) -> Document:
    """Those that no container mounts and nobody gave a name, by deletions of our own; all of them with `all`."""
    filters = Filters.read(asked.query.get("filters", "")).checked(("all",))
    everything = filters.values.get("all") in (["1"], ["true"])
    deleted = []
    for row in await _rows(context, {"filters": Filters({"dangling": ["true"]}).written()}):
        name = context.scope.short(row["Name"])
        if everything or owned.FULL_ID.fullmatch(name):
            reply = await context.upstream.ask("DELETE", "volumes", row["Name"])
            if reply.status == 204:
                deleted.append(name)
    return Document({"VolumesDeleted": deleted, "SpaceReclaimed": 0})


async def _rows(context: Context, query: dict[str, str]) -> list[dict[str, Any]]:
    reply = await context.upstream.ask("GET", "volumes", query=query)
    if reply.status != 200:
        raise context.refusal(reply)
    return [row for row in reply.document["Volumes"] or () if context.scope.owns(row["Name"], row["Labels"])]


async def _volume(context: Context, name: str) -> dict[str, Any]:
    if owned.is_name(name):
        reply = await context.upstream.ask("GET", "volumes", context.scope.long(name))
        if reply.status == 200 and context.scope.owns(reply.document["Name"], reply.document["Labels"]):
            found: dict[str, Any] = reply.document
            return found
    raise Refused(NOT_FOUND, f"get {name}: no such volume")
