"""Where an agent finds what images leave out, and what of it is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.agent import private_files
from dom0.agent.generations import Generation, Generations
from dom0.agent.status import Outcome
from dom0.images import private
from dom0.testing.builders import desired, image_id

NEW, OLD = image_id("new"), image_id("old")
PROJECT = desired().project


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Two generations: a good one of OLD, and a failed one of NEW before it."""
    generations = Generations(tmp_path)
    files = tmp_path / "files"
    files.mkdir()
    for dom0_image, outcome in ((NEW, Outcome.FAILED), (OLD, Outcome.GOOD)):
        asked = Generation(number=0, created=100.0, cause="", dom0_image=dom0_image, desired=desired(), outcome=outcome)
        generations.make_current(generations.add(asked, files).number)
    return tmp_path


def bring(state: Path, image: str, *, whole: bool = True) -> Path:
    path = private.brought_for(state, image)
    path.mkdir(parents=True)
    if whole:
        (path / private.COMPLETE).touch()
    return path


def test_what_was_brought_for_an_image_comes_first_then_its_generation_then_what_the_machine_has(state: Path) -> None:
    brought, by_hand = bring(state, NEW), state / "private" / PROJECT
    generations = Generations(state)
    found = private_files.find_roots(state, NEW, PROJECT)
    assert list(dict.fromkeys(found)) == [brought, generations.files(1), by_hand, generations.files(2)]


def test_what_was_cut_off_while_it_was_brought_does_not_count(state: Path) -> None:
    assert bring(state, NEW, whole=False) not in private_files.find_roots(state, NEW, PROJECT)


def test_what_another_project_has_is_not_taken(state: Path) -> None:
    assert private_files.find_roots(state, image_id("third"), "other") == [state / "private" / "other"]


def test_what_was_brought_before_for_other_images_is_forgotten(state: Path) -> None:
    by_hand = state / "private" / PROJECT
    by_hand.mkdir(parents=True)
    used, unused = bring(state, OLD), bring(state, NEW)
    current, _ = Generations(state).current()
    assert current is not None
    private_files.forget(state, current)  # it is older: somebody may be about to take what is there
    assert unused.exists()
    later = Generation(number=3, created=9e9, cause="", dom0_image=OLD, desired=desired())
    private_files.forget(state, later)
    assert sorted((state / "private").iterdir()) == sorted([used, by_hand])
