"""A whole dom0 in the scope of another one: a guest's machine that the owner's runs as one of its services."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from dom0.testing import api
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

GUEST = """
    name: box  # as its owner's, who has a web too
    x-dom0:
      rollout: {{monitor: 1s, timeout: 90s}}
      ssh: {{port: 2022}}
      home: {{}}
    services:
      db:
        image: busybox:test
        command: [sleep, "100000"]
        init: true
        healthcheck: {{test: [CMD, "true"], interval: 1s}}
        volumes: ["data:/data"]
      web:
        image: busybox:test
        command: [sleep, "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
        volumes: ["./conf:/conf"]
        depends_on: {{db: {{condition: service_healthy}}}}
      team:
        image: dom0-base
        entrypoint: [sleep, "100000"]
        init: true
        healthcheck: {{disable: true}}
        x-dom0:
          orchestrator:
            grants: {{images: {{use: ["*"]}}, containers: 3, capabilities: [NET_ADMIN], ports: ["8080"], paths: [/srv]}}
    volumes: {{data: {{}}}}
    """
OWNER = """
    name: box
    x-dom0:
      rollout: {monitor: 1s, timeout: 120s}
    services:
      web:
        image: busybox:test
        command: [sleep, "100000"]
        init: true
      guest:
        image: guest/dom0:1
        x-dom0: {orchestrator: {grants: {images: {use: [busybox, dom0-base]}, ports: ["2022"]}}}
    """
OF_GUEST = ("dom0-sshd", "home-volume", "dom0-sockets", "dom0-socket-team")


@pytest.fixture(scope="module")
def guest(session_host: Host, chain_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The guest's project, built as its image."""
    images = api.images(session_host.socket)
    guest = Machine(session_host, tmp_path_factory.mktemp("guest"))
    guest.write(GUEST.format(version="1"), {"conf/default": "1"})
    guest.build(tag="guest/dom0:1")
    yield guest
    session_host.clean(keep=images)


@pytest.fixture(scope="module")
def machine(guest: Machine, session_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(session_host, tmp_path_factory.mktemp("project"))
    machine.write(OWNER)
    machine.up()
    return machine


def inside(machine: Machine, *command: str) -> str:
    return machine.docker("exec", "guest.dom0", *command).stdout


def status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inside(machine, "dom0", "status", "--json"))
    return found


def test_both_machines_are_well_and_each_sees_its_own(machine: Machine) -> None:
    machine.until(lambda: (status(machine)["generation"] or {}).get("outcome") == "good")
    assert {one["service"] for one in status(machine)["services"]} == {"db", "web", "team", *OF_GUEST}
    assert (machine.status()["problems"], status(machine)["problems"]) == ([], [])
    assert machine.containers().keys() >= {
        "guest.box-db-1",
        "guest.box-web-1",
        "box-web-1",
        "guest.dom0",
        "guest.dom0-sshd",
    }
    (root,) = json.loads(inside(machine, "dom0", "tree", "--json"))
    assert (root["name"], root["role"]) == ("dom0", "root")
    assert {child["service"] for child in root["children"]} == {"db", "web", "team", *OF_GUEST}
    (owner,) = json.loads(machine.dom0("tree", "--json").stdout)
    assert {child["name"] for child in owner["children"]} == {
        "box-web-1",
        "guest.dom0",
        "dom0-socket-guest",
        "dom0-sockets",
    }


def test_the_guests_files_lie_in_its_own_directory(machine: Machine) -> None:
    machine.docker("exec", "guest.box-web-1", "sh", "-c", "echo mine >/conf/written")
    assert inside(machine, "cat", "/var/lib/dom0/project/conf/written") == "mine\n"
    assert not machine.host.path("/var/lib/dom0/project/conf/written").exists()


def test_a_team_in_the_guests_machine_has_a_scope_inside_its_scope(machine: Machine) -> None:
    argv = ["docker", "exec", "guest.team.dom0", "docker", "run", "--detach", "--init", "--name", "web", "busybox:test"]
    machine.host.run([*argv, "sleep", "100000"])
    seen = ("docker", "ps", "--format", "{{.Names}}")
    assert set(machine.host.run(["docker", "exec", "guest.team.dom0", *seen]).stdout.split()) == {"dom0", "web"}
    assert {"team.dom0", "team.web", "box-web-1"} <= set(inside(machine, *seen).split())
    assert machine.container("guest.team.web")["Config"]["Labels"]["dom0.scope"] == "/guest/team"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--cap-add", "NET_ADMIN", "busybox:test"], "capabilities: [NET_ADMIN]"),
        (["--publish", "8080:80", "busybox:test"], 'ports: ["8080/tcp"]'),
        (["--volume", "/srv:/srv", "busybox:test"], 'paths: ["/srv"]'),
        (["extra:1"], "No such image: extra:1"),
    ],
)
def test_what_the_guest_grants_a_team_and_was_not_granted_itself_the_team_has_not(
    machine: Machine, asked: list[str], said: str
) -> None:
    machine.docker("tag", "busybox:test", "extra:1")
    before = set(machine.containers())
    argv = ["docker", "exec", "guest.team.dom0", "docker", "run", "--pull", "never", *asked]
    refused = machine.host.run(argv, check=False)
    assert refused.code != 0
    assert said in refused.stderr
    assert set(machine.containers()) == before


def test_the_guest_repairs_its_own(machine: Machine) -> None:
    before = machine.container("guest.box-web-1")["Id"]
    machine.docker("rm", "--force", "guest.box-web-1")
    machine.until_running("guest.box-web-1", not_id=before)


def test_the_guest_goes_on_when_its_root_container_or_its_owners_starts_again(machine: Machine) -> None:
    lives = machine.lives("guest.box-db-1", "guest.box-web-1")
    machine.docker("restart", "guest.dom0")
    machine.docker("restart", "dom0")
    machine.until(lambda: status(machine)["converged"])
    machine.until(lambda: machine.status()["converged"])
    assert machine.lives("guest.box-db-1", "guest.box-web-1") == lives


def test_the_guest_cannot_take_its_machine_down(machine: Machine) -> None:
    said = machine.host.run(["docker", "exec", "guest.dom0", "dom0", "down"], check=False)
    assert said.code == 2
    assert "service of another machine" in said.stderr
    assert status(machine)["converged"]


def test_another_image_of_the_guest_is_another_generation_of_it(guest: Machine, machine: Machine) -> None:
    db = machine.lives("guest.box-db-1")
    guest.write(GUEST.format(version="2"))
    guest.build(tag="guest/dom0:2")
    machine.write(OWNER.replace("guest/dom0:1", "guest/dom0:2"))
    machine.up()
    machine.until(lambda: machine.variable("guest.box-web-1", "VERSION") == "2")
    assert machine.lives("guest.box-db-1") == db


def test_when_its_owner_was_down_the_guest_starts_its_own_again(machine: Machine) -> None:
    data = machine.docker("exec", "guest.box-db-1", "sh", "-c", "echo kept >/data/is && cat /data/is").stdout
    machine.dom0("down")
    assert {state for name, state in machine.containers().items() if name.startswith("guest.")} == {"exited", "created"}
    machine.up()
    machine.until(lambda: status(machine)["converged"] and not status(machine)["problems"])
    machine.until_running("guest.box-web-1")
    assert machine.docker("exec", "guest.box-db-1", "cat", "/data/is").stdout == data


def test_a_rollback_in_the_guest_ends_and_leaves_its_root_container(machine: Machine) -> None:
    before = machine.lives("guest.dom0")
    inside(machine, "dom0", "rollback")
    machine.until(lambda: machine.variable("guest.box-web-1", "VERSION") == "1")
    assert machine.lives("guest.dom0") == before


def test_the_guest_takes_up_another_project_and_leaves_its_root_container(machine: Machine) -> None:
    before = machine.lives("guest.dom0", "guest.box-db-1")
    write = "mkdir -p /root/other/conf && cat >/root/other/compose.yaml"
    project = textwrap.dedent(GUEST.format(version="3")).encode()
    machine.host.run(["docker", "exec", "--interactive", "guest.dom0", "sh", "-c", write], stdin=project)
    plan = machine.docker("exec", "guest.dom0", "dom0", "plan", "/root/other", check=False).stdout
    assert "box-web-1" in plan
    assert "its image changes" not in plan
    said = machine.docker("exec", "guest.dom0", "dom0", "up", "--wait", "/root/other")
    assert "new image" not in said.stderr
    assert machine.variable("guest.box-web-1", "VERSION") == "3"
    assert machine.lives("guest.dom0", "guest.box-db-1") == before
