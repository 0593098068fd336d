"""What a builder prints while it works, line by line: which step begins or took its time, and of a failure the step and
all that it printed. Of BuildKit in its plain form, and of the builder before it, which docker has without buildx.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque

LONGEST = 10_000  # lines that are kept of one step
_TOLD_FROM = 1.0  # seconds; of a step that took less only the beginning is told
_WIDEST = 100  # characters of a step's name

_LINE = re.compile(r"#(\d+) (.*)")  # of step N: `#8 [web 2/3] RUN make`, `#8 0.433 cc a.c`, `#8 DONE 0.5s`
_PREPARATION = re.compile(r"\[(\S+ )?(internal|context \S+)\] ")
_DONE = re.compile(r"DONE (\d+\.\d+)s")
_OLD_STEP = re.compile(r"Step (\d+/\d+) : (.*)")
_FENCE = "------"  # around an extract of what the failed step printed


class BuildLog:
    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by number
        self._printed: defaultdict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LONGEST))
        self._failed: list[str] = []
        self._rest: deque[str] = deque(maxlen=LONGEST)  # since the last line of a numbered step

    def read(self, line: str) -> str:
        """What to tell of this line, "" for most of them."""
        if (match := _LINE.fullmatch(line)) is not None:
            self._rest.clear()
            return self._read_step(match[1], match[2])
        if (match := _OLD_STEP.fullmatch(line)) is not None:
            self._rest.clear()
        self._rest.append(line)
        return _short(f"[{match[1]}] {match[2]}") if match else ""

    def _read_step(self, number: str, text: str) -> str:
        if number not in self._names:
            self._names[number] = text
            return "" if _is_preparation(number, text) else _short(text)
        name = self._names[number]
        if text.startswith("ERROR: "):
            self._failed.append(number)
        elif (done := _DONE.fullmatch(text)) is not None:
            is_told = float(done[1]) >= _TOLD_FROM and not _is_preparation(number, name)
            return f"{_short(name)}: {text}" if is_told else ""
        elif text not in (name, "..."):  # how it goes on after another step's lines
            self._printed[number].append(text)
        return ""

    def failure(self) -> str:
        """The failed steps with all that they printed, and what the builder says at its end."""
        lines = [line for number in self._failed for line in (f" > {self._names[number]}", *self._printed[number])]
        fenced = False
        for line in self._rest:
            if line == _FENCE:
                fenced = not fenced
            elif not (fenced and self._failed):
                lines.append(line)
        return "\n".join(lines).strip("\n")


def _is_preparation(number: str, name: str) -> bool:
    return number == "0" or _PREPARATION.match(name) is not None


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 1]}…"
