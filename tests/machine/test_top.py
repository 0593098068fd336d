"""`dom0 top` on a terminal beside a real machine: what it says while agent and Engine are away, and afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dom0.testing.machines import Machine
from dom0.testing.terminal import Terminal

COMPOSE = """
    name: box
    x-dom0: {rollout: {monitor: 1s, timeout: 60s}}
    services:
      busy:
        image: busybox:test
        command: ["sh", "-c", "while :; do :; done"]
        init: true
        cpus: 0.2
        ports: ["8080:80"]
      idle:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        healthcheck: {test: ["CMD", "true"], interval: 1s}
    """
OLD = "not as it is now but "


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(COMPOSE)
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture
def top(box: Machine) -> Iterator[Terminal]:
    """On a terminal like the console of the base OS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "DOM0_"))}
    here = {"DOM0_RUN": str(box.host.path("/run/dom0")), "DOCKER_HOST": box.host.docker_host}
    with Terminal(["top"], kept | here | {"TERM": "linux", "LC_ALL": "C"}, columns=80, lines=25) as terminal:
        yield terminal
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()


def row(shown: str, service: str) -> list[str]:
    return next((line.split() for line in shown.splitlines() if line.startswith(f"{service} ")), [])


def is_live(shown: str) -> bool:
    return "box: as desired" in shown and OLD not in shown and "%" in "".join(row(shown, "busy"))


def test_it_shows_what_services_use_and_what_happened(box: Machine, top: Terminal) -> None:
    shown = top.until(is_live)
    _, phase, processor, memory, _, port = row(shown, "busy")
    assert (phase, port) == ("ready", "8080/tcp")
    assert float(processor.removesuffix("%")) > 0.5
    assert memory.endswith("B")
    assert row(shown, "idle")[1:3] == ["ready", "healthy"]
    assert "generation 1" in shown
    box.docker("kill", "box-idle-1")
    top.until(lambda shown: "start box-idle-1" in shown)


def test_what_it_shows_while_no_agent_answers_is_told_to_be_old_and_ends_with_it(box: Machine, top: Terminal) -> None:
    top.until(is_live)
    box.docker("pause", "dom0")
    assert row(top.until(OLD), "busy")
    box.docker("unpause", "dom0")
    top.until(is_live)
    box.docker("kill", "dom0")
    top.until(OLD)
    box.docker("start", "dom0")
    top.until(is_live)


def test_an_engine_that_is_away_is_told_and_ends_with_it(box: Machine, top: Terminal) -> None:
    top.until(is_live)
    box.host.stop_engine()
    top.until(lambda shown: OLD in shown or "below is what was seen last" in shown)
    box.host.start_engine()
    top.until(is_live)


def test_an_engine_that_hangs_is_told_and_hides_nothing_that_the_agent_knows(box: Machine, top: Terminal) -> None:
    top.until(is_live)
    engine = box.host.run(["pidof", "dockerd"]).stdout.split()
    box.host.run(["kill", "-STOP", *engine])
    try:
        shown = top.until("the Docker Engine does not say what 2 of 2 containers use")
        assert OLD not in shown
        assert "generation 1" in shown
        text = box.dom0("top").stdout
        assert "the Docker Engine does not say what 2 of 2 containers use" in text
        assert "generation 1" in text
    finally:
        box.host.run(["kill", "-CONT", *engine])
    top.until(is_live)


def test_as_text_and_for_programs_it_is_whole(box: Machine) -> None:
    shown = box.dom0("top").stdout
    assert is_live(shown)
    assert "\x1b" not in shown
    assert '"machine_percent"' in box.dom0("top", "--json").stdout
