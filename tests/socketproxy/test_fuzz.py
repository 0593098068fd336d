"""Requests that were found at random, and some more: none gets out, and none breaks what should refuse it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from dom0.testing.escape import fuzz

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def test_the_corpus() -> None:
    ends = {fuzz.tried(path.read_bytes()) for path in CORPUS}
    assert len(ends) > 100


def test_what_is_made_of_it() -> None:
    seed = Random().getrandbits(64)  # noqa: S311 -- no secret
    count, _ = fuzz.run(Random(seed), [path.read_bytes() for path in CORPUS], lambda count: count < 10_000)  # noqa: S311
    assert count == 10_000
