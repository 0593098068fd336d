"""Shows the progress of a generation until its outcome. Shared by the commands that change the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

from dom0.agent.status import Outcome, Progress
from dom0.cli import options, terminal
from dom0.cli.status import problem_lines
from dom0.errors import Dom0Error, EngineError, EngineUnreachable, InUse, ProjectError, RolledBack

REFUSALS: dict[str, type[Dom0Error]] = {
    "project-invalid": ProjectError,
    "project-in-use": InUse,
    "engine-refused": EngineError,
    "engine-unreachable": EngineUnreachable,
    "state-unwritable": Dom0Error,
}
"""Codes of the problem `dom0` that say that nothing was begun, and what they are raised as."""


def follow(lines: Iterator[Progress], *, as_json: bool) -> Progress:
    """Print each line and return the last one. Raises RolledBack, or Dom0Error if no outcome came."""
    begun = time.monotonic()
    for progress in lines:
        if as_json:
            terminal.say_json_line(progress)
        elif progress.text and not options.quiet():
            terminal.say(f"{time.monotonic() - begun:6.1f}s  {_line(progress)}")
        if progress.outcome is not None:
            return _judge(progress, progress.outcome)
    raise Dom0Error("dom0: ended before the generation had an outcome", hint="see why: dom0 status; docker logs dom0")


def _line(progress: Progress) -> str:
    return f"{progress.service}: {progress.text}" if progress.service else progress.text


def _judge(progress: Progress, outcome: Outcome) -> Progress:
    if outcome in (Outcome.GOOD, Outcome.TRIAL):
        return progress
    for problem in progress.problems:
        if problem.subject == "dom0" and problem.code in REFUSALS:
            raise REFUSALS[problem.code](problem.title, hint=problem.hint)
    problems = "\n".join(line for problem in progress.problems for line in problem_lines(problem))
    detail = f"\n{problems}" if problems else ""
    if outcome is Outcome.FAILED:
        raise RolledBack(
            f"generation {progress.generation}: did not become healthy{detail}",
            hint="what its services said last is above, and in: dom0 history --json; what runs now: dom0 status",
        )
    raise Dom0Error(f"generation {progress.generation}: is {outcome}{detail}", hint="what runs now: dom0 status")
