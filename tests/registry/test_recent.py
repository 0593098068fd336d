"""So much is remembered, and what was used last stays."""

from __future__ import annotations

from dom0.registry.recent import remember


def test_what_was_longest_not_remembered_anew_goes() -> None:
    known: dict[str, int] = {}
    for number, digest in enumerate("abac"):
        remember(known, digest, number, 2)
    assert known == {"a": 2, "c": 3}
