"""Images that the scope may use. It sees them by the names that it was granted, and makes, removes and tags none."""

from __future__ import annotations

import re
from typing import Any

from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.refusal import BAD_REQUEST, NOT_FOUND, Refused, short

FILTERS = ("before", "dangling", "label", "reference", "since", "until")
_REFERENCE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,255}")
_ID = re.compile(r"(sha256:)?[0-9a-f]{4,64}")


async def listed(context: Context, asked: Asked) -> Document:
    query = dict(asked.query)
    if query.get("filters"):
        query["filters"] = Filters.read(query["filters"]).checked(FILTERS).written()
    reply = await context.upstream.ask("GET", "images", "json", query=query)
    rows = [_shown(row, context.grants) for row in reply.document or ()]
    return Document([row for row in rows if row["RepoTags"]], status=reply.status)


async def inspected(context: Context, asked: Asked) -> Document:
    return Document(_shown(await _usable(context, asked.names["image"]), context.grants))


async def history(context: Context, asked: Asked) -> Call:
    image = await _usable(context, asked.names["image"])
    return Call(method="GET", path=("images", image["Id"], "history"))


async def usable(context: Context, reference: str) -> str:
    """What the Engine is told instead of `reference`: the name if it is one, so that `docker ps` shows it, else the ID.

    Raises Refused.
    """
    image = await _usable(context, reference)
    named = full_name(reference)
    return named if named in (image.get("RepoTags") or ()) else str(image["Id"])


async def _usable(context: Context, reference: str) -> dict[str, Any]:
    """An image of that name or ID with a name that was granted. Raises Refused: what was not granted does not exist."""
    if not _REFERENCE.fullmatch(reference):
        raise Refused(BAD_REQUEST, f"{reference!r}: no image")
    missing = Refused(NOT_FOUND, f"No such image: {reference}")
    if not _ID.fullmatch(reference) and not context.grants.may_use(named := full_name(reference)):
        grant = Grants(images=Images(use=(named,)))
        raise Refused(NOT_FOUND, missing.message, field="Image", value=short(reference), grant=grant)
    reply = await context.upstream.ask("GET", "images", reference, "json")
    if reply.status != 200 or not _names(reply.document, context.grants, "RepoTags"):
        raise missing
    found: dict[str, Any] = reply.document
    return found


def full_name(reference: str) -> str:
    """With its tag, as the Engine lists it."""
    has_tag = ":" in reference.rpartition("/")[2] or "@" in reference
    return (reference if has_tag else f"{reference}:latest").removeprefix("docker.io/").removeprefix("library/")


def _shown(image: dict[str, Any], grants: Grants) -> dict[str, Any]:
    named = {key: _names(image, grants, key) for key in ("RepoTags", "RepoDigests")}
    return image | named | ({"GraphDriver": {"Name": "", "Data": None}} if "GraphDriver" in image else {})


def _names(image: dict[str, Any], grants: Grants, key: str) -> list[str]:
    return [name for name in image.get(key) or () if grants.may_use(name)]
