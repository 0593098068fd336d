"""Shows the progress of a generation until its outcome. Shared by the commands that change the machine."""

from __future__ import annotations

from collections.abc import Iterator

from dom0.agent.status import Outcome, Progress
from dom0.cli.client import Agent
from dom0.cli.report import Report, ending_pulls, interruptible, watching
from dom0.errors import Dom0Error, EngineError, EngineUnreachable, InUse, ProjectError, RolledBack
from dom0.printable import printable

REFUSALS: dict[str, type[Dom0Error]] = {
    "project-invalid": ProjectError,
    "project-in-use": InUse,
    "engine-refused": EngineError,
    "engine-unreachable": EngineUnreachable,
    "state-unwritable": Dom0Error,
}
"""Codes of the problem `dom0` that say that nothing was begun, and what they are raised as."""


def follow(lines: Iterator[Progress], report: Report, *, wait: bool = True) -> Progress:
    """Print each line and return the last one; without `wait`, the one that says that all is ready.

    Raises RolledBack, Interrupted, or Dom0Error if no outcome came.
    """
    with watching("the change of this machine"), ending_pulls(report, _end_pulls), interruptible():
        for progress in lines:
            report.tell(progress)
            if progress.outcome is not None:
                return _judge(progress, progress.outcome)
            if progress.watched_until and not wait:
                return progress
    raise Dom0Error("dom0: ended before the generation had an outcome", hint="see why: dom0 status")


def _end_pulls() -> bool:
    """False: the agent has begun what it pulled for, or does not answer."""
    try:
        return bool(Agent().status().pulls and Agent().abort())
    except Dom0Error:
        return False


def _judge(progress: Progress, outcome: Outcome) -> Progress:
    if outcome in (Outcome.GOOD, Outcome.TRIAL):
        return progress
    for problem in progress.problems:
        if problem.subject == "dom0" and problem.code in REFUSALS:
            raise REFUSALS[problem.code](problem.title, hint=problem.hint)
    why = next((problem.title for problem in progress.problems if problem.code == "generation-failed"), "")
    others = [problem for problem in progress.problems if problem.code != "generation-failed"]
    detail = "".join(f"\n{line}" for problem in others for line in map(printable, problem.lines(said=why)))
    message = f"generation {progress.generation}: {outcome}{f': {why}' if why else ''}{detail}"
    if not outcome.is_failure:
        raise Dom0Error(message, hint="what runs now: dom0 status")
    hint = "what its services printed last: above, and dom0 history --json; what runs now: dom0 status"
    raise RolledBack(message, hint=hint if outcome is Outcome.FAILED else "what runs now: dom0 status")
