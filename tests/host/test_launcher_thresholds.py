"""What the launcher, which is no Python, has in common with the agent: docs/launcher.md, the program, our constants."""

from __future__ import annotations

import pydoc
import re

import pytest

from dom0.agent import handover
from dom0.agent.succession import ASIDE, NAMES
from dom0.names import HANDOVER
from dom0.testing.launcher import DOCUMENT, PROGRAM

ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| [^|]+ \| ([^|]*)\|$", re.MULTILINE)
TABLE = {name: (int(value), places) for name, value, places in ROW.findall(DOCUMENT.read_text())}
PLACES = [(name, place) for name, (_, places) in TABLE.items() for place in re.findall(r"`([\w.]+)`", places)]


def thresholds() -> dict[str, int]:
    """As they are set at the beginning of the program: NAME=VALUE, or NAME=${VARIABLE:-VALUE}."""
    head, _, _ = PROGRAM.read_text().partition("\nmain() {")
    _, _, settings = head.partition("# Seconds, and how often")
    found = re.findall(r"^(\w+)=(?:\$\{\w+:-)?(\d+)\b", settings, re.MULTILINE)
    return {name: int(value) for name, value in found if name != "killed"}


def test_the_table_has_every_threshold_of_the_program() -> None:
    assert {name: value for name, (value, _) in TABLE.items()} == thresholds()


def test_the_agents_thresholds_are_in_it() -> None:
    assert {place for _, place in PLACES} == {
        *("agent.handover.PATIENCE", "agent.handover.RESTARTS", "agent.handover.STOP_GRACE", "cli.down.STOP_GRACE"),
        *("plan.memory.CRASH_BUDGET", "plan.memory.CRASH_BUDGET_NEW", "plan.memory.CRASH_WINDOW"),
    }


@pytest.mark.parametrize(("name", "place"), PLACES, ids=lambda one: one)
def test_a_threshold_is_the_same_in_the_launcher_and_in_the_agent(name: str, place: str) -> None:
    assert pydoc.locate(f"dom0.{place}") == thresholds()[name]


def test_the_launcher_leaves_a_hand_over_all_the_time_that_it_may_take() -> None:
    """The old dom0 ends, the new one does not answer and is stopped, and the old one is started again."""
    assert thresholds()["handover_within"] > handover.PATIENCE + 2 * handover.STOP_GRACE


def test_the_launcher_knows_all_names_of_root_containers() -> None:
    pattern = re.search(r"grep -Ex '([^']+)'", PROGRAM.read_text())
    assert pattern is not None
    names = (*NAMES, HANDOVER, f"{ASIDE}0123456789ab")
    assert all(re.fullmatch(pattern[1], name) for name in names)
    assert pattern[1].count("|") == len(names) - 1
