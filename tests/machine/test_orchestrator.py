"""An orchestrator in a project: it starts containers of its own through a socket that shows it nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from dom0.testing import api, browser
from dom0.testing.browser import Browser
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine
from dom0.testing.possible import require
from dom0.testing.web_page import Web

COMPOSE = """
    name: box
    x-dom0:
      rollout: {{monitor: 1s, timeout: 90s}}
    services:
      web:
        image: busybox:test
        command: [sleep, "100000"]
        init: true
      guest:
        image: dom0-base
        entrypoint: [sleep, "100000"]
        init: true
        healthcheck: {{disable: true}}
        environment: {{DOCKER_HOST: "unix:///var/run/docker.sock"}}
        volumes: ["./stack:/stack"]
        x-dom0:
          orchestrator:
            grants: {{images: {{use: [{images}]}}, paths: ["/var/lib/dom0/project/stack:/stack"]}}
    """
ALONE = """
    name: box
    x-dom0:
      rollout: {monitor: 1s, timeout: 90s}
    services:
      web:
        image: busybox:test
        command: [sleep, "100000"]
        init: true
    """
STACK = """
    services:
      web:
        image: busybox:test
        command: [sleep, "100000"]
        init: true
        restart: always
        volumes: ["data:/data", "./config:/config"]
        secrets: [word]
    volumes: {data: {}}
    secrets: {word: {file: word.txt}}
    """
FILES = {"stack/compose.yaml": STACK, "stack/config/default": "as the project says", "stack/word.txt": "secret"}


@pytest.fixture(scope="module")
def machine(session_host: Host, chain_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    images = api.images(session_host.socket)
    machine = Machine(session_host, tmp_path_factory.mktemp("project"))
    machine.docker("tag", "busybox:test", "extra:1")
    machine.write(COMPOSE.format(images="busybox"), FILES)
    machine.up()
    yield machine
    session_host.clean(keep=images)


def inside(machine: Machine, *command: str) -> str:
    return machine.docker("exec", "guest.dom0", *command).stdout


def times_held(machine: Machine) -> int:
    log = machine.docker("logs", "dom0-socket-guest")
    return (log.stdout + log.stderr).count("/guest: its socket is held")


def test_it_sees_itself_and_what_it_starts_and_nothing_of_the_machine(machine: Machine) -> None:
    assert inside(machine, "docker", "ps", "--format", "{{.Names}}").split() == ["dom0"]
    inside(machine, "docker", "compose", "--project-name", "team", "--file", "/stack/compose.yaml", "up", "--detach")
    assert set(inside(machine, "docker", "ps", "--format", "{{.Names}}").split()) == {"dom0", "team-web-1"}
    assert machine.container("guest.team-web-1")["Config"]["Labels"]["dom0.scope"] == "/guest"
    assert "box-web-1" in machine.containers()


def test_its_stack_binds_files_of_its_own_as_it_writes_them(machine: Machine) -> None:
    read = ("cat", "/config/default", "/run/secrets/word")
    assert machine.docker("exec", "guest.team-web-1", *read).stdout == "as the project sayssecret"
    machine.docker("exec", "guest.team-web-1", "sh", "-c", "echo mine >/config/mine")
    assert machine.host.path("/var/lib/dom0/project/stack/config/mine").read_text() == "mine\n"


def test_what_it_was_not_granted_is_refused_with_the_grant_that_would_do(machine: Machine) -> None:
    said = machine.host.run(
        ["docker", "exec", "guest.dom0", "docker", "run", "--cap-add", "NET_ADMIN", "busybox:test"], check=False
    )
    assert "capabilities: [NET_ADMIN]" in said.stderr


def test_what_was_refused_is_in_the_status_of_the_machine(machine: Machine) -> None:
    (problem,) = machine.status()["problems"]
    assert (problem["code"], problem["subject"]) == ("scope-refused", "scope guest")
    assert "capabilities: [NET_ADMIN]" in problem["title"]
    assert problem["hint"] == "dom0 socket log guest"


def test_what_it_was_granted_uses_and_was_refused_is_on_the_page(machine: Machine) -> None:
    require(browser.missing(), "tests of the page")
    shown = json.loads(machine.docker("exec", "dom0", "dom0", "socket", "show", "--json", "guest").stdout)
    with Web(machine) as web, Browser() as page:
        page.look(1440, 900)
        page.open(web.address)
        page.until("document.querySelector('#scopes-link')?.hidden === false")
        page.point("#scopes-link")
        table = page.until_text("containers", "[data-key='guest'] table")
        assert f"containers\t{shown['grants']['containers']}\t{shown['usage']['containers']}" in table
        assert "memory\tno limit" in table
        assert "capabilities: [NET_ADMIN]" in page.text("[data-key='guest'] .events")
        assert "dom0 socket log guest" in page.text("[data-key='guest'] .tools")
        for width, dark in itertools.product((390, 1440), (False, True)):
            page.look(width, 900, dark=dark)
            assert page.run("document.documentElement.scrollWidth <= innerWidth"), (width, dark)
            assert page.pale_texts() == [], (width, dark)
            assert page.violations() == [], (width, dark)
        assert page.problems == []


def test_other_grants_hold_at_once_and_nothing_else_starts_again(machine: Machine) -> None:
    inside(machine, "docker", "run", "--detach", "--init", "--name", "stays", "busybox:test", "sleep", "100000")
    before = machine.lives("guest.dom0", "guest.stays", "box-web-1", "dom0-sockets")
    assert "extra" not in inside(machine, "docker", "images", "--format", "{{.Repository}}").split()
    machine.write(COMPOSE.format(images="busybox, extra"))
    machine.up()
    assert "extra" in inside(machine, "docker", "images", "--format", "{{.Repository}}").split()
    assert machine.lives("guest.dom0", "guest.stays", "box-web-1", "dom0-sockets") == before
    assert machine.status()["problems"] == []


def test_who_asks_while_the_server_is_killed_waits_for_the_next_one(machine: Machine) -> None:
    before = machine.lives("guest.dom0")
    machine.docker("kill", "dom0-socket-guest")
    assert inside(machine, "docker", "version", "--format", "{{.Server.Version}}")
    assert machine.lives("guest.dom0") == before


def test_a_holder_that_was_removed_gets_the_sockets_back_and_nothing_starts_again(machine: Machine) -> None:
    before, held = machine.lives("guest.dom0", "guest.stays"), times_held(machine)
    machine.docker("rm", "--force", "dom0-sockets")
    machine.until(lambda: times_held(machine) > held)
    machine.docker("kill", "dom0-socket-guest")  # the next one asks the new holder
    assert inside(machine, "docker", "version", "--format", "{{.Server.Version}}")
    assert machine.lives("guest.dom0", "guest.stays") == before


def test_where_holder_and_server_have_gone_who_had_their_socket_is_restarted_or_named(machine: Machine) -> None:
    socket = "/var/run/docker.sock:/var/run/docker.sock"
    inside(machine, "docker", "run", "-d", "--init", "--name", "bound", "-v", socket, "busybox:test", "sleep", "100000")
    before = machine.lives("guest.dom0")
    machine.docker("pause", "dom0")
    machine.docker("rm", "--force", "dom0-sockets", "dom0-socket-guest")
    machine.docker("unpause", "dom0")
    machine.until(lambda: machine.lives("guest.dom0") != before)
    (problem,) = machine.until(lambda: [one for one in machine.status()["problems"] if one["code"] == "scope-cut-off"])
    assert problem["hint"] == "docker restart guest.bound"
    assert inside(machine, "docker", "version", "--format", "{{.Server.Version}}")
    machine.docker("restart", "guest.bound")
    machine.until(lambda: not machine.status()["problems"])
    inside(machine, "docker", "rm", "--force", "bound")


def test_a_scope_that_is_stopped_stays_so_with_its_orchestrator(machine: Machine) -> None:
    machine.docker("exec", "dom0", "dom0", "socket", "stop", "guest")

    def phase() -> str:
        return next(str(one["phase"]) for one in machine.status()["services"] if one["service"] == "guest")

    machine.until(lambda: phase() == "stopped")
    assert {machine.containers()[name] for name in ("guest.dom0", "guest.stays")} == {"exited"}
    machine.docker("start", "guest.dom0", "guest.stays", "guest.team-web-1")
    machine.until(lambda: phase() == "ready")


def test_without_the_orchestrator_all_that_it_started_is_stopped_and_stays(machine: Machine) -> None:
    """No restart of the Engine starts it again. What only has such a name runs on."""
    machine.docker("run", "--detach", "--init", "--name", "guest.alike", "busybox:test", "sleep", "100000")
    inside(machine, "docker", "run", "--detach", "--rm", "--init", "--name", "brief", "busybox:test", "sleep", "100000")
    machine.write(ALONE)
    planned = json.loads(machine.dom0("plan", "--json", str(machine.project), check=False).stdout)
    stops = {row["name"] for row in planned if row["action"] == "stop"}
    assert stops == {"guest.stays", "guest.team-web-1", "guest.brief"}
    assert [row["name"] for row in planned if row["action"] == "keep"] == ["guest.team_data"]
    said = machine.up()
    assert "guest is no orchestrator any more" in said.stdout + said.stderr
    assert "volumes that stay: guest.team_data" in said.stdout + said.stderr
    machine.until(
        lambda: not {"guest.dom0", "dom0-socket-guest", "dom0-sockets", "guest.brief"} & machine.containers().keys()
    )
    left = machine.containers()
    assert {name: left[name] for name in ("guest.stays", "guest.team-web-1", "guest.alike")} == {
        "guest.stays": "exited",
        "guest.team-web-1": "exited",
        "guest.alike": "running",
    }
    assert machine.container("guest.team-web-1")["HostConfig"]["RestartPolicy"]["Name"] == "no"
