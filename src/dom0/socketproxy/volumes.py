"""Volumes of the scope, of the local driver and without options: one with options can be any directory of the host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from dom0.engine import bodies
from dom0.socketproxy import listing, owned, rules, shown
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters, by_name
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import FORBIDDEN, NOT_FOUND, Refused, too_many
from dom0.socketproxy.scope import ANONYMOUS

FILTERS = ("dangling", "driver", "label", "name")


async def listed(context: Context, asked: Asked) -> Document:
    rows = _rows(context, by_name(asked.query, FILTERS, context.scope))
    filters = Filters.read(asked.query.get("filters", ""))
    seen = await listing.written(rows, lambda row: shown.volume(context.scope, row), filters)
    return Document({"Volumes": seen, "Warnings": None})


async def created(context: Context, asked: Asked) -> Document:
    async with context.making:
        made = await provide(context, asked.body)
    return Document(shown.volume(context.scope, made), status=201)


async def provide(context: Context, body: bodies.VolumeBody) -> dict[str, Any]:
    """One of that name, made if there is none: the Engine answers with what is there, whoever made it.

    Without a name the Engine makes an anonymous one. Holds `making`. Raises Refused.
    """
    if body.name:
        owned.check_name(body.name)
        if there := await _find(context, body.name):
            return there
    await check_room(context, 1)
    reply = await context.ask("POST", "volumes", "create", body=rules.volume(body, context.scope))
    found: dict[str, Any] = reply.document
    if not context.scope.owns_volume(found["Name"], found["Labels"]):
        raise Refused(
            FORBIDDEN, f"volume {body.name}: there is one of that name that is not of this scope", field="Name"
        )
    return found


async def name_of(context: Context, reference: str) -> str:
    """In the Engine, of one that is there or is to be made."""
    if ANONYMOUS.fullmatch(reference):
        try:
            return str((await _volume(context, reference))["Name"])
        except Refused:
            pass
    return context.scope.long(reference)


async def check_room(context: Context, more: int) -> None:
    """For `more` that come with a container. Holds `making`. Raises Refused."""
    if not context.room.take("volume", more):
        count = sum([1 async for _ in _rows(context)]) + more
        if count > context.grants.volumes:
            raise too_many("volumes", context.grants.volumes, Grants(volumes=count))
        context.room.found("volume", context.grants.volumes - count)


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
    async for row in _rows(context, Filters({"dangling": ["true"]})):
        name = context.scope.short(row["Name"])
        if everything or ANONYMOUS.fullmatch(name):
            reply = await context.upstream.ask("DELETE", "volumes", row["Name"])
            if reply.status == 204:
                deleted.append(name)
    return Document({"VolumesDeleted": deleted, "SpaceReclaimed": 0})


def _rows(context: Context, filters: Filters = listing.ALL) -> AsyncIterator[listing.Row]:
    return listing.owned(context.upstream, context.scope, "volume", filters)


async def _volume(context: Context, name: str) -> dict[str, Any]:
    if found := await _find(context, name):
        return found
    raise Refused(NOT_FOUND, f"get {name}: no such volume")


async def _find(context: Context, name: str) -> dict[str, Any] | None:
    names = (context.scope.long(name), name) if ANONYMOUS.fullmatch(name) else (context.scope.long(name),)
    for long in names if owned.is_name(name) else ():
        reply = await context.upstream.ask("GET", "volumes", long)
        if reply.status == 200 and context.scope.owns_volume(reply.document["Name"], reply.document["Labels"]):
            found: dict[str, Any] = reply.document
            return found
    return None
