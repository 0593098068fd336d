"""The control group of a scope: what all of its containers may use together, as the kernel counts it.

Each container gets the group as its `CgroupParent`, and cannot leave it. The limits are files below /sys/fs/cgroup as
the Engine's process sees it (one in a container has a tree of its own), or properties of a slice where systemd keeps
the tree. In another scope it is the socket of that which is asked for a group (`inner`). Names and what will be written
are values of `cgroup`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from dom0.errors import Dom0Error, UsageError
from dom0.names import CGROUPS, CGROUPS_INSIDE, ROOT
from dom0.run import capture
from dom0.socketproxy import cgroup, listing, requests
from dom0.socketproxy.cgroup import CgroupDriver, Group
from dom0.socketproxy.grants import Budget
from dom0.socketproxy.scope import LABEL, Scope, is_in_one
from dom0.socketproxy.upstream import Upstream

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

BUDGET = ("dom0", "budget")  # the path of the request
PAUSE = 0.2  # seconds between two looks for a group that an Engine makes which does not answer

log = logging.getLogger(__name__)


class Used(msgspec.Struct, frozen=True):
    memory: int  # bytes
    pids: int


class Provided(NamedTuple):
    parent: str = ""  # `CgroupParent` of the scope's containers; "" is the Engine's own
    driver: CgroupDriver | None = None  # to make groups from here; None in another scope, whose socket does that


async def provide(upstream: Upstream, scope: Scope, budget: Budget, parent: str = "") -> Provided:
    """Make the group and limit it to `budget`; what runs there has the new limits at once.

    Where nothing is to be limited and no group can be made, there is none. Raises UsageError for a budget that cannot
    be kept, Refused while the Engine does not answer.
    """
    try:
        info = await _info(upstream)
        if is_in_one(info.get("Labels") or ()):
            return Provided(await _ask_for(upstream, scope, budget, parent))
        driver = _driver(upstream, info)
        group = cgroup.group_of(scope, parent, systemd=driver.systemd, above=_above(driver))
        await make(driver, group, budget)
    except Dom0Error as error:
        if budget.asked() or parent:
            raise
        log.info("%s: without a control group of its own: %s", scope.path, error.message)
        return Provided()
    if budget.asked():
        await check_members(upstream, scope.path, group)
    return Provided(group.parent, driver)


@asynccontextmanager
async def kept_meanwhile(path: str, scope: Scope, budget: Budget, parent: str = "") -> AsyncIterator[None]:
    """While the Engine at `path` does not answer: at a boot it does not until it has started what it starts by itself.

    The group that it makes for that has no limits, and gets them as soon as it is there. What cannot be done yet is
    left to `provide`.
    """
    keeping = asyncio.create_task(_keep_meanwhile(path, scope, budget, parent))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep_meanwhile(path: str, scope: Scope, budget: Budget, parent: str) -> None:
    is_limited = not budget.asked()
    while not is_limited:
        await asyncio.sleep(PAUSE)
        for systemd in (False, True):
            with suppress(Dom0Error, OSError):
                process = _listening(path)
                is_unified = (_root(CgroupDriver(0, systemd, process)) / "cgroup.controllers").exists()
                driver = CgroupDriver(2 if is_unified else 1, systemd, process)
                group = cgroup.group_of(scope, parent, systemd=systemd, above=_above(driver))
                if is_there(driver, group):
                    await make(driver, group, budget)
                    log.info("%s: limited while the Engine does not answer yet", scope.path)
                    is_limited = True


async def _ask_for(upstream: Upstream, scope: Scope, budget: Budget, parent: str) -> str:
    """Of the socket of the scope that this one is in: see `inner`; "" where it has none. Raises UsageError, Refused."""
    if parent:
        raise UsageError(
            f"--cgroup-parent {parent}: {upstream.socket} is the socket of a scope, which puts it below its own",
            hint="leave it out",
        )
    reply = await upstream.ask("PUT", *BUDGET, body=asking(scope.path, budget))
    if reply.status != 200:
        said = (reply.document or {}).get("message", reply.status)
        raise UsageError(
            f"{upstream.socket}: keeps no such budget: {said}",
            hint="leave memory, cpus and pids out of the grants in there, or have the outer scope granted more",
        )
    return str(reply.document["CgroupParent"])


def asking(path: str, budget: Budget) -> requests.Budget:
    """For the scope `path`, as its socket is asked."""
    cpus = round((budget.cpus or 0) * 1e9)
    return requests.Budget(scope=path, memory=budget.memory or 0, nano_cpus=cpus, pids_limit=budget.pids or 0)


async def make(driver: CgroupDriver, group: Group, budget: Budget) -> None:
    """By the host's systemd where the Engine leaves that to it. Raises UsageError, CommandFailed."""
    if not driver.systemd:
        limit(_root(driver), driver.version, group, budget)
        return
    if not driver.process:
        raise UsageError(
            f"{group.parent}: the systemd of the host cannot be asked from here",
            hint="run dom0 socket serve on the host, or a container of it with --pid host --privileged",
        )
    if _is_as_asked(driver, group, budget):  # a scope inside may ask for the same all the time
        return
    enter = ["nsenter", f"--mount=/proc/{driver.process}/ns/mnt", "systemctl"]
    await capture([*enter, *cgroup.properties(group, budget)])
    await capture([*enter, "start", group.parent])
    for setting in cgroup.settings(driver.version, group, budget):
        if setting.needed and not _is_kept(_root(driver) / setting.file, setting.value):
            hint = f"stop some of what runs there, or: systemctl status {group.parent}"
            raise UsageError(f"{setting.grant}: systemd did not make {setting.file} = {setting.value}", hint=hint)


def driver_now(upstream: Upstream, driver: CgroupDriver) -> CgroupDriver:
    """Another process after it has been restarted: its ID may be anybody's by now. Raises OSError."""
    return driver._replace(process=_listening(upstream.socket))


def is_there(driver: CgroupDriver, group: Group) -> bool:
    """Raises UsageError."""
    root = _root(driver)
    return any((root / place).is_dir() for place in cgroup.directories(driver.version, group))


def count_inside(driver: CgroupDriver, group: Group) -> int:
    """How many groups of scopes are in that of a scope. Raises UsageError, OSError."""
    root = _root(driver)
    return max(_count(root / place) for place in cgroup.directories(driver.version, group))


def _count(directory: Path) -> int:
    found = list(directory.iterdir()) if directory.is_dir() else []
    return sum(1 + _count(one) for one in found if one.is_dir() and cgroup.is_of_scope(one.name))


async def used(upstream: Upstream, parent: str) -> Used | None:
    """What the kernel counts in the group `parent` (a `CgroupParent`); None where it cannot be read from here."""
    try:
        info = await _info(upstream)
        return None if is_in_one(info.get("Labels") or ()) else counted(_root(_driver(upstream, info)), parent)
    except (Dom0Error, OSError):
        return None


def counted(root: Path, parent: str) -> Used | None:
    """As `used`, with the hierarchies of the Engine at `root`."""
    place = cgroup.directory_of(parent)
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
        info = await _info(upstream)
        if is_in_one(info.get("Labels") or ()):  # the outer one's server has it
            return ""
        root = _root(_driver(upstream, info))
        hierarchies = [root] if (root / "cgroup.controllers").exists() else list(root.iterdir())
        for hierarchy in hierarchies:  # of version 1: who starts containers makes it in all of them
            with suppress(FileNotFoundError, NotADirectoryError):
                _remove(hierarchy / cgroup.directory_of(parent))
    except Dom0Error as error:
        return error.message
    except OSError as error:
        return str(error.strerror)
    return ""


def _remove(directory: Path) -> None:
    """With those of scopes inside. Raises OSError."""
    for one in directory.iterdir():
        if one.is_dir() and cgroup.is_of_scope(one.name):
            _remove(one)
    directory.rmdir()


async def _info(upstream: Upstream) -> dict[str, Any]:
    document: dict[str, Any] = (await upstream.ask("GET", "info")).document
    return document


def _driver(upstream: Upstream, info: dict[str, Any]) -> CgroupDriver:
    if any("rootless" in option for option in info.get("SecurityOptions") or ()):
        raise UsageError(
            f"{upstream.socket}: a rootless Engine keeps no budgets",
            hint="leave memory, cpus and pids out of the grants, or use an Engine that runs as root",
        )
    systemd = info.get("CgroupDriver") == "systemd"
    return CgroupDriver(int(info.get("CgroupVersion") or 1), systemd, _listening(upstream.socket))


def _listening(path: str) -> int:
    """Process ID of who listens there: the Engine, or systemd for it; 0 if it is in another PID namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        found: tuple[int, int, int] = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
    return found[0]


def _above(driver: CgroupDriver) -> str:
    """The Engine's own group, where it has started us in it too: what limits it limits the scope."""
    return "" if driver.process else cgroup.engines_group(Path("/proc/self/cgroup").read_text())


def _root(driver: CgroupDriver) -> Path:
    """The control groups as the Engine sees them. Raises UsageError."""
    path = Path(f"/proc/{driver.process}/root{CGROUPS}") if driver.process else Path(CGROUPS_INSIDE)
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
    for place in cgroup.directories(version, group):
        hierarchy = root if version == 2 else root / place.partition("/")[0]
        if hierarchy.is_dir():  # else a limit that needs it fails below
            try:
                (root / place).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _refusal("control group", place, error) from error
    for setting in cgroup.settings(version, group, budget):
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


def _is_as_asked(driver: CgroupDriver, group: Group, budget: Budget) -> bool:
    root = _root(driver)
    asked = [one for one in cgroup.settings(driver.version, group, budget) if "memsw" not in one.file]  # not systemd's
    return is_there(driver, group) and all(
        cgroup.is_said(one, file.read_text()) if (file := root / one.file).exists() else not one.needed for one in asked
    )


def _is_kept(file: Path, value: str) -> bool:
    """What the kernel refuses systemd tells its log alone."""
    if not file.exists():
        return False
    asked, found = value.split()[0], file.read_text().split()
    return not asked.isdigit() or (found[0].isdigit() and int(found[0]) <= int(asked))


async def check_members(upstream: Upstream, path: str, group: Group) -> None:
    """A budget holds for containers of the scope `path` that were made in its group, or in that of a scope inside.

    Raises UsageError.
    """
    prefix = path[1:].replace("/", ".") + "."
    outermost = Scope(path.split("/")[1])
    async for row in listing.owned(upstream, outermost, "container"):
        name, label = listing.name("container", row), row["Labels"][LABEL]
        if not name.startswith(prefix) or not cgroup.is_within(label, path):
            continue
        if name == prefix + ROOT:  # an orchestrator, which others start
            continue
        found = (await upstream.ask("GET", "containers", row["Id"], "json")).document
        parent = (found or {}).get("HostConfig", {}).get("CgroupParent", group.parent)
        if not cgroup.is_within(parent, group.parent):
            raise UsageError(
                f"{name}: was made outside of {group.parent}, where no budget would hold for it",
                hint=f"make it anew: docker rm --force {name}",
            )
