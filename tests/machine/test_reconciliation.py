"""What persons and accidents do to a running machine is put right, and what persons want is respected."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from dom0.testing.foreign import Foreign
from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {{home: {{}}, rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web:
        image: busybox:test
        command: ["httpd", "-f", "-p", "80", "-h", "/site"]
        init: true
        networks: {{front: {{aliases: [site]}}, back: {{}}}}
        volumes: ["./site:/site:ro"]
        environment: {{VERSION: "{version}"}}
        healthcheck: {{test: [CMD, wget, "-qO-", "http://127.0.0.1/"], interval: 5s}}
        deploy: {{resources: {{limits: {{memory: 64M}}}}}}
      reader:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        networks: [back]
        configs: [{{source: inline, target: /inline}}, {{source: file, target: /file}}]
        secrets: [word]
      job:
        image: busybox:test
        command: ["sh", "-c", "echo ran >> /kept/runs"]
        networks: [back]
        volumes: ["kept:/kept"]
    networks: {{front: {{}}, back: {{}}}}
    volumes: {{kept: {{}}}}
    configs:
      inline: {{content: "{inline}"}}
      file: {{file: ./conf/file}}
    secrets:
      word: {{file: ./conf/word}}
    """
WEB, READER, JOB = "box-web-1", "box-reader-1", "box-job-1"


@pytest.fixture(scope="module")
def box(machine: Machine, foreign: Foreign) -> Machine:
    write(machine)
    machine.up()
    machine.until_good()
    return machine


@pytest.fixture(autouse=True)
def foreign_things_are_untouched(foreign: Foreign) -> Iterator[None]:
    yield
    assert foreign.is_untouched()


def write(machine: Machine, *, version: str = "1", inline: str = "one", file: str = "one", word: str = "one") -> None:
    files = {"site/index.html": "it works\n", "conf/file": file, "conf/word": word}
    machine.write(COMPOSE.format(version=version, inline=inline), files)


def networks(machine: Machine, name: str) -> set[str]:
    """Those that it is connected to, by ID."""
    found: dict[str, Any] = machine.container(name)["NetworkSettings"]["Networks"]
    return {endpoint["NetworkID"] for endpoint in found.values()}


def network_id(machine: Machine, name: str) -> str:
    return str(machine.ask(f"/networks/{name}")["Id"])


def runs_of_the_job(machine: Machine) -> int:
    said = machine.docker("run", "--rm", "--volume", "box_kept:/kept", "busybox:test", "cat", "/kept/runs")
    return len(said.stdout.splitlines())


@pytest.mark.parametrize("command", [("kill",), ("rm", "--force")])
def test_a_container_that_was_killed_or_removed_runs_again(box: Machine, command: tuple[str, ...]) -> None:
    others, before = box.lives(READER), box.container(WEB)["State"]["StartedAt"]
    box.docker(*command, WEB)
    box.until(lambda: box.until_running(WEB)["State"]["StartedAt"] != before)
    box.until_good()
    assert box.lives(READER) == others


def test_a_renamed_container_gets_its_name_back_and_runs_on(box: Machine) -> None:
    before = box.lives(WEB)
    box.docker("rename", WEB, "something-else")
    box.until(lambda: box.lives(WEB) == before)
    assert "something-else" not in box.containers()


def test_limits_and_restart_policy_that_were_changed_are_set_back(box: Machine) -> None:
    before, host = box.lives(WEB), box.container(WEB)["HostConfig"]
    box.docker("update", "--memory", "32m", "--memory-swap", "32m", "--restart", "always", WEB)
    keys = ("Memory", "MemorySwap", "RestartPolicy")
    wanted = {key: host[key] for key in keys}
    box.until(lambda: {key: box.container(WEB)["HostConfig"][key] for key in keys} == wanted)
    assert box.lives(WEB) == before


def test_a_disconnected_network_is_connected_again_with_its_aliases(box: Machine) -> None:
    before = box.lives(WEB)
    box.docker("network", "disconnect", "box_front", WEB)
    box.until(lambda: network_id(box, "box_front") in networks(box, WEB))
    assert "site" in box.container(WEB)["NetworkSettings"]["Networks"]["box_front"]["Aliases"]
    assert box.lives(WEB) == before


def test_a_removed_network_is_made_again_and_its_containers_are_connected(box: Machine) -> None:
    before, old = box.lives(WEB, READER), network_id(box, "box_back")
    for name in (WEB, READER):
        box.docker("network", "disconnect", "--force", "box_back", name, check=False)  # dom0 may be faster
    box.docker("network", "rm", "box_back", check=False)
    box.until(lambda: network_id(box, "box_back") in networks(box, WEB) & networks(box, READER))
    new = network_id(box, "box_back")
    box.until_good()
    assert box.lives(WEB, READER) == before
    assert new == old or old not in networks(box, WEB)


def test_a_container_in_the_name_of_ours_that_dom0_did_not_make_is_left_alone_and_told_of(box: Machine) -> None:
    before = box.lives(READER)
    box.docker("stop", "--time", "1", "dom0")
    box.docker("rename", READER, "moved-away")
    box.docker("run", "--detach", "--init", "--name", READER, "busybox:test", "sleep", "100000")
    box.docker("start", "dom0")
    problem = box.until(lambda: [p for p in box.status()["problems"] if p["code"] == "name-taken"])
    assert READER in problem[0]["title"]
    assert box.lives("moved-away")["moved-away"] == before[READER]
    box.docker("rm", "--force", READER)
    box.until(lambda: box.lives(READER) == before)
    box.until(lambda: box.status()["problems"] == [])


def test_what_a_person_stopped_stays_stopped_until_dom0_up(box: Machine) -> None:
    box.docker("stop", "--time", "1", READER)
    box.until(lambda: phase(box, "reader") == "stopped")
    box.docker("restart", "dom0")
    box.docker("kill", WEB)  # the agent has work to do, and still leaves the other one alone
    box.until_running(WEB)
    box.until(lambda: phase(box, "web") == "ready")
    assert phase(box, "reader") == "stopped"
    assert not box.container(READER)["State"]["Running"]
    box.up()
    assert box.container(READER)["State"]["Running"]


def phase(machine: Machine, service: str) -> str:
    """Empty while an agent that has just started knows of no service yet."""
    return next((str(one["phase"]) for one in machine.status()["services"] if one["service"] == service), "")


def test_what_a_person_starts_again_counts_as_running(box: Machine) -> None:
    box.docker("stop", "--time", "1", READER)
    box.until(lambda: phase(box, "reader") == "stopped")
    box.docker("start", READER)
    box.until(lambda: phase(box, "reader") == "ready")


def test_a_job_that_has_run_is_not_run_again_even_if_its_container_is_gone(box: Machine) -> None:
    assert runs_of_the_job(box) == 1
    box.docker("rm", JOB)
    box.docker("container", "prune", "--force")
    box.docker("restart", "dom0")
    box.until_good()
    box.up()
    assert phase(box, "job") == "completed"
    box.docker("volume", "inspect", "box_kept")
    assert runs_of_the_job(box) == 1
    assert JOB not in box.containers()


def test_pruning_containers_leaves_the_home_usable(box: Machine) -> None:
    """Docker takes a container that was never started for a leftover."""
    box.docker("container", "prune", "--force")
    box.until(lambda: box.containers().get("home-volume") == "created")


@pytest.mark.parametrize(("kind", "path"), [("inline", "/inline"), ("file", "/file"), ("word", "/run/secrets/word")])
def test_changed_content_of_a_config_or_secret_comes_with_a_new_container(box: Machine, kind: str, path: str) -> None:
    before, web = box.container(READER)["Id"], box.lives(WEB)
    write(box, **{kind: "another text"})
    box.up()
    assert box.docker("exec", READER, "cat", path).stdout == "another text"
    assert box.container(READER)["Id"] != before
    assert box.lives(WEB) == web


# What curl, Go and Python do: look the name up, and try each of its addresses.
ASK = """
    ask() {
        for address in $(nslookup -type=a site | sed -n '/^Name:/,$ s/^Address: //p'); do
            wget -q -T 20 -O /dev/null http://$address/ && return
        done
        false
    }
    while :; do ask && echo answered || echo REFUSED; done
    """


def test_a_service_behind_an_alias_is_replaced_without_a_refused_connection(box: Machine) -> None:
    before = box.container(WEB)["Id"]
    run = ["run", "--rm", "--init", "--network", "box_front", "--name", "asking", "busybox:test"]
    asking = box.host.popen([*box.docker_command, *run, "sh", "-c", ASK], stdout=subprocess.PIPE)
    with asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"answered\n"
        write(box, version="2")
        box.up()
        assert box.until_running(WEB)["Id"] != before
        box.docker("kill", "asking")
        answers = asking.stdout.read().decode().split()
        asking.wait(PATIENCE)
    assert answers.count("REFUSED") == 0, f"{answers.count('REFUSED')} of {len(answers)}"
    assert answers.count("answered") > 10


CRASHING = """
    name: box
    x-dom0: {{home: {{}}, rollout: {{monitor: 1s, timeout: 60s}}}}
    services:
      web: {{image: "busybox:test", command: [sleep, "100000"], init: true}}
      looping:
        image: busybox:test
        command: {command}
        restart: {restart}
        volumes: ["kept:/kept"]
    volumes: {{kept: {{}}}}
    """
LOOPING = "box-looping-1"
SLEEPING = '["sleep", "100000"]'
UNTIL_TOLD = '[sh, -c, "while [ ! -e /kept/crash ]; do sleep 0.1; done; exit 7"]'


@pytest.fixture(params=["always", "no"])
def restart(box: Machine, request: pytest.FixtureRequest) -> str:
    """A service ends by itself from now on, with this restart policy; its generation was good."""
    policy = f'"{request.param}"'
    box.docker("run", "--rm", "--volume", "box_kept:/kept", "busybox:test", "rm", "-f", "/kept/crash")
    box.write(CRASHING.format(command=UNTIL_TOLD, restart=policy))
    box.up()
    box.docker("exec", LOOPING, "touch", "/kept/crash")
    box.until(lambda: box.container(LOOPING)["State"]["ExitCode"] == 7)
    return policy


def test_a_service_that_ends_again_and_again_can_be_replaced(box: Machine, restart: str) -> None:
    web = box.lives(WEB)
    box.write(CRASHING.format(command=SLEEPING, restart=restart))
    box.up()
    assert phase(box, "looping") == "ready"
    assert box.status()["problems"] == []
    assert box.lives(WEB) == web


@pytest.mark.parametrize("restart", ["no"], indirect=True)
def test_a_service_that_ends_too_often_is_given_up_and_told_of_until_it_is_mended(box: Machine, restart: str) -> None:
    def given_up() -> bool:
        found = phase(box, "looping")
        if found == "failed":  # it has ended, the agent knows, and waits before it starts it: that pause is spared
            box.docker("start", LOOPING)
        return found == "crash-loop"

    web = box.lives(WEB)
    box.until(given_up)
    box.until(lambda: not box.container(LOOPING)["State"]["Running"])
    box.until(lambda: "crash-loop" in {problem["code"] for problem in box.status()["problems"]})
    assert "looping keeps exiting" in box.dom0("status", check=False).stdout
    box.write(CRASHING.format(command=SLEEPING, restart=restart))
    box.up()
    assert phase(box, "looping") == "ready"
    assert box.status()["problems"] == []
    assert box.lives(WEB) == web


def test_a_person_who_interrupts_dom0_up_leaves_the_change_to_the_agent(box: Machine) -> None:
    box.write(CRASHING.format(command='["sleep", "4711"]', restart='"no"'))
    up = box.begin("up", str(box.project), stdout=subprocess.PIPE)
    with up:
        assert up.stdout is not None
        for line in up.stdout:
            if b"generation" in line:
                break
        up.send_signal(signal.SIGINT)
        up.wait(PATIENCE)
    box.until(lambda: box.container("box-looping-1")["Config"]["Cmd"] == ["sleep", "4711"])
    box.until_good()
