"""Documents of the Engine as a scope sees them."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.socketproxy import shown
from dom0.socketproxy.scope import LABEL, Scope

GUEST = Scope("guest")


def event(kind: str, actor: dict[str, Any]) -> dict[str, Any] | None:
    return shown.event(GUEST, {"Type": kind, "Action": "x", "Actor": actor})


def test_an_event_of_a_container_has_the_scopes_names_and_labels() -> None:
    attributes = {"name": "guest.new", "oldName": "/guest.old", "image": "a", LABEL: "/guest/team", "guest/a": "b"}
    attributes["guest/name"] = "a label of that name"
    seen = event("container", {"ID": "1", "Attributes": attributes})
    assert seen is not None
    told = {"name": "new", "oldName": "/old", "image": "a", LABEL: "/team", "a": "b"}
    assert seen["Actor"] == {"ID": "1", "Attributes": told}


@pytest.mark.parametrize(
    ("kind", "actor"),
    [
        ("container", {"ID": "1", "Attributes": {"name": "guest.web"}}),
        ("container", {"ID": "1", "Attributes": {"name": "web", LABEL: "/guest"}}),
        ("network", {"ID": "1", "Attributes": {"name": "private"}}),
        ("volume", {"ID": "treasure", "Attributes": {}}),
        ("image", {"ID": "a", "Attributes": {"name": "a"}}),
        ("daemon", {"ID": "d", "Attributes": {"name": "host"}}),
        ("of tomorrow", {"ID": "guest.x", "Attributes": {"name": "guest.x", LABEL: "/guest"}}),
    ],
)
def test_events_of_others_are_not_seen(kind: str, actor: dict[str, Any]) -> None:
    assert event(kind, actor) is None


def test_a_network_shows_the_scopes_members_only() -> None:
    members = {"1": {"Name": "guest.web"}, "2": {"Name": "other"}}
    labels = {LABEL: "/guest", "guest/a": "b"}
    seen = shown.network(GUEST, {"Name": "guest.front", "Labels": labels, "Containers": members})
    assert seen == {"Name": "front", "Labels": {"a": "b"}, "Containers": {"1": {"Name": "web"}}}
