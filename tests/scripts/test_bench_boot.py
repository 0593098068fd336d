"""`python -m bench.boot PART`: what has to be measured before."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.boot import Boot, FirstBoot, Measured, due
from bench.boot_machines import System

SYSTEM = System("dom0", Path("linux"), Path("initrd"), "", Path("disk"))
PREPARED = Measured("6.12", {}, (SYSTEM, SYSTEM), (SYSTEM, SYSTEM))
BOOT = Boot(1.0, 2.0, 3.0, None)


def measured(*, boots: int = 0, media: int = 0, floor: int = 0) -> Measured:
    return replace(
        PREPARED,
        first={"dom0": BOOT},
        boots={"dom0": boots * [BOOT]},
        media={"dom0": media * [FirstBoot(1.0, {})]},
        floors={"dom0": floor} if floor else {},
    )


@pytest.mark.parametrize(
    ("part", "so_far", "before"),
    [
        ("prepare", None, []),
        ("first", None, ["prepare"]),
        ("media", None, ["prepare"]),
        ("report", None, ["prepare"]),
        ("first", PREPARED, []),
        ("media", PREPARED, []),
        ("boots", PREPARED, ["first"]),
        ("floor", PREPARED, ["first"]),
        ("report", PREPARED, ["first"]),
        ("first", measured(), ["prepare"]),
        ("boots", measured(), []),
        ("report", measured(), [*3 * ["boots"], *3 * ["media"], "floor"]),
        ("report", measured(boots=2, media=3, floor=320), ["boots"]),
        ("report", measured(boots=3, media=3, floor=320), []),
    ],
)
def test_a_part_names_those_that_have_to_come_before(part: str, so_far: Measured | None, before: list[str]) -> None:
    assert due(part, so_far) == before
