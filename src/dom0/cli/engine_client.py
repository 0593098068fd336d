"""Reads single things from the Engine, for commands that must start at once.

Commands that can wait for asyncio and h11 to load use engine/docker.py. Nothing here changes anything.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from dom0.cli import quick_engine

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


class State(msgspec.Struct, frozen=True, rename="pascal"):
    running: bool = False
    paused: bool = False


class InspectedContainer(msgspec.Struct, rename="pascal"):
    id: str
    name: str
    image: str  # ID
    config: Config
    mounts: list[Mount] = []
    state: State = State()


class ListedContainer(msgspec.Struct, rename="pascal"):
    id: str
    names: list[str]
    state: str
    labels: dict[str, str] = {}


class EngineVersion(msgspec.Struct, rename="pascal"):
    version: str


class InspectedImage(msgspec.Struct, rename="pascal"):
    id: str


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
    data = quick_engine.ask(target)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=document)
    except msgspec.DecodeError as error:
        raise quick_engine.not_understood(error) from error
