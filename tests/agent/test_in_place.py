"""Where projects live that were taken over is known of all of them."""

from __future__ import annotations

from pathlib import Path

from dom0.agent.in_place import find_places, keep_in_place


def test_a_second_adoption_forgets_no_earlier_one(tmp_path: Path) -> None:
    assert find_places(tmp_path) == {}
    keep_in_place(tmp_path, "box", "/srv/box")
    keep_in_place(tmp_path, "shop", "/srv/shop")
    keep_in_place(tmp_path, "box", "/srv/moved")
    assert find_places(tmp_path) == {"box": Path("/srv/moved"), "shop": Path("/srv/shop")}
