"""Machines of the base OS, as far as their disks go."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dom0.testing import disk_machine, owned
from dom0.testing.disk_machine import DiskMachine


@pytest.fixture(scope="session")
def disks_possible() -> None:
    """Where this machine has no loop devices for us, skip and say why; in CI that is a failure."""
    if reason := disk_machine.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests of disks, and cannot: {reason}")
        pytest.skip(f"no disks for tests: {reason}")
    owned.sweep()


@pytest.fixture
def machine(disks_possible: None) -> Iterator[DiskMachine]:
    """A machine that nothing is plugged in yet."""
    with DiskMachine() as machine:
        yield machine
