"""The control group of a scope: what all of its containers may use together, as the kernel counts it.

Each container gets the group as its `CgroupParent`, and cannot leave it. The limits are files below /sys/fs/cgroup as
the Engine's process sees it (one in a container has a tree of its own), or properties of a slice where systemd keeps
the tree. What will be written is a value; `provide` carries it out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import socket
import struct
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dom0.errors import Dom0Error, UsageError
from dom0.names import CGROUPS, CGROUPS_INSIDE, ROOT
from dom0.run import capture
from dom0.socketproxy import listing
from dom0.socketproxy.grants import Budget
from dom0.socketproxy.rules import PERIOD
from dom0.socketproxy.scope import LABEL, Scope
from dom0.socketproxy.upstream import Upstream

_PARENT = re.compile(r"(/[a-zA-Z0-9_][a-zA-Z0-9_.-]*)+")
_SLICE = re.compile(r"[a-zA-Z0-9_]+(-[a-zA-Z0-9_]+)*\.slice")
_CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids"}  # grant -> controller
_AS_ROOT = f"run it as root on the host; in a container: -v {CGROUPS}:{CGROUPS_INSIDE}"
_REFUSED = {
    errno.EACCES: ("no permission", _AS_ROOT),
    errno.EPERM: ("no permission", _AS_ROOT),
    errno.EROFS: ("cannot be written", _AS_ROOT),
    errno.ENOENT: (
        "the kernel of this host does not limit that",
        "start it with that controller (cgroup_enable=memory), or leave the grant out",
    ),
    errno.EBUSY: ("what runs in the scope uses more", "stop some of it first: docker stop, dom0 socket stop"),
    errno.EINVAL: ("a container of the scope was given more", "give it less first: docker update --cpus"),
}
"""What the kernel's answer to a limit means, and what to do."""

log = logging.getLogger(__name__)


class Group(NamedTuple):
    parent: str  # as HostConfig.CgroupParent says it
    directory: str  # below the root of a hierarchy


class Used(msgspec.Struct, frozen=True):
    memory: int  # bytes
    pids: int


class Setting(NamedTuple):
    grant: str  # what it is for
    file: str  # below /sys/fs/cgroup
    value: str
    needed: bool  # else it is written where it is


class Engine(NamedTuple):
    """What decides how its containers are limited."""

    version: int  # of control groups
    systemd: bool
    process: int  # that listens on its socket


def group_of(scope: Scope, parent: str, *, systemd: bool, above: str = "") -> Group:
    """Below `parent`: by default `dom0` below the group `above`, or dom0.slice. Raises UsageError."""
    parent = parent or ("dom0.slice" if systemd else f"{above}/dom0")
    if not (_SLICE if systemd else _PARENT).fullmatch(parent):
        example = "machine.slice" if systemd else "/docker"
        raise UsageError(f"--cgroup-parent {parent}: not for this Engine", hint=f"for this one: as {example}")
    if not systemd:
        return Group(f"{parent}/{scope.name}", f"{parent}/{scope.name}".lstrip("/"))
    stem = parent.removesuffix(".slice")
    own = f"{stem}-" + scope.name.replace("-", r"\x2d")  # a dash is a level: systemd.slice(5)
    return Group(f"{own}.slice", directory_of(f"{own}.slice"))


def engines_group(own: str) -> str:
    """Where an Engine puts its containers, by /proc/self/cgroup of one of them; "" where that does not say.

    With version 2, and in a cgroup namespace of its own, a container sees itself at the root: cgroups(7).
    """
    found = re.search(r"^\d+:memory:(/.+)/[^/\n]+$", own, re.MULTILINE)
    return found[1] if found and _PARENT.fullmatch(found[1]) else ""


def directory_of(parent: str) -> str:
    """Of a group by its `CgroupParent`, below the root of a hierarchy."""
    if not parent.endswith(".slice"):
        return parent.lstrip("/")
    return "/".join(f"{step}.slice" for step in _levels(parent.removesuffix(".slice")))


def _levels(stem: str) -> list[str]:
    words = stem.split("-")
    return ["-".join(words[: count + 1]) for count in range(len(words))]


def directories(version: int, group: Group) -> tuple[str, ...]:
    """Where it lies below /sys/fs/cgroup; `freezer` so that it can be stopped as one."""
    if version == 2:
        return (group.directory,)
    return tuple(f"{name}/{group.directory}" for name in (*_CONTROLLERS.values(), "freezer"))


def settings(version: int, group: Group, budget: Budget) -> list[Setting]:
    """In the order in which they are written. Memory is without swap: what was granted is all there is."""
    limits = budget.asked()
    values = _values_2(budget) if version == 2 else _values_1(budget)
    found = _delegated(group, budget) if version == 2 else []
    for grant, name, value, everywhere in values:
        place = group.directory if version == 2 else f"{_CONTROLLERS[grant]}/{group.directory}"
        found.append(Setting(grant, f"{place}/{name}", value, needed=everywhere and grant in limits))
    return found


def _values_1(budget: Budget) -> list[tuple[str, str, str, bool]]:
    """Swap is let go first: its limit is never below that of memory."""
    memory = str(budget.memory or -1)
    return [
        ("memory", "memory.use_hierarchy", "1", False),  # for ever so since Linux 5.11
        ("memory", "memory.memsw.limit_in_bytes", "-1", False),  # there with swap accounting only
        ("memory", "memory.limit_in_bytes", memory, True),
        ("memory", "memory.memsw.limit_in_bytes", memory, False),
        ("cpus", "cpu.cfs_period_us", str(PERIOD), True),
        ("cpus", "cpu.cfs_quota_us", str(round(budget.cpus * PERIOD) if budget.cpus else -1), True),
        ("pids", "pids.max", str(budget.pids or "max"), True),
    ]


def _values_2(budget: Budget) -> list[tuple[str, str, str, bool]]:
    return [
        ("memory", "memory.swap.max", "0" if budget.memory else "max", False),
        ("memory", "memory.max", str(budget.memory or "max"), True),
        ("cpus", "cpu.max", f"{round(budget.cpus * PERIOD) if budget.cpus else 'max'} {PERIOD}", True),
        ("pids", "pids.max", str(budget.pids or "max"), True),
    ]


def _delegated(group: Group, budget: Budget) -> list[Setting]:
    """Version 2 has a controller where each group above hands it down."""
    above = ["", *(f"{path}/" for path in _paths_above(group.directory))]
    return [
        Setting(grant, f"{path}cgroup.subtree_control", f"+{_CONTROLLERS[grant]}", needed=True)
        for path in above
        for grant in budget.asked()
    ]


def _paths_above(directory: str) -> list[str]:
    steps = directory.split("/")
    return ["/".join(steps[:count]) for count in range(1, len(steps))]


def properties(group: Group, budget: Budget) -> list[str]:
    """Arguments of `systemctl`; an empty value is systemd's own."""
    values = {
        "MemoryMax": str(budget.memory or ""),
        "MemorySwapMax": "0" if budget.memory else "",
        "CPUQuota": f"{round(budget.cpus * 100)}%" if budget.cpus else "",
        "TasksMax": str(budget.pids or ""),
    }
    return ["set-property", "--runtime", group.parent, *(f"{key}={value}" for key, value in values.items())]


async def provide(upstream: Upstream, scope: Scope, budget: Budget, parent: str = "") -> str:
    """Make the group and limit it to `budget`; what runs there has the new limits at once. Returns its `CgroupParent`.

    Where nothing is to be limited and no group can be made, that is "", the Engine's own. Raises UsageError for a
    budget that cannot be kept, Refused while the Engine does not answer.
    """
    try:
        engine = await _engine(upstream)
        group = group_of(scope, parent, systemd=engine.systemd, above=_above(engine))
        if engine.systemd:
            await _set_properties(engine, group, budget)
        else:
            limit(_root(engine), engine.version, group, budget)
    except Dom0Error as error:
        if budget.asked() or parent:
            raise
        log.info("%s: without a control group of its own: %s", scope.path, error.message)
        return ""
    if budget.asked():
        await _check_members(upstream, scope, group)
    return group.parent


async def used(upstream: Upstream, parent: str) -> Used | None:
    """What the kernel counts in the group `parent` (a `CgroupParent`); None where it cannot be read from here."""
    try:
        return counted(_root(await _engine(upstream)), parent)
    except (Dom0Error, OSError):
        return None


def counted(root: Path, parent: str) -> Used | None:
    """As `used`, with the hierarchies of the Engine at `root`."""
    place = directory_of(parent)
    if (root / "cgroup.controllers").exists():
        memory, pids = root / place / "memory.current", root / place / "pids.current"
    else:
        memory, pids = root / "memory" / place / "memory.usage_in_bytes", root / "pids" / place / "pids.current"
    try:
        return Used(int(memory.read_text()), int(pids.read_text()))
    except (OSError, ValueError):
        return None


async def remove(upstream: Upstream, parent: str) -> str:
    """The group `parent`, where nothing runs any more; what is in the way, or "". One that is not there is gone.

    systemd keeps an empty slice until the next boot: only it may remove one. Raises Refused.
    """
    if parent.endswith(".slice"):
        return ""
    try:
        root = _root(await _engine(upstream))
        hierarchies = [root] if (root / "cgroup.controllers").exists() else list(root.iterdir())
        for hierarchy in hierarchies:  # of version 1: who starts containers makes it in all of them
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (hierarchy / directory_of(parent)).rmdir()
    except Dom0Error as error:
        return error.message
    except OSError as error:
        return str(error.strerror)
    return ""


async def _engine(upstream: Upstream) -> Engine:
    info: dict[str, Any] = (await upstream.ask("GET", "info")).document
    if any(text.startswith(f"{LABEL}=") for text in info.get("Labels") or ()):
        raise UsageError(
            f"{upstream.socket}: is the socket of a scope, whose budget holds for what is inside it too",
            hint="leave memory, cpus and pids out of the grants in there",
        )
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        raise UsageError(
            f"{upstream.socket}: a rootless Engine keeps no budgets",
            hint="leave memory, cpus and pids out of the grants, or use an Engine that runs as root",
        )
    systemd = info.get("CgroupDriver") == "systemd"
    return Engine(int(info.get("CgroupVersion") or 1), systemd, _listening(upstream.socket))


def _listening(path: str) -> int:
    """Process ID of who listens there: the Engine, or systemd for it; 0 if it is in another PID namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        found: tuple[int, int, int] = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
    return found[0]


def _above(engine: Engine) -> str:
    """The Engine's own group, where it has started us in it too: what limits it limits the scope."""
    return "" if engine.process else engines_group(Path("/proc/self/cgroup").read_text())


def _root(engine: Engine) -> Path:
    """The control groups as the Engine sees them. Raises UsageError."""
    path = Path(f"/proc/{engine.process}/root{CGROUPS}") if engine.process else Path(CGROUPS_INSIDE)
    try:
        path.stat()
    except OSError as error:
        raise UsageError(
            f"the control groups of the Engine cannot be reached: {error.strerror}",
            hint=_AS_ROOT,
        ) from error
    return path


def limit(root: Path, version: int, group: Group, budget: Budget) -> None:
    """Make `group` below `root`, where the hierarchies are, and write its limits. Raises UsageError."""
    for place in directories(version, group):
        hierarchy = root if version == 2 else root / place.partition("/")[0]
        if hierarchy.is_dir():  # else a limit that needs it fails below
            try:
                (root / place).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _refusal("control group", place, error) from error
    for setting in settings(version, group, budget):
        path = root / setting.file
        if not setting.needed and not path.exists():
            continue
        try:
            with path.open("r+") as file:  # one that is not there cannot be made
                file.write(setting.value)
        except OSError as error:
            raise _refusal(setting.grant, f"{setting.file} = {setting.value}", error) from error


def _refusal(what: str, where: str, error: OSError) -> UsageError:
    meaning, hint = _REFUSED.get(error.errno or 0, (str(error.strerror), "look at the log of the kernel: dmesg"))
    return UsageError(f"{what}: {where}: {meaning} ({error.strerror})", hint=hint)


async def _set_properties(engine: Engine, group: Group, budget: Budget) -> None:
    """As the host's systemd takes them. Raises CommandFailed, UsageError."""
    if not engine.process:
        raise UsageError(
            f"{group.parent}: the systemd of the host cannot be asked from here",
            hint="run dom0 socket serve on the host, or a container of it with --pid host --privileged",
        )
    enter = ["nsenter", f"--mount=/proc/{engine.process}/ns/mnt", "systemctl"]
    await capture([*enter, *properties(group, budget)])
    await capture([*enter, "start", group.parent])
    for setting in settings(engine.version, group, budget):
        if setting.needed and not (_root(engine) / setting.file).exists():
            raise UsageError(
                f"{setting.grant}: systemd did not make {setting.file}", hint=f"systemctl status {group.parent}"
            )


async def _check_members(upstream: Upstream, scope: Scope, group: Group) -> None:
    """A budget holds for containers that were made in the group. Raises UsageError."""
    for row in await listing.owned(upstream, scope, "container"):
        name = listing.name("container", row)
        if name == scope.long(ROOT):  # an orchestrator, which others start
            continue
        found = (await upstream.ask("GET", "containers", row["Id"], "json")).document
        parent = (found or {}).get("HostConfig", {}).get("CgroupParent", group.parent)
        if parent != group.parent:
            raise UsageError(
                f"{name}: was made outside of {group.parent}, where no budget would hold for it",
                hint=f"make it anew: docker rm --force {name}",
            )
