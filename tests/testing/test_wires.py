"""Network namespaces for tests end with whoever made them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dom0.testing import wires as kit

MAKER = """
import sys
from dom0.testing.wires import Wires
with Wires() as wires:
    for node in (wires.ambassador, wires.consumer, *wires.providers):
        print(node.namespace, flush=True)
    print(flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(bool(kit.missing()), reason=kit.missing())
def test_nothing_survives_a_killed_maker() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        holders = [Path(line.strip()).parents[1] for line in iter(maker.stdout.readline, "\n")]
        assert len(holders) == 4
        assert all(holder.exists() for holder in holders)
        maker.kill()
    for holder in holders:
        kit.eventually(lambda: not holder.exists())  # noqa: B023 -- called at once


@pytest.mark.skipif(bool(kit.missing()), reason=kit.missing())
def test_everybody_on_the_bridge_reaches_everybody() -> None:
    with kit.Wires() as wires:
        for family in (4, 6):
            for asking in (wires.consumer, wires.ambassador, wires.providers[1]):
                assert asking.connect(wires.providers[0].address(family), 6379).ask() == "provider1:?"
                assert asking.send_to(wires.providers[0].address(family), 6379).ask() == "provider1:?"
