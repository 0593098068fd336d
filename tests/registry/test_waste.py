"""What came in vain is known for an hour, to every process, and forgotten then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from dom0.registry.waste import REMEMBERED, Waste

NAME, OTHER = "sha256:" + "0" * 64, "registry.example/../team app:1"
NOW = 1_000_000.0


def test_it_is_added_up_and_becomes_less_after_an_hour(tmp_path: Path) -> None:
    waste = Waste(tmp_path / "waste")
    assert waste.amount(NAME, NOW) == 0
    assert waste.left(NAME, NOW) == 0
    waste.add(NAME, 5, NOW)
    Waste(tmp_path / "waste").add(NAME, 7, NOW + 1000)
    assert waste.amount(NAME, NOW + 1000) == 12
    assert waste.left(NAME, NOW + 1000) == REMEMBERED - 1000
    assert waste.amount(NAME, NOW + REMEMBERED + 1) == 7
    assert waste.amount(NAME, NOW + REMEMBERED + 1001) == 0


def test_names_have_nothing_to_do_with_each_other_and_what_is_old_goes(tmp_path: Path) -> None:
    waste = Waste(tmp_path / "waste")
    waste.add(NAME, 5, NOW)
    assert waste.amount(OTHER, NOW) == 0
    waste.add(OTHER, 1, NOW + REMEMBERED + 1)
    assert list((tmp_path / "waste").iterdir()) == [waste.path(OTHER)]


def test_nothing_is_lost_where_several_add_at_the_same_moment(tmp_path: Path) -> None:
    names, start = [f"{number}" for number in range(3)], Barrier(3)

    def add(name: str) -> None:
        start.wait()
        waste.add(name, 5, NOW)

    with ThreadPoolExecutor(len(names)) as threads:
        for each in range(100):
            waste = Waste(tmp_path / f"{each}")
            list(threads.map(add, names))
            assert [waste.amount(name, NOW) for name in names] == [5, 5, 5]


def test_what_is_no_file_of_ours_and_a_clock_that_was_set_back_are_nothing(tmp_path: Path) -> None:
    waste = Waste(tmp_path / "waste")
    waste.add(NAME, 5, NOW)
    assert waste.amount(NAME, NOW - 10) == 0
    waste.path(OTHER).write_bytes(b"\xff 1 2\n")
    assert waste.amount(OTHER, NOW) == 0
    waste.path(OTHER).unlink()
    waste.path(OTHER).mkdir()
    assert waste.amount(OTHER, NOW) == 0
