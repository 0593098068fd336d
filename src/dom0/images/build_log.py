"""Reads a builder's output line by line: which step runs or was slow, and of a failed step all that it printed. For
BuildKit's plain progress, and for the legacy builder, which docker uses without buildx.

Cached steps are not reported. BuildKit prints CACHED after the step's name, so a step is reported once it prints
something or has run for A_WHILE.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterator

LONGEST = 10_000  # lines that are kept of one step
A_WHILE = 3.0  # seconds
_WIDEST = 100  # characters of a step's name

_LINE = re.compile(r"#(\d+) (.*)")  # of step N: `#8 [web 2/3] RUN make`, `#8 0.433 cc a.c`, `#8 DONE 0.5s`
_FRAME = re.compile(r"building with |(\[.*\binternal\]|\[(\S+ )?context \S+\]|(\[\S+\] )?exporting to) ?")
_DONE = re.compile(r"DONE (\d+\.\d+)s")
_OLD_STEP = re.compile(r"Step (\d+/\d+) : (.*)")
_OLD_RUNS = " ---> Running in "
_FENCE = "------"  # around an extract of what the failed step printed


class BuildLog:
    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of steps, by number
        self._waiting: dict[str, float] = {}  # number -> start, of steps that are not reported yet
        self._printed: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LONGEST))
        self._failed: list[str] = []
        self._old_step = ""
        self._rest: deque[str] = deque(maxlen=LONGEST)  # since the last line of a numbered step

    def read(self, line: str, now: float) -> list[str]:
        """What to report after this line, which may be empty, at the time `now` in seconds."""
        told: list[str] = []
        if (match := _LINE.fullmatch(line)) is not None:
            self._rest.clear()
            told += self._read_step(match[1], match[2], now)
        elif line:
            if (old_step := _OLD_STEP.fullmatch(line)) is not None:
                self._rest.clear()
                self._old_step = f"[{old_step[1]}] {old_step[2]}"
            elif line.startswith(_OLD_RUNS):
                told.append(_short(self._old_step))
            self._rest.append(line)
        late = [number for number, began in self._waiting.items() if now - began >= A_WHILE]
        return told + [text for number in late for text in self._tell(number)]

    def _read_step(self, number: str, text: str, now: float) -> Iterator[str]:
        if number not in self._names:
            self._names[number] = text
            if not _FRAME.match(text):
                self._waiting[number] = now
        elif text == "CACHED":
            self._waiting.pop(number, None)
        elif text.startswith("ERROR: "):
            self._failed.append(number)
        elif (done := _DONE.fullmatch(text)) is not None:
            self._waiting.pop(number, None)
            if float(done[1]) >= A_WHILE and not _FRAME.match(self._names[number]):
                yield f"{_short(self._names[number])}: {text}"
        elif text not in (self._names[number], "..."):  # BuildKit's marks where it goes on with a step
            self._printed[number].append(text)
            yield from self._tell(number)

    def _tell(self, number: str) -> Iterator[str]:
        if self._waiting.pop(number, None) is not None:
            yield _short(self._names[number])

    def failure(self) -> str:
        """The failed steps with all that they printed, and the builder's last lines."""
        lines = [line for number in self._failed for line in (f" > {self._names[number]}", *self._printed[number])]
        fenced = False
        for line in self._rest:
            if line == _FENCE:
                fenced = not fenced
            elif not (fenced and self._failed):
                lines.append(line)
        return "\n".join(lines).strip("\n")


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 1]}…"
