"""What a real machine tells people, by a webhook and by ntfy: a service that is given up, a disk that fills, a
failed backup, that it went back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import chain
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine
from dom0.testing.receiver import Posted, Receiver

COMPOSE = """
    name: box
    x-dom0:
      rollout: {{monitor: 1s, timeout: 60s}}
      notify: {{ntfy: "{url}/topic", webhook: "{url}/hook"}}
      backup: {{data: {{to: {to}, env_file: ./backup.env, schedule: "@yearly"}}}}
    services:
      web:
        image: busybox:test
        init: true
        command: {command}
        volumes: [data:/data]
      loop:
        image: busybox:test
        command: ["sh", "-c", "until [ -e /data/crash ]; do sleep 0.1; done; exit 7"]
        restart: "no"
        volumes: [data:/data]
    volumes: {{data: {{}}}}
    """
STATE, TO = "/var/lib/dom0", "/var/lib/backup"
WELL, BAD, AGAIN = '["sleep", "100000"]', '["sh", "-c", "exit 7"]', '["sleep", "100001"]'
TITLES = {
    "crash-loop": "loop keeps exiting and is not restarted any more (last exit code 7)",
    "job-failed": r"the backup of data failed: exited with code 1; its next run is at ",
    "generation-failed": "the machine went back to generation 1: generation 2 failed: web ",
    "disk-filling": f"where {STATE} is, the disk is nearly full: ",
}
OVER_WITHIN = 400.0  # seconds


class Told:
    """A machine whose state is on a small disk, and who hears of it."""

    def __init__(self, machine: Machine, receiver: Receiver) -> None:
        self.machine = machine
        self.receiver = receiver

    def up(self, command: str, *, check: bool = True) -> None:
        compose = COMPOSE.format(url=self.receiver.url, to=TO, command=command)
        self.machine.write(compose, {"backup.env": "RESTIC_PASSWORD=x\n"})
        self.machine.up(check=check)

    def crash(self) -> None:
        """Until it is given up."""
        self.machine.docker("exec", "box-loop-1", "touch", "/data/crash")

        def given_up() -> bool:
            [phase] = [one["phase"] for one in self.machine.status()["services"] if one["service"] == "loop"]
            if phase == "failed":  # it has ended, the agent knows, and waits before it starts it: that pause is spared
                self.machine.docker("start", "box-loop-1")
            return bool(phase == "crash-loop")

        self.machine.until(given_up)

    def until_told(self, key: str, codes: set[str]) -> list[dict[str, Any]]:
        """All that is told there, once all of these are."""

        def found() -> list[dict[str, Any]] | None:
            told = [one for posted in self.receiver.posted("/hook") for one in posted[key]]
            return told if {one["code"] for one in told} >= codes else None

        told = self.machine.until(found, within=OVER_WITHIN)
        assert told is not None
        return told


@pytest.fixture
def box(engines_possible: None, tmp_path: Path) -> Iterator[Told]:
    with Host() as host, Receiver(host.network) as receiver:
        chain.provide(host)
        host.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", STATE])
        host.path(TO).mkdir()
        box = Told(Machine(host, tmp_path / "box"), receiver)
        box.up(WELL)
        yield box


pytestmark = [pytest.mark.engine, pytest.mark.chain, pytest.mark.timeout(900)]


def test_what_goes_wrong_is_told_once_in_its_own_words_and_that_it_is_over(box: Told) -> None:
    machine = box.machine
    machine.until(lambda: len(box.receiver.got) == 2)
    machine.dom0("backup", "now", "data")
    config = machine.host.path(f"{TO}/config")
    kept = config.read_bytes()
    config.write_bytes(b"x")
    assert machine.dom0("backup", "now", "data", check=False).code == 1
    box.up(BAD, check=False)
    machine.until_good(1)
    box.crash()
    left = os.statvfs(machine.state)
    filler = machine.state / "filler"
    filler.write_bytes(bytes(left.f_bavail * left.f_frsize - (2 << 20)))

    told = box.until_told("problems", set(TITLES))
    assert sorted(one["code"] for one in told) == sorted(TITLES)
    for one in told:
        assert one["title"].startswith(TITLES[one["code"]]), one

    filler.unlink()
    config.write_bytes(kept)
    machine.docker("exec", "box-web-1", "rm", "/data/crash")
    machine.dom0("backup", "now", "data")
    box.up(AGAIN)
    over = box.until_told("over", set(TITLES))
    assert sorted(one["code"] for one in over) == sorted(TITLES)
    assert box.until_told("problems", set(TITLES)) == told

    def topic() -> list[Posted]:
        return [one for one in box.receiver.got if one.path == "/topic"]

    machine.until(lambda: len(topic()) == len(box.receiver.posted("/hook")))
    assert [sum(one["title"] in posted.body.decode() for posted in topic()) for one in told] == [1] * len(told)
    assert sum(posted.headers["Title"] == "box: dom0 will tell you here" for posted in topic()) == 1
