"""The examples, as a person would use them: a machine from a fresh directory, and one with all there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0.images import recipe
from dom0.testing import api, chain
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine


@pytest.fixture(scope="module")
def hello(session_host: Host, chain_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that `dom0 init` and `dom0 up` made. The tests below go on where the one before ended."""
    images = api.images(session_host.socket)
    machine = Machine(session_host, tmp_path_factory.mktemp("hello"))
    machine.dom0("init")
    machine.dom0("up", "--wait")
    yield machine
    session_host.clean(keep=images)


def edit(machine: Machine, old: str, new: str) -> None:
    file = machine.project / "compose.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def project(machine: Machine) -> str:
    return str(machine.status()["project"])


def clock(machine: Machine) -> str:
    return f"{project(machine)}-clock-1"


def plan(machine: Machine) -> dict[str, str]:
    """What `dom0 plan` says would be done: name -> action."""
    said = machine.dom0("plan", "--json", check=False)
    changes = {change["name"]: change["action"] for change in json.loads(said.stdout)}
    assert said.code == (10 if changes else 0)
    return changes


def test_a_project_of_init_runs_as_it_is(hello: Machine) -> None:
    status = json.loads(hello.dom0("status", "--json").stdout)
    assert [(one["service"], one["phase"]) for one in status["services"]] == [("clock", "ready")]
    assert status["converged"] is True
    hello.until(lambda: "UTC" in hello.dom0("logs", "clock").stdout)
    hello.until(lambda: "generation 1: good" in hello.dom0("logs", "dom0").stdout)
    assert [line.split()[0] for line in hello.dom0("tree").stdout.splitlines()] == ["dom0", "└──"]
    assert hello.dom0("exec", "clock", "cat", "/etc/hostname").stdout.strip() in hello.container(clock(hello))["Id"]


def test_up_again_and_plan_find_nothing_to_do(hello: Machine) -> None:
    before = hello.lives("dom0", clock(hello))
    assert "nothing to do" in hello.dom0("up", "--wait").stdout
    assert plan(hello) == {}
    assert hello.lives("dom0", clock(hello)) == before


def test_a_service_that_a_person_stopped_is_something_to_do(hello: Machine) -> None:
    hello.docker("stop", "--time", "1", clock(hello))
    hello.until(lambda: hello.status()["services"][0]["phase"] == "stopped")
    assert plan(hello) == {clock(hello): "start"}
    hello.dom0("up", "--wait")
    assert hello.container(clock(hello))["State"]["Running"]


def test_an_edit_is_planned_as_it_is_done(hello: Machine) -> None:
    before = hello.lives(clock(hello))
    edit(hello, "sleep 5", "sleep 4")
    assert plan(hello) == {"dom0:latest": "build", "dom0": "replace", clock(hello): "replace"}
    assert hello.lives(clock(hello)) == before
    hello.dom0("up", "--wait")
    assert "sleep 4" in " ".join(hello.container(clock(hello))["Config"]["Cmd"])
    assert plan(hello) == {}


def test_rollback_brings_the_generation_before_back(hello: Machine) -> None:
    numbers = [generation["number"] for generation in hello.history()]
    said = hello.dom0("rollback")
    assert said.stdout.splitlines()[-1] == f"generation {numbers[1]} is good"
    assert "sleep 5" in " ".join(hello.container(clock(hello))["Config"]["Cmd"])


def test_what_is_tried_goes_back_by_itself(hello: Machine) -> None:
    hello.dom0("up", "--wait")
    edit(hello, "sleep 4", "sleep 3")
    tried = hello.dom0("try", "--for", "12s")
    assert "unless you keep it: dom0 confirm" in tried.stdout
    hello.until(lambda: "sleep 4" in " ".join(hello.container(clock(hello))["Config"]["Cmd"]))
    hello.until_good()


def test_what_is_tried_and_confirmed_stays(hello: Machine) -> None:
    edit(hello, "sleep 3", "sleep 2")
    hello.dom0("try", "--for", "10m")
    hello.dom0("confirm")
    assert hello.until_good()["generation"]["trial_until"] == 0.0
    assert "sleep 2" in " ".join(hello.container(clock(hello))["Config"]["Cmd"])


def test_down_leaves_nothing_running_and_up_brings_it_back(hello: Machine) -> None:
    name = clock(hello)
    hello.dom0("down")
    assert hello.containers() == {}
    assert hello.dom0("status", check=False).code == 1
    hello.dom0("up", "--wait")
    assert hello.containers() == {"dom0": "running", name: "running"}


def visits(machine: Machine) -> int:
    """0 while nobody has come, or redis does not answer yet."""
    said = machine.dom0("exec", "redis", "redis-cli", "get", "visits", check=False).stdout.strip()
    return int(said) if said.isdecimal() else 0


def test_mybox_has_a_login_a_home_redis_a_job_that_ran_and_a_visitor(
    fresh_host: Callable[..., Host], tmp_path: Path
) -> None:
    host = fresh_host(outside=True)
    chain.provide(host)
    machine = Machine(host, recipe.examples() / "mybox")
    machine.dom0("up", "--wait", timeout=600)
    phases = {one["service"]: one["phase"] for one in machine.status()["services"]}
    assert phases == {
        "dom0-sshd": "ready",
        "home-volume": "data",
        "prepare": "completed",
        "redis": "ready",
        "visitor": "ready",
    }
    machine.until(lambda: visits(machine) > 1)
    assert machine.dom0("dev", "--", "id", "-u").stdout == "1000\n"
    started = machine.lives("mybox-prepare-1")
    machine.docker("rm", "--force", "mybox-redis-1")
    machine.until(lambda: machine.dom0("exec", "redis", "redis-cli", "ping", check=False).stdout == "PONG\n")
    machine.until(lambda: visits(machine) > 2)
    machine.until_good()
    assert machine.lives("mybox-prepare-1") == started
    assert "nothing to do" in machine.dom0("up", "--wait").stdout
