"""Machines of the base OS, as far as their disks go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dom0.testing import disk_machine, owned
from dom0.testing.disk_machine import DiskMachine
from dom0.testing.possible import require


@pytest.fixture(scope="session")
def disks_possible() -> None:
    """Where this machine has no loop devices for us, skip and say why; in CI that is a failure."""
    require(disk_machine.missing(), "tests of disks")
    owned.sweep()


@pytest.fixture
def machine(disks_possible: None) -> Iterator[DiskMachine]:
    """A machine that nothing is plugged in yet."""
    with DiskMachine() as machine:
        yield machine
