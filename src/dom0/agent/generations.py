"""Generations on disk: what the machine was asked to be, numbered, and how each one turned out.

`<state>/generations/N/generation.json` and `…/N/project/` (the project's files as they were). `current` holds a number.
A generation is written whole before it becomes current; the last good one and the current one are never deleted.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.status import GenerationInfo, Outcome
from dom0.agent.store import Damaged, read_json, write_json
from dom0.durable import write_atomic, writing
from dom0.errors import Dom0Error, UsageError
from dom0.images import contents
from dom0.plan.desired import Desired

log = logging.getLogger(__name__)

KEEP = 10  # generations besides the current one and those it may go back to


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    created: float  # seconds since the epoch
    cause: str
    dom0_image: str  # ID of the image whose project it is
    agent_image: str = ""  # ID of the image of the agent that made it current last
    desired: Desired
    outcome: Outcome = Outcome.PENDING
    reason: str = ""
    back_at: float = 0.0  # when the machine last came back to it
    back_because: str = ""
    said: tuple[str, ...] = ()  # the last words of the services of one that failed, each with its service before it
    before: int = 0  # number of the good one that ran before it: where it goes back to
    trial: float = 0.0  # seconds it may stay unless it is confirmed; 0: no trial
    trial_until: float = 0.0  # when that ends; 0 until it was found good
    inputs: str = ""  # label dom0.inputs of the dom0 image
    foreign: bool = False  # what Docker Compose ran before it was taken over: never made again, only gone back to

    @property
    def is_pending(self) -> bool:
        return self.outcome is Outcome.PENDING

    @property
    def is_undecided(self) -> bool:
        """Whether the machine may still go back from it by itself."""
        return self.outcome in (Outcome.PENDING, Outcome.TRIAL)

    @property
    def is_good(self) -> bool:
        return self.outcome is Outcome.GOOD


class Generations:
    def __init__(self, state: Path) -> None:
        self._directory = state / "generations"
        self._current = state / "current"
        self._told: set[int] = set()  # damaged ones that the log knows of

    def numbers(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        names = (entry.name for entry in self._directory.iterdir())
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def read(self, number: int) -> Generation:
        """Raises UsageError when there is no such generation, Damaged when its file is."""
        found = read_json(self._file(number), Generation)
        if found is None:
            known = ", ".join(map(str, self.numbers())) or "none"
            raise UsageError(f"generation {number}: does not exist", hint=f"dom0 history lists them: {known}")
        return found

    def all(self) -> Iterator[Generation]:
        """Newest first; damaged and half-written ones (killed before they were whole) are left out."""
        for number in reversed(self.numbers()):
            try:
                found = read_json(self._file(number), Generation)
            except Damaged as error:
                if number not in self._told:
                    log.error("%s", error.message)  # noqa: TRY400 -- no bug: the trace says nothing
                self._told.add(number)
                continue
            if found is not None:
                yield found

    def current(self) -> tuple[Generation | None, Dom0Error | None]:
        """None before the first one. Where it cannot be read: the newest good one, else the newest, and why."""
        try:
            number = read_json(self._current, int)
            return (None if number is None else self.read(number)), None
        except Dom0Error as error:
            good = next((generation for generation in self.all() if generation.is_good), None)
            return good or next(self.all(), None), error

    def good_of(self, project: str) -> Iterator[Generation]:
        """Those that were good, newest first."""
        return (g for g in self.all() if g.is_good and not g.foreign and g.desired.project == project)

    def good_before(self, generation: Generation) -> Generation | None:
        """Where `generation` goes back to: what ran before it, else the newest other good one."""
        try:
            before = self.read(generation.before)
        except Dom0Error:
            before = None
        if before is not None and before.is_good:
            return before
        others = self.good_of(generation.desired.project)
        return next((good for good in others if good.number != generation.number), None)

    def add(self, generation: Generation, files: Path) -> Generation:
        """Write it with a copy of the project's `files`, under the next number. Raises Unwritable."""
        for number in self.numbers():  # what a kill left of one that never became whole
            left = self._directory / str(number)
            if not any(entry.name.startswith("generation.json") for entry in left.iterdir()):
                shutil.rmtree(left, ignore_errors=True)
        numbered = replace(generation, number=max(self.numbers(), default=0) + 1)
        path = self._directory / str(numbered.number)
        try:
            with writing(path):
                contents.clone([contents.top(files), *contents.entries(files)], path / "project", durable=True)
            write_json(path / "generation.json", numbered)
        except Dom0Error:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return numbered

    def update(self, generation: Generation) -> Generation:
        """Raises Unwritable."""
        write_json(self._file(generation.number), generation)
        return generation

    def leave_current(self) -> None:
        """From now on the machine is at none. Raises Unwritable."""
        with writing(self._current):
            self._current.unlink(missing_ok=True)

    def make_current(self, number: int) -> None:
        """Raises Unwritable."""
        write_atomic(self._current, str(number).encode())

    def files(self, number: int) -> Path:
        return self._directory / str(number) / "project"

    def prune(self, spared: Collection[int]) -> None:
        """Forget the oldest ones beyond KEEP. `spared` are those that the machine is at or may come back to."""
        for number in [n for n in self.numbers() if n not in spared][:-KEEP]:
            shutil.rmtree(self._directory / str(number), ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self._directory / str(number) / "generation.json"


def describe(
    generation: Generation, *, current: bool, watched_until: float = 0.0, goes_back_to: int = 0
) -> GenerationInfo:
    return GenerationInfo(
        number=generation.number,
        project=generation.desired.project,
        created=generation.created,
        cause=generation.cause,
        dom0_image=generation.dom0_image,
        outcome=generation.outcome,
        reason=generation.reason,
        back_at=generation.back_at,
        back_because=generation.back_because,
        said=generation.said,
        current=current,
        trial_until=generation.trial_until,
        watched_until=watched_until,
        goes_back_to=goes_back_to,
        services=len(generation.desired.slots),
    )
