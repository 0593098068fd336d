"""Generations on disk: what the machine was asked to be, numbered, and how each one turned out.

`<state>/generations/N/generation.json` and `…/N/project/` (the project's files as they were). `current` holds a number.
A generation is written whole before it becomes current; the last good one and the current one are never deleted.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.status import GenerationInfo, Outcome
from dom0.agent.store import read_json, write_atomic, write_json
from dom0.errors import UsageError
from dom0.plan.desired import Desired

KEEP = 10  # generations besides the current and the last good one


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    created: float  # seconds since the epoch
    cause: str
    dom0_image: str  # ID of the image whose project it is
    agent_image: str = ""  # ID of the image of the agent that made it current last
    desired: Desired
    outcome: Outcome = Outcome.PENDING
    reason: str = ""
    trial_until: float = 0.0  # goes back then unless confirmed; 0: no trial
    inputs: str = ""  # label dom0.inputs of the dom0 image

    @property
    def is_pending(self) -> bool:
        return self.outcome is Outcome.PENDING


class Generations:
    def __init__(self, state: Path) -> None:
        self._directory = state / "generations"
        self._current = state / "current"

    def numbers(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._directory.iterdir() if entry.name.isdigit())

    def read(self, number: int) -> Generation:
        """Raises UsageError when there is no such generation, Dom0Error when its file is damaged."""
        found = read_json(self._path(number) / "generation.json", Generation)
        if found is None:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise UsageError(f"generation {number}: does not exist", hint=f"dom0 history lists them: {known}")
        return found

    def all(self) -> list[Generation]:
        """Newest first; half-written ones (killed before they were whole) are left out."""
        found = (read_json(self._path(number) / "generation.json", Generation) for number in reversed(self.numbers()))
        return [generation for generation in found if generation is not None]

    def current(self) -> Generation | None:
        number = read_json(self._current, int)
        return None if number is None else self.read(number)

    def last_good(self, *, before: int | None = None) -> Generation | None:
        """The newest one that was good (`before`: and is older than that)."""
        good = (g for g in self.all() if g.outcome is Outcome.GOOD and (before is None or g.number < before))
        return next(good, None)

    def add(self, generation: Generation, files: Path) -> Generation:
        """Write it with a copy of the project's `files`, under the next number."""
        numbered = replace(generation, number=max(self.numbers(), default=0) + 1)
        path = self._path(numbered.number)
        shutil.copytree(files, path / "project", symlinks=True)
        write_json(path / "generation.json", numbered)
        return numbered

    def update(self, generation: Generation) -> Generation:
        write_json(self._path(generation.number) / "generation.json", generation)
        return generation

    def make_current(self, number: int) -> None:
        write_atomic(self._current, str(number).encode())

    def files(self, number: int) -> Path:
        return self._path(number) / "project"

    def prune(self) -> None:
        """Forget the oldest ones beyond KEEP."""
        current, good = self.current(), self.last_good()
        spared = {generation.number for generation in (current, good) if generation is not None}
        for number in [n for n in self.numbers() if n not in spared][:-KEEP]:
            shutil.rmtree(self._path(number), ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self._directory / str(number)


def describe(generation: Generation, *, current: bool) -> GenerationInfo:
    return GenerationInfo(
        number=generation.number,
        created=generation.created,
        cause=generation.cause,
        dom0_image=generation.dom0_image,
        outcome=generation.outcome,
        reason=generation.reason,
        current=current,
        trial_until=generation.trial_until,
        services=len(generation.desired.slots),
    )
