"""What an attempt is, and the way that most of them take: a container that would have power."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dom0.testing.escape.raw import Answer, Client
from dom0.testing.escape.world import World

Attempt = Callable[[Client, World], list[Answer]]


class Case(NamedTuple):
    path: int  # number of the escape path
    title: str
    attempt: Attempt


def body(world: World, **more: Any) -> dict[str, Any]:
    return {"Image": world.image, "Cmd": ["sleep", "100"], **more}


def run(
    client: Client, asked: bytes | Mapping[str, Any], *, query: str = "", headers: Mapping[str, str] = {}
) -> list[Answer]:
    """Create a container, start it, and ask for what it says."""
    made = client.ask("POST", f"/containers/create{query}", asked, headers=headers)
    container_id = (made.document or {}).get("Id", "") if isinstance(made.document, dict) else ""
    if not container_id:
        return [made]
    started = client.ask("POST", f"/containers/{container_id}/start")
    logs = client.ask("GET", f"/containers/{container_id}/logs?stdout=1&stderr=1", patience=2)
    return [made, started, logs]
