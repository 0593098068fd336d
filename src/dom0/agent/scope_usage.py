"""How much of what it was granted each scope uses, and what it was refused.

From the directory of each, its control group, and the picture that the loop has anyway: the Engine is asked nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dom0 import sizes
from dom0.agent.scope_status import ScopeBudget, ScopeRefusal, ScopeStatus
from dom0.errors import Dom0Error
from dom0.plan.actual import Actual
from dom0.socketproxy import budget, refusals, registrations
from dom0.socketproxy.registrations import Registered, Registration
from dom0.socketproxy.scope import NAME_PATTERN, Scope

MOST_REFUSALS = 20  # that are told of one scope


def count_owned(scope: Scope, actual: Actual) -> dict[str, int]:
    """By grant: how many of each kind are the scope's."""
    return {
        "containers": sum(scope.owns(one.name, one.labels) for one in actual.containers)
        + sum(scope.owns(one.name, one.labels) for one in actual.others),
        "networks": sum(scope.owns(one.name, one.labels) for one in actual.networks),
        "volumes": sum(scope.owns_volume(one.name, one.labels) for one in actual.volumes),
    }


def read_scopes(actual: Actual, hierarchies: Path) -> list[ScopeStatus]:
    """Those that are registered; what is wrong with others is a problem. `hierarchies`: of the host's control groups.

    Raises OSError.
    """
    found = []
    for name in filter(NAME_PATTERN.fullmatch, registrations.known()):
        with contextlib.suppress(Dom0Error, OSError):  # not understood, or gone
            found.append(_describe(registrations.read(name), actual, hierarchies))
    return found


def _describe(found: Registered, actual: Actual, hierarchies: Path) -> ScopeStatus:
    registration = found.registration
    told = refusals.read(registrations.directory_of(registration.scope))
    return ScopeStatus(
        scope=registration.scope,
        served=found.is_served,
        since=registration.since,
        budget=tuple(_budget(registration, actual, hierarchies)),
        refused=sum(one.times for one in told),
        refusals=tuple(
            ScopeRefusal(at=one.at, method=one.method, path=one.path, message=one.message, times=one.times)
            for one in told[-MOST_REFUSALS:]
        ),
    )


def _budget(registration: Registration, actual: Actual, hierarchies: Path) -> Iterator[ScopeBudget]:
    grants, group = registration.grants, registration.cgroup_parent
    for kind, count in count_owned(Scope(registration.scope), actual).items():
        yield ScopeBudget(kind=kind, granted=getattr(grants, kind), used=count)
    counted = budget.counted(hierarchies, group) if group else None
    memory = None if grants.memory is None else sizes.parse(str(grants.memory))
    yield ScopeBudget(kind="memory", granted=memory, used=counted.memory if counted else None)
    yield ScopeBudget(kind="pids", granted=grants.pids, used=counted.pids if counted else None)
    yield ScopeBudget(kind="cpus", granted=grants.cpus, used=None)
