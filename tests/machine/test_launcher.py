"""The host's launcher beside the real agent: each leaves the other its work."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from dom0.run import CommandFailed
from dom0.testing.foreign import Foreign
from dom0.testing.launcher import Launcher, forget_stop
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0:
      rollout: {monitor: 1s, timeout: 3m}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        restart: unless-stopped
      probe:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {WHICH: "0"}
    """


@pytest.fixture(scope="module")
def launcher(machine: Machine, foreign: Foreign) -> Iterator[Launcher]:
    """A machine that the launcher has started."""
    machine.write(COMPOSE)
    machine.build()
    forget_stop(machine.host)
    made = Launcher(machine.host)
    made.start()
    machine.until_good()
    yield made
    made.stop()


def settled(launcher: Launcher, machine: Machine) -> str:
    """The ID of the image that dom0 runs from, once machine and launcher have nothing left to do."""

    def image() -> str:
        status = machine.until_good()
        found = str(status["generation"]["dom0_image"])
        places = {status["dom0_image"], launcher.recall("good"), launcher.container()["Image"], found}
        return found if len(places) == 1 and launcher.roots() == {"dom0": "running"} else ""

    return launcher.until(image)


def change(machine: Machine, value: str) -> None:
    machine.write(COMPOSE.replace('WHICH: "0"', f'WHICH: "{value}"'))


def test_the_launcher_starts_a_machine(launcher: Launcher, machine: Machine) -> None:
    assert settled(launcher, machine) == machine.image_id("dom0:latest")
    launcher.until_tells("latest")


def test_a_replacement_by_the_agent_is_left_to_it(launcher: Launcher, machine: Machine) -> None:
    web = machine.lives("box-web-1")
    before = settled(launcher, machine)
    change(machine, "1")
    machine.up()
    after = settled(launcher, machine)
    assert after not in ("", before)
    launcher.until(lambda: launcher.told() == {"runs": "latest", "image": after, "why": ""})
    assert machine.lives("box-web-1") == web


def test_a_rollback_outlives_a_boot(launcher: Launcher, machine: Machine) -> None:
    latest = settled(launcher, machine)
    machine.dom0("rollback")
    chosen = settled(launcher, machine)
    assert chosen != latest
    launcher.reboot()
    assert settled(launcher, machine) == chosen
    launcher.until_tells("chosen")
    assert machine.image_id("dom0:latest") == latest


def test_a_change_that_has_failed_does_not_come_back_at_a_boot(launcher: Launcher, machine: Machine) -> None:
    good = settled(launcher, machine)
    machine.write(COMPOSE.replace('["sleep", "100000"]', '["false"]', 1))
    changed = machine.up(check=False)
    assert changed.code != 0, (changed.stdout, machine.status()["services"], machine.dom0("events").stdout)
    assert settled(launcher, machine) == good
    for _ in range(2):
        launcher.reboot()
        machine.until(lambda: machine.status()["dom0_image"] == good)
        assert settled(launcher, machine) == good
    assert machine.image_id("dom0:latest") == good
    launcher.until_tells("latest")


def test_a_machine_that_was_taken_down_stays_down_until_it_is_brought_up(launcher: Launcher, machine: Machine) -> None:
    change(machine, "2")
    machine.up()
    settled(launcher, machine)
    machine.dom0("down")
    launcher.until_tells("stopped")
    assert launcher.roots() == {}
    assert "a person stopped it" in machine.dom0("status", check=False).stderr
    machine.up()
    settled(launcher, machine)


@pytest.mark.parametrize("seed", range(6))
def test_a_replacement_that_is_cut_off_anywhere_ends_with_one_root_container(
    launcher: Launcher, machine: Machine, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 -- a test's choice
    old = settled(launcher, machine)
    change(machine, f"seed {seed}")
    new = machine.build()
    up = machine.begin("up", str(machine.project))
    time.sleep(chance.uniform(0.5, 8.0))
    launcher.reboot(crash=chance.random() < 0.7)
    up.kill()
    up.wait(30)
    assert settled(launcher, machine) in (old, new)


def test_nothing_else_was_touched(launcher: Launcher, foreign: Foreign) -> None:
    with pytest.raises(CommandFailed):
        launcher.host.docker("container", "inspect", "dom0-handover")
    assert foreign.has_restarted_only()
