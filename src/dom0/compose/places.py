"""Where something stands in the project's files, and how a refusal of it reads. No I/O.

compose.yaml:12: services.web.prots: no such key
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dom0.errors import ProjectError

Path = tuple[str, ...]

_LONGEST = 2000  # characters of one message
_MOST = 20  # refusals in one message


@dataclass(frozen=True, slots=True)
class Refusal:
    """`path` is the key's place in the project, () for the whole file; `file` where it is known beforehand."""

    path: Path
    what: str
    hint: str = ""
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Places:
    """Lines of the keys of each file, lowest layer first: file name -> dotted path -> line, counted from 1."""

    files: Mapping[str, Mapping[str, int]]

    def find(self, path: Path) -> tuple[str, int]:
        """The file and line of the key, or of the nearest one around it; the upper layer where both have it.

        The line is 0 where no file has even the beginning.
        """
        dotted = ".".join(path)
        while dotted:
            for name, lines in reversed(list(self.files.items())):
                if dotted in lines:
                    return name, lines[dotted]
            dotted = dotted.rpartition(".")[0]
        return (next(iter(self.files), ""), 0) if len(self.files) == 1 else ("", 0)

    def order(self, refusal: Refusal) -> tuple[int, int]:
        """As a person finds them when reading the files from the first to the last."""
        file, line = self.find(refusal.path)
        return (list(self.files).index(file) if file in self.files else -1), line

    def name(self, refusal: Refusal) -> str:
        file, line = (refusal.file, refusal.line) if refusal.file else self.find(refusal.path)
        parts = (f"{file}:{line}" if file and line else file, ".".join(refusal.path))
        return ": ".join(printable(part) for part in parts if part)


def refuse(refusals: Sequence[Refusal], places: Places) -> ProjectError:
    """Return the one error that tells them all."""
    assert refusals
    refusals = sorted(refusals, key=places.order)
    lines = [f"{places.name(refusal)}: {printable(refusal.what)}".removeprefix(": ") for refusal in refusals]
    shown = list(dict.fromkeys(lines))
    if len(shown) > _MOST:
        shown[_MOST:] = [f"and {len(shown) - _MOST} more"]
    hints = dict.fromkeys(printable(refusal.hint) for refusal in refusals[:_MOST] if refusal.hint)
    return ProjectError("\n".join(shown), hint="\n".join(hints))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a key that is not known; the whole choice where nothing is near and the choice is short."""
    choice = sorted(known)
    near = difflib.get_close_matches(word[:100], choice, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(choice)}" if 0 < len(choice) <= 12 else ""


def printable(text: str) -> str:
    """Text from outside, safe on a terminal: control and direction-changing characters spelled out, not endless."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
