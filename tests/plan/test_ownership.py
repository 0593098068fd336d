"""Marks that only this machine's key makes, and labels that came from an image."""

from __future__ import annotations

import secrets

import pytest
from msgspec.structs import replace

from dom0.plan.labels import CREATE, HASH, PROJECT, ROLE, SERVICE
from dom0.plan.ownership import Seal, is_inherited, is_ours, new_mark

SEAL = replace(Seal(key=secrets.token_hex(32)), older=frozenset({"old"}))
LABELS = {PROJECT: "box", ROLE: "service", SERVICE: "web", HASH: "h1"}


def test_a_mark_is_genuine_for_its_own_key_only() -> None:
    assert is_ours(SEAL, "new", {CREATE: new_mark(SEAL)})
    assert not is_ours(SEAL, "new", {CREATE: new_mark(Seal(key=secrets.token_hex(32)))})


def test_no_two_marks_are_the_same() -> None:
    assert new_mark(SEAL) != new_mark(SEAL)


@pytest.mark.parametrize("text", ["", "x", "0" * 32, "0" * 64, "é" * 64, "0" * 10_000])
def test_what_somebody_types_is_no_mark(text: str) -> None:
    assert not is_ours(SEAL, "new", {CREATE: text})


def test_without_a_key_nothing_is_genuine() -> None:
    keyless = Seal(older=frozenset())
    assert not is_ours(keyless, "new", {CREATE: new_mark(keyless)})


def test_ours_is_what_is_marked_or_was_here_before_there_were_marks() -> None:
    assert is_ours(SEAL, "new", LABELS | {CREATE: new_mark(SEAL)})
    assert is_ours(SEAL, "old", LABELS)
    assert not is_ours(SEAL, "new", LABELS)
    assert not is_ours(SEAL, "new", LABELS | {CREATE: "typed"})


def test_until_somebody_has_looked_the_labels_decide() -> None:
    assert is_ours(Seal(), "any", LABELS)
    assert is_ours(Seal(key=secrets.token_hex(32)), "any", LABELS | {CREATE: new_mark(SEAL)})


def test_a_committed_container_hands_its_mark_down() -> None:
    marked = LABELS | {CREATE: new_mark(SEAL)}
    assert is_inherited(marked, marked)
    assert not is_inherited(LABELS | {CREATE: new_mark(SEAL)}, marked)  # a service whose image is such a one


def test_without_a_mark_inherited_is_what_the_container_is_for() -> None:
    assert is_inherited(LABELS, LABELS | {"more": "1"})
    assert not is_inherited(LABELS, {})
    assert not is_inherited(LABELS, LABELS | {ROLE: "root", SERVICE: ""})  # a service of the machine's own image
