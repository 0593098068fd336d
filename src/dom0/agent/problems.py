"""What goes wrong with the machine as a whole, as problems of its status. Pure."""

from __future__ import annotations

from dom0.durable import Unwritable
from dom0.errors import Dom0Error, EngineError, EngineUnreachable, InUse, ProjectError
from dom0.health import Problem


def of_proposal(error: Dom0Error, since: float) -> Problem:
    """Why a project did not become a generation."""
    match error:
        case Unwritable():
            code = "state-unwritable"
        case InUse():
            code = "project-in-use"
        case ProjectError():
            code = "project-invalid"
        case EngineUnreachable():
            code = "engine-unreachable"
        case _:
            code = "engine-refused"
    return Problem(code=code, subject="dom0", title=error.message, hint=error.hint, since=since)


def of_engine(trouble: EngineError, since: float) -> Problem:
    if isinstance(trouble, EngineUnreachable):
        title = "the Docker Engine does not answer"
        return Problem(code="engine-unreachable", subject="engine", title=title, hint="dom0 doctor", since=since)
    title = f"the Docker Engine cannot say what is there: {trouble.message}"
    return Problem(code="engine-refused", subject="engine", title=title, hint="journalctl -u docker", since=since)


def unwritable(error: Dom0Error) -> Problem:
    return Problem(code="state-unwritable", subject="dom0", title=error.message, hint=error.hint)


def released(project: str, since: float) -> Problem:
    title = f"{project}: not taken over from docker compose, which runs it as before"
    hint = "why: dom0 history; again: dom0 up --adopt"
    return Problem(code="project-in-use", subject="dom0", title=title, hint=hint, since=since)
