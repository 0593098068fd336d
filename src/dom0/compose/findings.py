"""What is wrong with a project, at which key, and where that key stands in the project's files. No I/O.

compose.yaml:12: services.web.prots: no such key
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import msgspec

from dom0.errors import ProjectError
from dom0.wording import excerpt

KeyPath = tuple[str, ...]
"""From the top of the project; an entry of a list is named by its index."""

OVERRIDE = "!override"  # has a line below a list that takes the place of those below it
_DEEPEST = 32  # services that extend each other
_ONE_VALUE = ("command", "entrypoint", "test")  # lists that an upper file replaces
_INDEX = re.compile(r"[0-9]{1,6}", re.ASCII)  # no list is longer: source.MAX_NODES
_MOST = 20  # findings in one message


class Finding(msgspec.Struct, frozen=True):
    """`path` is the key's, () for the whole file; `file` and `line` where they are known beforehand."""

    path: KeyPath
    what: str
    hint: str = ""
    file: str = ""
    line: int = 0


class Locations(msgspec.Struct, frozen=True):
    """Lines of the keys of each file, lowest layer first: file name -> dotted path -> line, counted from 1."""

    files: Mapping[str, Mapping[str, int]]
    extends: Mapping[str, Mapping[str, tuple[str, str]]] = {}  # file -> service -> file and service that it extends

    def find(self, path: KeyPath, *, merged: bool = True) -> tuple[str, int]:
        """The file and line of the key, or of the nearest one around it; the upper layer where both have it.

        `merged`: entries of a list are counted through all files that add to it. The line is 0 where no file has even
        the first key of `path`.
        """
        if merged and (found := self._find_entry(path)):
            return found
        for end in range(len(path), 0, -1):
            for name in reversed(list(self.files)):
                if found := self._find_exactly(name, path[:end]):
                    return found
        return (next(iter(self.files), ""), 0) if len(self.files) == 1 else ("", 0)

    def _find_exactly(self, file: str, path: KeyPath) -> tuple[str, int] | None:
        """There, or in the service that the one there extends."""
        seen: set[tuple[str, str]] = set()
        while not (line := self.files.get(file, {}).get(".".join(path), 0)):
            base = self.extends.get(file, {}).get(path[1]) if path[0] == "services" and len(path) > 2 else None
            if base is None or base in seen:
                return None
            seen.add(base)
            file, path = base[0], ("services", base[1], *path[2:])
        return file, line

    def _find_entry(self, path: KeyPath) -> tuple[str, int] | None:
        """Of a list to which more than one file or service adds: Compose appends the upper one's entries."""
        at = next((place for place, part in enumerate(path) if _INDEX.fullmatch(part)), 0)
        if at < 2 or path[at - 1] in _ONE_VALUE:
            return None
        extends = self.extends if path[0] == "services" else {}
        lists: dict[tuple[str, str], int] = {}  # file and key -> how many entries
        for file in self.files:
            chain = [(file, path[:at])]
            while (base := extends.get(chain[-1][0], {}).get(chain[-1][1][1])) and len(chain) < _DEEPEST:
                chain.append((base[0], ("services", base[1], *path[2:at])))
            for name, key in reversed(chain):
                lines, dotted = self.files.get(name, {}), ".".join(key)
                if f"{dotted}.{OVERRIDE}" in lines:
                    lists.clear()
                if f"{dotted}.0" in lines:
                    lists[name, dotted] = _length(lines, dotted)
        left = int(path[at])
        for (file, dotted), count in lists.items() if len(lists) > 1 else ():
            if left < count:
                names = [".".join([dotted, str(left), *path[at + 1 : end]]) for end in range(len(path), at, -1)]
                return file, next(self.files[file][name] for name in names if name in self.files[file])
            left -= count
        return None

    def has(self, path: KeyPath) -> bool:
        """Whether a file has just this key."""
        return any(self._find_exactly(name, path) for name in self.files)

    def name(self, finding: Finding) -> str:
        file, line = (finding.file, finding.line) if finding.file else self.find(finding.path)
        parts = (f"{file}:{line}" if file and line else file, ".".join(finding.path))
        return ": ".join(excerpt(part) for part in parts if part)


UNKNOWN = Locations({})


def _length(lines: Mapping[str, int], dotted: str) -> int:
    """How many entries the list has, of which each one has a line."""
    return bisect_left(range(10**6), 1, key=lambda number: f"{dotted}.{number}" not in lines)


def refuse(findings: Sequence[Finding], locations: Locations) -> ProjectError:
    """One error with all of them, in the order in which they stand in the files."""
    assert findings
    names = list(locations.files)

    def order(finding: Finding) -> tuple[int, int]:
        file, line = locations.find(finding.path)
        return (names.index(file) if file in names else -1), line

    findings = sorted(findings, key=order)
    lines = [f"{locations.name(finding)}: {excerpt(finding.what)}".removeprefix(": ") for finding in findings]
    shown = list(dict.fromkeys(lines))
    if len(shown) > _MOST:
        shown[_MOST:] = [f"and {len(shown) - _MOST} more"]
    hints = dict.fromkeys(excerpt(finding.hint) for finding in findings[:_MOST] if finding.hint)
    return ProjectError("\n".join(shown), hint="\n".join(hints))
