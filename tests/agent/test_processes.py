"""What the host's /proc says of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dom0.agent.processes import HostProcesses


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
    assert [processes.has_old_socket(pid) for pid in (7, 8, 9, 10)] == [True, False, False, False]
