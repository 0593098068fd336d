"""The page of the documentation that lists the commands."""

from __future__ import annotations

from pathlib import Path

from dom0.testing import reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_the_reference_is_what_the_commands_say_of_themselves() -> None:
    assert PAGE.read_text() == reference.page(), "python -m dom0.testing.reference > docs/reference/commands.md"
