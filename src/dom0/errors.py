"""Every error a person can meet, and the exit code it ends with.

    Dom0Error                     1   something failed
    ├── UsageError                2   the command line is wrong
    ├── ProjectError              3   the project cannot be used as it is written
    │   └── InUse                 3   something that dom0 did not make has what the project needs
    ├── EngineError               4   the Docker Engine refused or failed
    │   ├── EngineUnreachable     4   no Engine answers, or no permission to ask it
    │   ├── EngineUnsuitable      4   the Engine is too old or lacks what is needed
    │   ├── NotFound              4   no such container, image, network, volume
    │   └── Conflict              4   the name is taken, or the object is in use
    ├── RegistryError             1   a registry does not give what it was asked for
    │   ├── Temporary             1   the same may succeed later although nobody changed anything
    │   └── Final                 1   it will not
    │       ├── NotThere          1   the registry knows no such thing
    │       ├── Denied            1   it gives it to others only, who have a login
    │       └── NoRange           1   only the whole of it is to be had there
    ├── RolledBack                5   a generation did not become healthy; the last good one runs
    ├── Busy                      6   another dom0 command is at work on the same thing
    └── Interrupted             130   Ctrl-C; what goes on without the command, or is kept for the next one

`dom0 plan` ends with 10 when there are changes. Bugs are assertions, never one of these.
A message reads `where: what is wrong`; the hint says what to do.
"""

from __future__ import annotations

EXIT_CHANGES = 10


class Dom0Error(Exception):
    """`message` reads `where: what is wrong`, `hint` is what the reader can do about it (may be empty)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(Dom0Error):
    exit_code = 2


class ProjectError(Dom0Error):
    exit_code = 3


class InUse(ProjectError):
    pass


class EngineError(Dom0Error):
    """`transient`: the same call may succeed later although nobody changed anything."""

    exit_code = 4

    def __init__(self, message: str, *, hint: str = "", transient: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient


class EngineUnreachable(EngineError):
    def __init__(self, message: str, *, hint: str = "", transient: bool = True) -> None:
        super().__init__(message, hint=hint, transient=transient)


class EngineUnsuitable(EngineError):
    pass


class NotFound(EngineError):
    pass


class Conflict(EngineError):
    pass


class RegistryError(Dom0Error):
    pass


class Temporary(RegistryError):
    """`retry_after`: seconds that the registry asks to wait, None where it does not say."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class Final(RegistryError):
    pass


class NotThere(Final):
    pass


class Denied(Final):
    pass


class Unwelcome(RegistryError):
    """It could be had, and no Engine should have it."""


class NoRange(Final):
    pass


class RolledBack(Dom0Error):
    exit_code = 5


class Busy(Dom0Error):
    exit_code = 6


class Interrupted(Dom0Error):
    exit_code = 130
