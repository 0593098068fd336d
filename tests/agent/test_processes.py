"""What the host's /proc says of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from dom0.agent.processes import HostProcesses, SeenFromScope
from dom0.engine.values import Mount
from dom0.testing.builders import container, slot


def test_a_process_that_runs_has_not_ended() -> None:
    assert not HostProcesses().has_ended(os.getpid())


def test_a_process_that_nobody_has_asked_for_its_end_has_ended_all_the_same() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still in the table
        assert HostProcesses().has_ended(child.pid)
    assert HostProcesses().has_ended(child.pid)


def test_a_name_of_a_program_leads_nobody_astray(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) Z 1) S 1 7 7 0 -1\n")
    assert not HostProcesses(tmp_path).has_ended(7)


def test_a_bind_of_a_socket_that_lost_its_name_is_an_old_one(tmp_path: Path) -> None:
    lines = {
        "7": "734 727 0:56 /docker.sock//deleted /run/docker.sock rw,nosuid - tmpfs tmpfs rw\n",
        "8": "734 727 0:56 /docker.sock /run/docker.sock rw,nosuid - tmpfs tmpfs rw\n",
        "9": "734 727 0:56 /other.sock//deleted /x rw,nosuid - tmpfs tmpfs rw\n",
    }
    for pid, line in lines.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "mountinfo").write_text(f"1 0 0:1 / / rw - overlay overlay rw\n{line}")
    processes = HostProcesses(tmp_path)
    assert [processes.has_old_socket_at(pid) for pid in (7, 8, 9, 10)] == [True, False, False, False]
    assert processes.has_old_socket(container(slot("web"), pid=7))


def test_in_a_scope_who_was_started_before_the_socket_was_made_has_an_old_one(tmp_path: Path) -> None:
    own, teams = tmp_path / "docker.sock", tmp_path / "scopes/team/docker.sock"
    teams.parent.mkdir(parents=True)
    own.touch()
    teams.touch()
    os.utime(own, (100, 100))
    os.utime(teams, (200, 200))
    seen = SeenFromScope(own, tmp_path / "scopes")

    def has_old(source: str, started: float) -> bool:
        mounts = (Mount(type="bind", source=source, target="/run/docker.sock"),)
        return seen.has_old_socket(container(slot("web"), mounts=mounts, started=started))

    assert has_old("/var/run/docker.sock", 99)
    assert not has_old("/var/run/docker.sock", 101)
    assert has_old(str(teams), 199)
    assert not has_old(str(teams), 201)
    assert not has_old("/etc/passwd", 99)
    os.utime(own, (time.time() + 1000,) * 2)  # by a clock that was put back since
    assert not has_old("/var/run/docker.sock", 99)
    own.unlink()
    assert not has_old("/var/run/docker.sock", 99)
