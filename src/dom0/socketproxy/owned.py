"""From a reference that a client sends to the full ID of an object of the scope's. What is not its own does not exist.

The Engine takes the name of one container for the ID of another if it looks like one, so no reference is passed on.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from dom0.socketproxy import listing
from dom0.socketproxy.context import Context
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.refusal import BAD_REQUEST, NOT_FOUND, Refused
from dom0.socketproxy.upstream import BAD_GATEWAY

FULL_ID = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"[0-9a-f]{1,63}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")


class OwnedContainer(NamedTuple):
    id: str
    name: str  # in the Engine
    document: dict[str, Any]  # as the Engine inspects it


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Raises Refused."""
    if not is_name(name):
        raise Refused(
            BAD_REQUEST, f"{name!r}: a name has letters, digits, _ . and -, a letter or digit first, two at least"
        )
    return name


async def container(context: Context, reference: str) -> OwnedContainer:
    """By ID, name, or the beginning of an ID. Raises Refused."""
    reference = reference.removeprefix("/")
    if FULL_ID.fullmatch(reference) and (found := await _inspect(context, reference)):
        return found
    if is_name(reference) and (found := await named(context, reference)):
        return found
    by_id = (Filters({"id": [reference]}), listing.ALL)  # the Engine finds none if others' IDs begin so too
    for filters in by_id if _ID_PREFIX.fullmatch(reference) else ():
        rows = containers(context, filters)
        alike = [row["Id"] async for row in rows if row["Id"].startswith(reference)]
        if len(alike) > 1:
            raise Refused(BAD_REQUEST, f"multiple IDs found with provided prefix: {reference}")
        if alike and (found := await _inspect(context, alike[0])):
            return found
    raise Refused(NOT_FOUND, f"No such container: {reference}")


async def named(context: Context, name: str) -> OwnedContainer | None:
    """By what the scope calls it. Raises Refused."""
    return await _inspect(context, context.scope.long(name))


async def _inspect(context: Context, reference: str) -> OwnedContainer | None:
    reply = await context.upstream.ask("GET", "containers", reference, "json")
    if reply.status == NOT_FOUND:
        return None
    if reply.status != 200:
        raise Refused(BAD_GATEWAY, f"container {reference}: the Engine answered with status {reply.status}")
    name = reply.document["Name"].removeprefix("/")
    if name in context.unseen or not context.scope.owns(name, reply.document["Config"]["Labels"]):
        return None
    return OwnedContainer(reply.document["Id"], name, reply.document)


def containers(
    context: Context, filters: Filters = listing.ALL, query: Mapping[str, str] = listing.EVERY
) -> AsyncIterator[listing.Row]:
    """Those of the scope's, as the Engine lists them. Raises Refused."""
    return listing.owned(context.upstream, context.scope, "container", filters, query)


async def exec_container(context: Context, exec_id: str) -> str:
    """ID of the container of an exec. Raises Refused."""
    if FULL_ID.fullmatch(exec_id):
        reply = await context.upstream.ask("GET", "exec", exec_id, "json")
        if reply.status == 200:
            return (await container(context, reply.document["ContainerID"])).id
    raise Refused(NOT_FOUND, f"No such exec instance: {exec_id}")
