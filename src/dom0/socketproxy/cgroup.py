"""Names and limits of the control groups of scopes: of version 1, of version 2, and where systemd makes them. Pure.

What will be written is a value; `budget` carries it out.
"""

from __future__ import annotations

import re
import resource
from typing import NamedTuple

from dom0.errors import UsageError
from dom0.names import SCOPE_NAME
from dom0.socketproxy.grants import MOST_MEMORY, Budget
from dom0.socketproxy.scope import Scope

PERIOD = 100_000  # microseconds of CpuPeriod where it is not said
PAGE = resource.getpagesize()  # bytes

_PARENT = re.compile(r"(/[a-zA-Z0-9_][a-zA-Z0-9_.-]*)+")
_SLICE = re.compile(r"[a-zA-Z0-9_]+(-([a-zA-Z0-9_]|\\x2d)+)*\.slice")  # a dash is a level: systemd.slice(5)
_INNER = re.compile(rf"(/{SCOPE_NAME}){{1,15}}")
_OF_SCOPE = re.compile(rf"{SCOPE_NAME}|.+\.slice")  # no container's: those have an ID, or are a .scope of systemd
CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # grant -> controller


class Group(NamedTuple):
    parent: str  # as HostConfig.CgroupParent says it
    directory: str  # below the root of a hierarchy


class CgroupDriver(NamedTuple):
    """Of an Engine: how its containers are limited."""

    version: int  # of control groups
    systemd: bool
    process: int  # that listens on its socket


class Setting(NamedTuple):
    grant: str  # what it is for
    file: str  # below /sys/fs/cgroup
    value: str
    needed: bool  # else it is written where it is


def parent_of_scopes(*, systemd: bool, above: str = "") -> str:
    """Below it are the groups of scopes: dom0.slice, or `dom0` below the group `above`."""
    return "dom0.slice" if systemd else f"{above}/dom0"


def group_of(scope: Scope, parent: str, *, systemd: bool, above: str = "") -> Group:
    """Below `parent`, or where groups of scopes are. Raises UsageError."""
    parent = parent or parent_of_scopes(systemd=systemd, above=above)
    if not (_SLICE if systemd else _PARENT).fullmatch(parent):
        example = "machine.slice" if systemd else "/docker"
        raise UsageError(f"--cgroup-parent {parent}: not for this Engine", hint=f"for this one: as {example}")
    return group(below(parent, scope.name))


def group(parent: str) -> Group:
    return Group(parent, directory_of(parent))


def below(parent: str, name: str) -> str:
    """The group of scope `name` there."""
    if not _SLICE.fullmatch(parent):
        return f"{parent}/{name}"
    return f"{parent.removesuffix('.slice')}-" + name.replace("-", r"\x2d") + ".slice"  # a dash is a level


def inner(parent: str, path: str) -> Group | None:
    """Of the scope `path` (`/team`, `/team/sub`) inside the one whose group is `parent`; None if that is no path."""
    if not _INNER.fullmatch(path):
        return None
    for name in path[1:].split("/"):
        parent = below(parent, name)
    return group(parent)


def is_within(parent: str, outer: str) -> bool:
    """Whether a group is `outer`, or one of a scope inside."""
    stem = outer.removesuffix(".slice") + "-" if outer.endswith(".slice") else f"{outer}/"
    return parent == outer or parent.startswith(stem)


def is_of_scope(name: str) -> bool:
    """What the name of a directory says, in the group of a scope."""
    return _OF_SCOPE.fullmatch(name) is not None


def engines_group(own: str) -> str:
    """Where an Engine puts its containers, by /proc/self/cgroup of one of them; "" where that does not say.

    With version 2, and in a cgroup namespace of its own, a container sees itself at the root: cgroups(7).
    """
    found = re.search(r"^\d+:memory:(/.+)/[^/\n]+$", own, re.MULTILINE)
    return found[1] if found and _PARENT.fullmatch(found[1]) else ""


def directory_of(parent: str) -> str:
    """Of a group by its `CgroupParent`, below the root of a hierarchy."""
    if not _SLICE.fullmatch(parent):
        return parent.lstrip("/")
    words = parent.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(words[: count + 1])}.slice" for count in range(len(words)))


def directories(version: int, group: Group) -> tuple[str, ...]:
    """Where it lies below /sys/fs/cgroup; `freezer` so that it can be stopped as one."""
    if version == 2:
        return (group.directory,)
    return tuple(f"{name}/{group.directory}" for name in (*CONTROLLERS.values(), "freezer"))


def settings(version: int, group: Group, budget: Budget) -> list[Setting]:
    """In the order in which they are written. Memory is without swap: what was granted is all there is."""
    limits, found = budget.asked(), list[Setting]()
    quota = round(budget.cpus * PERIOD) if budget.cpus else None
    if version == 2:
        steps = group.directory.split("/")
        for count in range(len(steps)):  # a controller is there where each group above hands it down
            file = "".join(f"{step}/" for step in steps[:count]) + "cgroup.subtree_control"
            found += [Setting(grant, file, f"+{CONTROLLERS[grant]}", needed=True) for grant in limits]
        values = [
            ("memory", "memory.swap.max", "0" if budget.memory else "max", False),
            ("memory", "memory.max", str(budget.memory or "max"), True),
            ("cpus", "cpu.max", f"{'max' if quota is None else quota} {PERIOD}", True),
            ("pids", "pids.max", str(budget.pids or "max"), True),
        ]
    else:  # swap is let go first: its limit is never below that of memory
        memory = str(budget.memory or -1)
        values = [
            ("memory", "memory.use_hierarchy", "1", False),  # for ever so since Linux 5.11
            ("memory", "memory.memsw.limit_in_bytes", "-1", False),  # there with swap accounting only
            ("memory", "memory.limit_in_bytes", memory, True),
            ("memory", "memory.memsw.limit_in_bytes", memory, False),
            ("cpus", "cpu.cfs_period_us", str(PERIOD), True),
            ("cpus", "cpu.cfs_quota_us", str(-1 if quota is None else quota), True),
            ("pids", "pids.max", str(budget.pids or "max"), True),
        ]
    for grant, name, value, everywhere in values:
        place = group.directory if version == 2 else f"{CONTROLLERS[grant]}/{group.directory}"
        found.append(Setting(grant, f"{place}/{name}", value, needed=everywhere and grant in limits))
    return found


def is_said(setting: Setting, found: str) -> bool:
    """Whether its file, which reads `found`, has its value: memory in whole pages, of version 1 what is no limit."""
    asked = setting.value
    if asked.startswith("+"):
        return asked[1:] in found.split()
    if setting.grant == "memory" and asked.isdigit() and int(asked) >= PAGE:
        asked = str(int(asked) // PAGE * PAGE)
    if setting.grant == "memory" and asked == "-1":
        return int(found) < 0 or int(found) >= MOST_MEMORY
    return found.split() == asked.split()


def properties(group: Group, budget: Budget) -> list[str]:
    """Arguments of `systemctl`; an empty value is systemd's own."""
    values = {
        "MemoryMax": str(budget.memory or ""),
        "MemorySwapMax": "0" if budget.memory else "",
        "CPUQuota": f"{int(budget.cpus * 1e4 + 1e-6) / 100:.9g}%" if budget.cpus else "",
        "TasksMax": str(budget.pids or ""),
    }
    return ["set-property", "--runtime", group.parent, *(f"{key}={value}" for key, value in values.items())]
