"""What the agent leaves for the next one besides generations: its memory, and a trial that was announced."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec.structs import replace

from dom0.agent.store import Damaged, Unreadable, read_json, write_json
from dom0.durable import writing
from dom0.names import MEMORY_FILE
from dom0.plan.memory import Memory

ANNOUNCED_FOR = 3600.0  # seconds: a trial whose generation did not come by then is not meant for a later one


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The next generation from `dom0_image` goes back `seconds` after it was found good, unless it is confirmed."""

    dom0_image: str
    seconds: float
    announced: float = 0.0  # when, seconds since the epoch


class StateFiles:
    def __init__(self, state: Path) -> None:
        self._memory = state / MEMORY_FILE
        self._trial = state / "trial.json"

    def read_memory(self) -> Memory:
        """Empty where there is none. Raises Damaged."""
        return read_json(self._memory, Memory) or Memory()

    def load_memory(self) -> tuple[Memory, Damaged | None]:
        """One that is damaged, or cannot be read just now, is set aside, as a machine that runs is worth more."""
        try:
            return self.read_memory(), None
        except Damaged as error:
            aside = "unread" if isinstance(error, Unreadable) else "damaged"
            with contextlib.suppress(OSError):
                self._memory.replace(f"{self._memory}.{aside}")
            return Memory(), error

    def save_memory(self, memory: Memory) -> None:
        """Raises Unwritable. After a power cut there may be an older one, never half of one."""
        write_json(self._memory, memory, durable=False)

    def announce(self, trial: Trial, now: float) -> None:
        """Raises Unwritable."""
        write_json(self._trial, replace(trial, announced=now))

    def trial_of(self, dom0_image: str, now: float) -> float:
        """Seconds for which the next generation from `dom0_image` is on trial, 0 if it is not. Raises Damaged."""
        trial = read_json(self._trial, Trial)
        if trial is None or trial.dom0_image != dom0_image or now - trial.announced > ANNOUNCED_FOR:
            return 0.0
        return trial.seconds

    def forget_trial(self) -> None:
        """Raises Unwritable."""
        with writing(self._trial):
            self._trial.unlink(missing_ok=True)
