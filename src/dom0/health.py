"""Problems of the running system, as values: CLI, API and log show the same list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec


class Severity(StrEnum):
    WARNING = "warning"  # works, but needs a look
    ERROR = "error"  # something that was asked for does not run


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is stable and documented (docs/reference/problems.md); `subject` names the service, network, image…

    `hint` is the command or edit that mends it; `since` is seconds since the epoch.
    """

    code: str
    subject: str
    title: str
    severity: Severity = Severity.ERROR
    hint: str = ""
    since: float = 0.0

    def lines(self, *, said: str = "") -> Iterator[str]:
        """For people. `said` stands above already, and is not repeated."""
        what = self.subject if self.title == said else f"{self.subject}: {self.title}"
        yield f"  {self.severity} {what}  [{self.code}]"
        if self.hint:
            yield f"      {self.hint}"


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """A paragraph for people; nothing where there is no problem."""
    if problems:
        yield ""
        yield "Problems:"
    for problem in problems:
        yield from problem.lines()
