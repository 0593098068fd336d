"""How many objects a scope may have at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.socketproxy.room import Room
from dom0.testing import busybox, scopes
from dom0.testing.escape.raw import Answer, Client
from dom0.testing.hosts import Host

GRANTS = "{images: {use: [busybox]}, containers: 3, volumes: 3}"


def container(client: Client, name: str) -> Answer:
    body: dict[str, Any] = {"Image": busybox.IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    return client.ask("POST", f"/containers/create?name={name}", body, patience=60)


def volume(client: Client, name: str) -> Answer:
    return client.ask("POST", "/volumes/create", {"Name": name}, patience=60)


def test_as_much_is_taken_as_was_found() -> None:
    room = Room()
    assert not room.take("volume", 1)
    room.found("volume", 2)
    assert room.take("volume", 2)
    assert not room.take("volume", 1)
    assert room.take("container", 0)


def test_while_another_server_makes_some_nothing_is_remembered() -> None:
    is_alone = True
    room = Room(lambda: is_alone)
    assert not room.take("volume", 1)
    room.found("volume", 2)
    is_alone = False
    assert not room.take("volume", 1)
    is_alone = True  # what was counted before that may have been made by the other one
    room.found("volume", 2)
    assert not room.take("volume", 1)
    room.found("volume", 1)
    assert room.take("volume", 1)


@pytest.mark.engine
@pytest.mark.parametrize(("kind", "make"), [("containers", container), ("volumes", volume)])
def test_what_goes_makes_room(
    engine_host: Host, tmp_path: Path, kind: str, make: Callable[[Client, str], Answer]
) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        client = Client(path)
        for _ in range(3):
            assert [make(client, f"one{number}").status for number in range(3)] == [201] * 3
            refused = make(client, "one3")
            assert refused.status == 403
            assert refused.document["message"].endswith(f"it would take the grant {kind}: 4")
            for number in range(3):
                assert client.ask("DELETE", f"/{kind}/one{number}", patience=60).status == 204


@pytest.mark.engine
def test_a_name_that_is_taken_takes_no_room(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        client = Client(path)
        assert [container(client, name).status for name in ("one", "one", "one", "two", "one", "three", "four")] == [
            *(201, 409, 409, 201, 409, 201),
            403,
        ]
        assert [volume(client, name).status for name in ("one", "one", "one", "two", "one", "three", "one")] == [
            201
        ] * 7
