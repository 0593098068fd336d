"""Whether there are scopes on this machine, and only then their problems and what they use.

Their modules are a ninth of all that the agent loads, and most machines have no scope.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from dom0 import names
from dom0.agent.processes import PROC
from dom0.health import Problem
from dom0.plan.actual import Actual
from dom0.plan.desired import Role
from dom0.plan.planner import Plan

if TYPE_CHECKING:
    from dom0.agent.scope_problems import ScopeProblems
    from dom0.agent.scope_status import ScopeStatus

HIERARCHIES = PROC / "1/root" / names.CGROUPS.lstrip("/")  # control groups, as the host sees them


class Scopes:
    def __init__(self, hierarchies: Path = HIERARCHIES) -> None:
        self._hierarchies = hierarchies
        self._problems: ScopeProblems | None = None  # once there was a scope

    def problems(self, plan: Plan | None, actual: Actual | None, now: float) -> tuple[Problem, ...]:
        if self._problems is None:
            has_scopes = plan is not None and any(one.slot.role is Role.SOCKET for one in plan.slots)
            if not has_scopes and not _has_directories():
                return ()
            from dom0.agent.scope_problems import ScopeProblems

            self._problems = ScopeProblems(self._hierarchies)
        return self._problems.look(plan, actual, now)

    def status(self, actual: Actual) -> list[ScopeStatus]:
        """Raises OSError."""
        if not _has_directories():
            return []
        from dom0.agent.scope_usage import read_scopes

        return read_scopes(actual, self._hierarchies)


def _has_directories() -> bool:
    with contextlib.suppress(OSError):
        return any(names.scopes_directory().iterdir())
    return False
