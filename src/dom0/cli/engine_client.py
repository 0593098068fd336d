"""Reads single things from the Engine, for commands that must start at once.

Commands that can wait for aiohttp to load use engine/docker.py. Nothing here changes anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from dom0.cli import quick_http
from dom0.engine import address
from dom0.errors import EngineError, EngineUnreachable

ANSWER_WITHIN = 10.0  # seconds
Document = TypeVar("Document")


class Mount(msgspec.Struct, rename="pascal"):
    type: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""


class Config(msgspec.Struct, rename="pascal"):
    user: str = ""
    working_dir: str = ""
    image: str = ""
    labels: dict[str, str] | None = None


class InspectedContainer(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    image: str  # ID
    config: Config
    mounts: list[Mount] = []


class ListedContainer(msgspec.Struct, rename="pascal"):
    id: str
    names: list[str]
    state: str
    labels: dict[str, str] = {}


class EngineVersion(msgspec.Struct, rename="pascal"):
    version: str


class InspectedImage(msgspec.Struct, rename="pascal"):
    id: str


class ListedImage(msgspec.Struct, rename="pascal"):
    id: str
    repo_tags: list[str] | None = None
    labels: dict[str, str] | None = None


def tagged_images() -> dict[str, ListedImage]:
    """Every image with a name, by each of its names (`redis:latest`, and `redis` for short)."""
    listed = _get("/images/json", list[ListedImage])
    assert listed is not None
    names = {tag: found for found in listed for tag in found.repo_tags or ()}
    return names | {tag.removesuffix(":latest"): found for tag, found in names.items() if tag.endswith(":latest")}


def container(name: str) -> InspectedContainer | None:
    found = _get(f"/containers/{quote(name, safe='')}/json", InspectedContainer)
    return found if found and found.name == f"/{name}" else None  # the Engine takes the start of an ID too


def containers(*labels: str) -> list[ListedContainer]:
    """All containers that carry every label (`key` or `key=value`), stopped ones too."""
    filters = msgspec.json.encode({"label": labels}).decode()
    listed = _get(f"/containers/json?{urlencode({'all': '1', 'filters': filters})}", list[ListedContainer])
    assert listed is not None
    return listed


def inspected(container_id: str, document: type[Document]) -> Document | None:
    """Of a full ID: what the caller's `document` names of it."""
    return _get(f"/containers/{quote(container_id, safe='')}/json", document)


def engine_version() -> str:
    found = _get("/version", EngineVersion)
    assert found is not None
    return found.version


def image(ref: str) -> InspectedImage | None:
    return _get(f"/images/{quote(ref, safe='/:@')}/json", InspectedImage)


def _get(target: str, document: type[Document]) -> Document | None:
    """The document at `target`, None if there is no such thing. Raises EngineError."""
    where = address.find(None, os.environ, Path.home())
    try:
        status, data = quick_http.get(where, target, timeout=ANSWER_WITHIN)
    except OSError as error:
        raise _unreachable(where, error) from error
    if status == quick_http.NOT_FOUND:
        return None
    if status != quick_http.OK:
        raise EngineError(f"{where.text}: status {status} for {target}: {_message(data)}")
    return _decode(data, document, where)


def _unreachable(where: address.Address, error: OSError) -> EngineUnreachable:
    hint = "what is missing: dom0 doctor"
    if isinstance(error, PermissionError):
        hint = "ask as root, or as a user of the group docker"
    return EngineUnreachable(f"{where.text}: no Docker Engine answers: {error}", hint=hint)


def _decode(data: bytes, document: type[Document], where: address.Address) -> Document:
    try:
        return msgspec.json.decode(data, type=document)
    except msgspec.DecodeError as error:
        raise EngineError(f"{where.text}: an answer that is not the Docker Engine's: {error}") from error


def _message(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data, type=dict[str, str]).get("message", "")
    except msgspec.DecodeError:
        return ""
