"""The run contract of the root container: typed by hand it gives the machine that `dom0 up` gives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dom0.testing.foreign import Foreign
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0:
      ssh: {}
      home: {}
      rollout: {monitor: 1s, timeout: 60s}
    services:
      web:
        image: busybox:test
        command: ["httpd", "-f", "-p", "80", "-h", "/site"]
        init: true
        volumes: ["./site:/site:ro", "./data:/data"]
      job:
        image: busybox:test
        command: ["sh", "-c", "echo done; echo written > /kept/by-the-job"]
        volumes: ["kept:/kept"]
    volumes: {kept: {}}
    """
CONTAINERS = ("dom0", "dom0-sshd", "home-volume", "box-web-1", "box-job-1")


@pytest.fixture(scope="module")
def by_hand(machine: Machine, foreign: Foreign) -> Machine:
    """The machine, built and then started by the documented `docker run`."""
    machine.write(COMPOSE, {"site/index.html": "hello from the project\n"})
    machine.build()
    machine.run_by_hand()
    machine.until_good()
    return machine


def ground_plan(machine: Machine) -> dict[str, Any]:
    """What the Engine knows of the containers, without what is new with each one."""
    return {name: _without_identity(machine, name) for name in CONTAINERS}


def _without_identity(machine: Machine, name: str) -> Any:
    document = machine.container(name)
    text = json.dumps({key: document[key] for key in ("Name", "Image", "Config", "HostConfig", "Mounts")})
    text = text.replace(document["Id"][:12], "ID")  # the default host name
    found = json.loads(text)
    for label in ("dom0.generation", "dom0.create"):
        found["Config"]["Labels"].pop(label, None)
    return _in_one_form(found)


def _in_one_form(value: Any) -> Any:
    """`docker run` writes empty lists where the API's default is none, and binds in an order of its own."""
    if isinstance(value, dict):
        return {key: _in_one_form(inner) for key, inner in value.items() if inner not in (None, [], {}, "")}
    if isinstance(value, list):
        return sorted((_in_one_form(inner) for inner in value), key=str)
    return value


def test_the_services_run(by_hand: Machine) -> None:
    states = by_hand.containers()
    assert {name: states[name] for name in CONTAINERS} == {
        "dom0": "running",
        "dom0-sshd": "running",
        "home-volume": "created",
        "box-web-1": "running",
        "box-job-1": "exited",
    }


def test_docker_compose_sees_the_services_and_what_they_said(by_hand: Machine) -> None:
    listed = by_hand.docker("compose", "--project-name", "box", "ps", "--all", "--format", "{{.Service}} {{.State}}")
    assert {"web running", "job exited"} <= set(listed.stdout.splitlines())
    assert "done" in by_hand.docker("compose", "--project-name", "box", "logs", "job").stdout


def test_a_file_of_the_project_is_at_one_path_inside_dom0_and_on_the_host(by_hand: Machine) -> None:
    path = "/var/lib/dom0/project/site/index.html"
    expected = "hello from the project\n"
    assert by_hand.host.path(path).read_text() == expected
    assert by_hand.docker("exec", "dom0", "cat", path).stdout == expected
    served = by_hand.docker("run", "--rm", "--network", "box_default", "busybox:test", "wget", "-qO-", "http://web/")
    assert served.stdout == expected


def test_what_a_service_writes_into_its_relative_bind_lies_in_the_project_on_the_host(by_hand: Machine) -> None:
    by_hand.docker("exec", "box-web-1", "sh", "-c", "echo data > /data/file")
    assert by_hand.host.path("/var/lib/dom0/project/data/file").read_text() == "data\n"


def test_dom0_up_makes_the_same_machine(by_hand: Machine, foreign: Foreign) -> None:
    """But for the label by which the agent knows that a command is about to say what it wants."""
    typed = ground_plan(by_hand)
    by_hand.dom0("down")
    by_hand.up()
    by_hand.until_good()
    made = ground_plan(by_hand)
    assert made["dom0"]["Config"]["Labels"].pop("dom0.awaits") == "up"
    assert made == typed
    assert foreign.is_untouched()


def test_dom0_up_recognises_the_machine_that_was_started_by_hand(by_hand: Machine) -> None:
    by_hand.dom0("down")
    by_hand.run_by_hand()
    by_hand.until_good()
    before = by_hand.lives(*CONTAINERS)
    by_hand.up()
    assert by_hand.lives(*CONTAINERS) == before
