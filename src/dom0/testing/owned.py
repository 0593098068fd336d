"""What a test run owns on this machine, how it is named, and how the next run removes it if its owner was killed.

Everything that a run makes outside its own processes is a directory in `BASE` or a control group, and carries a name
`dom0-test-<pid namespace>-<pid>-<start time>` of its owner. An owner is gone when no process has that pid and start
time; only then is anything of it touched, and never anything of another pid namespace, whose processes we cannot see.
Mounts, network interfaces and processes live in namespaces that end with the owner (see hosts.py); the
sweep makes sure.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

PREFIX = "dom0-test-"
INIT = "host_init.py"
BASE = Path("/var/tmp")  # noqa: S108 -- on disk, unlike /tmp of some distributions; names are ours, mode 0700
_NAME = re.compile(re.escape(PREFIX) + r"(?P<space>\d+)-(?P<pid>\d+)-(?P<start>\d+)")
_CGROUPS = Path("/sys/fs/cgroup")
_DEADLINE = 20.0  # seconds for killed processes to be gone


def owner_name(pid: int | None = None) -> str:
    """The name that everything of process `pid` (this one) carries."""
    pid = os.getpid() if pid is None else pid
    return f"{PREFIX}{_pid_namespace()}-{pid}-{_start_time(pid)}"


def run_root() -> Path:
    """The one directory of this process; made when first asked for."""
    root = BASE / owner_name()
    root.mkdir(mode=0o700, exist_ok=True)
    return root


def remove_directory(path: Path) -> None:
    """Remove a directory of ours, and the run's own once it is empty."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def sweep() -> list[str]:
    """Remove what runs of this pid namespace left whose process is gone; returns their names."""
    names = sorted(name for name in leftovers() if _is_dead(name))
    for name in names:
        remove(name)
    return names


def leftovers() -> set[str]:
    """Owners in this pid namespace, dead or alive, of whom directories, control groups, processes or mounts exist."""
    names = {name for path in [*BASE.glob(f"{PREFIX}*"), *_cgroups()] for name in _names_in(path.name)}
    names |= {name for target in _mounts() for name in _names_in(target)}
    return names | {name for pid in _pids() for name in _names_of_process(pid)}


def remove(name: str) -> None:
    """Kill the processes, then remove the mounts, control groups and directories that carry `name`."""
    assert _NAME.fullmatch(name)
    _thaw(name)
    _kill_processes(name)
    for target in reversed([target for target in _mounts() if name in _names_in(target)]):
        subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
    for group in {top.name for top in _cgroups() if name in _names_in(top.name)}:
        remove_cgroup(group)
    shutil.rmtree(BASE / name, ignore_errors=True)


def processes(name: str) -> list[int]:
    """The processes that carry `name`, the first process of a host before what runs in it."""
    return sorted(pid for pid in _pids() if name in _names_of_process(pid))


def kill_in_cgroup(name: str) -> None:
    """Kill the processes in the control groups below `name`."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            if f"/{name}/" in Path(f"/proc/{pid}/cgroup").read_text():
                os.kill(pid, signal.SIGKILL)


def remove_cgroup(name: str) -> None:
    """Remove control group `name` of the top of every hierarchy, with all below it; what is busy stays."""
    for top in _cgroups():
        for directory, _, _ in os.walk(top, topdown=False) if top.name == name else ():
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def _thaw(name: str) -> None:
    """With control groups of version 1 no signal ends a process of a paused container."""
    for top in _cgroups():
        if name in _names_in(top.name):
            for directory, _, _ in os.walk(top):  # unlike rglob it bears that another sweep removes what it reads
                with contextlib.suppress(OSError), (Path(directory) / "freezer.state").open("r+") as state:
                    state.write("THAWED")


def _is_dead(name: str) -> bool:
    match = _NAME.fullmatch(name)
    assert match is not None
    try:
        return _start_time(int(match["pid"])) != match["start"]
    except OSError:
        return True


def _kill_processes(name: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while pids := processes(name):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name}: processes {pids} do not end")
        time.sleep(0.02)


def _names_of_process(pid: int) -> set[str]:
    """Owners of `pid`: it is the first process of a host, or in a control group that carries the name.

    A command line that only mentions a name (an editor, `tail -f`) is not enough to be killed.
    """
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        names = _names_in(Path(f"/proc/{pid}/cgroup").read_text())
    except OSError:
        return set()
    if any(argument.endswith(f"/{INIT}") for argument in arguments):
        names |= {name for argument in arguments for name in _names_in(argument)}
    return names


def _names_in(text: str) -> set[str]:
    return {match.group() for match in _NAME.finditer(text) if match["space"] == _pid_namespace()}


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _mounts() -> list[str]:
    """Mount points of our namespace, in the order they were mounted."""
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _cgroups() -> list[Path]:
    """Version 2 has one hierarchy at the top, version 1 one a directory below it."""
    return [*_CGROUPS.glob(f"{PREFIX}*"), *_CGROUPS.glob(f"*/{PREFIX}*")]


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, in clock ticks since boot. Raises OSError if there is no such process."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()  # the name in brackets may hold anything; the state follows it
    if fields[0] in "ZX":
        raise ProcessLookupError(f"process {pid} has ended")
    return fields[19]
