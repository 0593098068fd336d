"""Where something stands in the project's files, and how a refusal of it reads. No I/O.

compose.yaml:12: services.web.prots: no such key
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dom0.errors import ProjectError
from dom0.wording import printable

Path = tuple[str, ...]

_MOST = 20  # refusals in one message


class Refusal(msgspec.Struct, frozen=True):
    """`path` is the key's place in the project, () for the whole file; `file` where it is known beforehand."""

    path: Path
    what: str
    hint: str = ""
    file: str = ""
    line: int = 0


class Places(msgspec.Struct, frozen=True):
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
