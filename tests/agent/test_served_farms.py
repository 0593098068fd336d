"""Farms whose servers run here are believed for as long as these say a word now and then."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dom0.agent.served_farms import FORGET, MOST, ServedFarm, ServedFarms
from dom0.errors import Busy

ATTIC = ServedFarm(farm="attic", directory="/srv/attic", revision=1, os="", paused=(), remarks=(), nodes=())


def test_what_was_said_last_is_told_with_when_that_was_and_forgotten_after_a_while() -> None:
    now = 1000.0
    farms = ServedFarms(lambda: now)
    assert farms.hear(replace(ATTIC, heard=1e12))
    assert not farms.hear(replace(ATTIC, revision=2))
    farms.hear(replace(ATTIC, farm="barn"))
    assert farms.list() == [replace(ATTIC, revision=2, heard=now), replace(ATTIC, farm="barn", heard=now)]
    now += FORGET / 2
    farms.hear(ATTIC)
    now += FORGET / 2
    assert farms.list() == [replace(ATTIC, heard=1000.0 + FORGET / 2)]
    now = 500.0  # a clock that was set back
    assert farms.list() == []


def test_there_are_few_of_them() -> None:
    farms = ServedFarms(lambda: 1000.0)
    for number in range(MOST):
        farms.hear(replace(ATTIC, directory=f"/srv/{number}"))
    with pytest.raises(Busy):
        farms.hear(ATTIC)
    farms.hear(replace(ATTIC, directory="/srv/0", revision=9))
    assert len(farms.list()) == MOST
