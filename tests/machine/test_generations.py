"""A generation that is no good goes back by itself; others go back when they are told to, or not confirmed."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{rollout: {{monitor: 1s, timeout: {timeout}}}, pull: {{patience: 1s}}}}
    services:
      steady:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
      web:
        image: {image}
        command: {command}
        init: {init}
        environment: {{VERSION: "{version}"}}
        {more}
    """
SLEEP = '["sleep", "100000"]'
UNHEALTHY = "healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1}"
WEB = "box-web-1"


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    write(machine, "good")
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture(autouse=True)
def steady(box: Machine) -> Iterator[None]:
    """Whatever a test does, this service goes on."""
    before = box.lives("box-steady-1")
    yield
    assert box.lives("box-steady-1") == before


@pytest.fixture
def taken_port(box: Machine) -> Iterator[str]:
    """A port of the host that somebody else listens on."""
    server = box.host.popen(["busybox", "httpd", "-f", "-p", "8099", "-h", "/"])
    box.until(lambda: box.host.run(["busybox", "nc", "-w", "5", "127.0.0.1", "8099"], check=False).code == 0)
    yield "ports: ['8099:80']"
    server.send_signal(signal.SIGKILL)
    server.wait(20)


def write(
    machine: Machine,
    version: str,
    *,
    image: str = "busybox:test",
    command: str = SLEEP,
    more: str = "",
    timeout: str = "3m",
) -> None:
    init = "true" if command == SLEEP else "false"  # else a program that is not there is init's to tell
    machine.write(COMPOSE.format(version=version, image=image, command=command, init=init, more=more, timeout=timeout))


def comes_back(box: Machine, cause: str) -> None:
    """`up` of the project as it is written fails with `cause`; the container that ran before runs again."""
    before, number = box.container(WEB), box.status()["generation"]["number"]
    failed = box.up(check=False)
    assert failed.code == 5, failed
    assert cause in failed.stderr
    back = box.until_good(number)
    assert back["generation"]["reason"] == ""
    assert box.container(WEB)["Id"] == before["Id"]
    assert box.container(WEB)["State"]["Running"]
    newest = box.history()[0]
    assert (newest["outcome"], newest["current"]) == ("failed", False)
    assert cause in newest["reason"]
    assert cause in box.dom0("history").stdout
    assert set(box.containers()) == {"dom0", "box-steady-1", WEB}


def test_a_service_that_exits_goes_back(box: Machine) -> None:
    write(box, "exits", command='["sh", "-c", "exit 3"]')
    comes_back(box, "last exit code 3")


def test_a_service_that_becomes_unhealthy_goes_back(box: Machine) -> None:
    write(box, "unhealthy", more=UNHEALTHY)
    comes_back(box, "health check failed and printed nothing")


def test_a_port_that_is_taken_stops_dom0_up_before_anything_changes(box: Machine, taken_port: str) -> None:
    before, generations = box.lives("dom0", WEB), box.history()
    write(box, "port", more=taken_port)
    refused = box.up(check=False)
    assert refused.code == 3, refused
    assert "8099" in refused.stderr
    assert box.lives("dom0", WEB) == before
    assert box.history() == generations


def test_a_service_whose_program_is_not_there_goes_back(box: Machine) -> None:
    write(box, "program", command='["/no/such/program"]')
    comes_back(box, "/no/such/program")


def test_a_service_that_never_becomes_healthy_goes_back_when_its_time_is_over(box: Machine) -> None:
    slow = "healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1000}"
    write(box, "slow", more=slow, timeout="20s")
    comes_back(box, "not ready within 20 s")


def test_an_image_that_is_missing_stops_dom0_up_before_anything_changes(box: Machine) -> None:
    before, generations = box.lives("dom0", WEB), box.history()
    write(box, "image", image="no.such.host.invalid/image:1")
    refused = box.up(check=False)
    assert refused.code == 3, refused
    assert "services.web" in refused.stderr
    assert "no.such.host.invalid/image:1" in refused.stderr
    assert box.lives("dom0", WEB) == before
    assert box.history() == generations


def test_a_failed_generation_is_not_taken_up_again_when_dom0_restarts(box: Machine) -> None:
    write(box, "exits-again", command='["sh", "-c", "exit 4"]')
    comes_back(box, "last exit code 4")
    before = box.history()
    box.docker("restart", "dom0")
    box.until_good()
    assert box.variable(WEB, "VERSION") == "good"
    assert box.history() == before


def test_rollback_goes_to_the_last_good_generation_and_to_any_that_is_named(box: Machine) -> None:
    first = box.status()["generation"]["number"]
    write(box, "better")
    box.up()
    better = box.until_good()["generation"]["number"]
    assert better > first
    box.dom0("rollback")
    box.until_good(first)
    assert box.variable(WEB, "VERSION") == "good"
    box.dom0("rollback", str(better))
    box.until_good(better)
    assert box.variable(WEB, "VERSION") == "better"
    unknown = box.dom0("rollback", "4711", check=False)
    assert unknown.code == 2
    assert "4711" in unknown.stderr


def test_a_rollback_brings_its_own_dom0_image(box: Machine) -> None:
    generation = box.status()["generation"]
    box.until(lambda: box.container("dom0")["Image"] == generation["dom0_image"])


def test_a_trial_that_nobody_confirms_goes_back(box: Machine) -> None:
    before, version = box.container(WEB)["Id"], box.variable(WEB, "VERSION")
    write(box, "trial")
    box.dom0("try", "--for", "5s", str(box.project))
    assert box.variable(WEB, "VERSION") == "trial"
    box.until(lambda: box.status()["generation"]["outcome"] == "good")
    box.until_good()
    assert box.variable(WEB, "VERSION") == version
    assert box.container(WEB)["Id"] == before
    assert "not confirmed" in box.history()[0]["reason"]


@pytest.mark.parametrize("death", ["kill", "stop"])
def test_a_trial_goes_back_also_when_dom0_dies_meanwhile(box: Machine, death: str) -> None:
    version = box.variable(WEB, "VERSION")
    write(box, f"trial-{death}")
    box.dom0("try", "--for", "8s", str(box.project))
    assert box.variable(WEB, "VERSION") == f"trial-{death}"
    if death == "kill":
        box.host.run(["kill", "-9", str(box.container("dom0")["State"]["Pid"])])
    else:
        box.docker("stop", "dom0")
        box.docker("start", "dom0")
    box.until(lambda: box.variable(WEB, "VERSION") == version)
    box.until_good()


def test_a_trial_that_is_confirmed_stays(box: Machine) -> None:
    write(box, "confirmed")
    box.dom0("try", "--for", "10m", str(box.project))
    trial = box.status()["generation"]
    assert trial["outcome"] == "trial"
    box.dom0("confirm")
    stays = box.until_good()["generation"]
    assert (stays["number"], stays["trial_until"]) == (trial["number"], 0.0)
    assert box.variable(WEB, "VERSION") == "confirmed"
    refused = box.dom0("confirm", check=False)
    assert refused.code == 2
    assert "no generation is on trial" in refused.stderr
    box.until(lambda: box.container("dom0")["Image"] == stays["dom0_image"])
