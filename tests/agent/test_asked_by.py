"""Who asks the agent, by what the kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.agent import asked_by
from dom0.http.channel import PeerCredentials

ID = "4f" * 32


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "uid 1000"),
        (f"0::/../{ID}\n", "uid 1000 in dom0-sshd"),
        (f"0::/system.slice/docker-{ID}.scope\n", "uid 1000 in dom0-sshd"),
        (f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n", "uid 1000 in dom0-sshd"),
        (f"0::/docker/{'ab' * 32}\n", "uid 1000 in abababababab"),
        ("", "uid 1000"),
        ("\udcff\x1b[2J", "uid 1000"),
    ],
)
def test_a_process_is_known_by_its_user_and_its_container(tmp_path: Path, group: str, said: str) -> None:
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "cgroup").write_bytes(group.encode(errors="surrogateescape"))
    assert asked_by.say(PeerCredentials(pid=42, uid=1000), {"dom0-sshd": ID, "web": "cd" * 32}, tmp_path) == said


def test_one_that_has_ended_or_is_not_seen_has_a_user(tmp_path: Path) -> None:
    assert asked_by.say(PeerCredentials(pid=0, uid=0), {}, tmp_path) == "uid 0"
    assert asked_by.say(None, {}, tmp_path) == "unknown"
