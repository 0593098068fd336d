"""What `dom0 up` does before the agent's turn: it refuses, or hands over what it has read."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from dom0.testing.machines import Machine

PROJECT = """
    name: box
    x-dom0: {home: {}, rollout: {monitor: 1s, timeout: 60s}}
    services:
      web:
        image: busybox:test
        command: ["sh", "-c", "echo $$WORD; exec sleep 100000"]
        init: true
        env_file: web.env
        environment: {LATER: "${WORD:-none}"}
        ports: ["127.0.0.1:8642:80"]
        volumes: ["./conf:/conf", "kept:/kept"]
        configs: [{source: text, target: /text}]
        secrets: [word]
        healthcheck: {test: ["CMD", "true"], interval: 1m, start_period: 5s}
        mem_limit: 64m
        ulimits: {nofile: {soft: 1000, hard: 2000}}
        depends_on: {once: {condition: service_completed_successfully}}
      once: {image: "busybox:test", command: "true"}
    volumes: {kept: {}}
    configs: {text: {content: "a $${text}\\n"}}
    secrets: {word: {file: ./word}}
    """
FILES = {".env": "WORD=from-env\n", "web.env": "WORD='in # quotes'\n", "word": "secret\n", "conf/app.conf": "one\n"}


def generation(machine: Machine, number: int) -> Any:
    """What the agent aims at in it."""
    path = machine.state / "generations" / str(number) / "generation.json"
    return json.loads(path.read_text())["desired"]


def test_what_the_command_has_read_is_what_the_agent_reads_itself(machine: Machine) -> None:
    """At a cold start, for a change, and without the command."""
    machine.write(PROJECT, FILES)
    machine.build()
    machine.up()
    cold = generation(machine, 1)
    machine.write(PROJECT.replace("64m", "65m"), FILES | {".env": "WORD=other\n", "conf/app.conf": "two\n"})
    machine.up()
    changed = generation(machine, 2)
    assert changed != cold

    forget(machine)
    machine.run_by_hand()
    assert generation(machine, machine.until_good()["generation"]["number"]) == changed
    forget(machine)


def test_what_a_build_has_read_is_what_the_agent_reads_itself(machine: Machine) -> None:
    """At a cold start after it: nobody takes the files out of the image again. The agent, which was here before, finds
    its networks created.
    """
    machine.write(PROJECT.replace("64m", "67m"), FILES)
    machine.up()
    machine.dom0("down")
    machine.write(PROJECT.replace("64m", "68m"), FILES | {"word": "another\n", "conf/app.conf": "two\n"})
    machine.build()
    since = time.time()
    machine.up()
    until = time.time()
    log = machine.docker("events", "--since", f"{since}", "--until", f"{until}", "--filter", "event=archive-path")
    assert log.stdout == ""
    said = machine.docker("logs", "dom0")
    assert "create box-web-1" in said.stdout + said.stderr
    assert "create network" not in said.stdout + said.stderr
    assert "box_default" in networks(machine)
    read = generation(machine, 2)
    forget(machine)
    assert "box_default" not in networks(machine)
    machine.run_by_hand()
    assert generation(machine, machine.until_good()["generation"]["number"]) == read
    forget(machine)


def networks(machine: Machine) -> list[str]:
    return machine.docker("network", "ls", "--format", "{{.Name}}").stdout.split()


def forget(machine: Machine) -> None:
    machine.dom0("down")
    machine.docker("volume", "rm", "box_kept")
    for entry in ("generations", "current", "project"):
        machine.host.run(["rm", "-rf", f"/var/lib/dom0/{entry}"])


def test_a_cold_start_that_is_refused_leaves_neither_root_container_nor_network(machine: Machine) -> None:
    machine.write(PROJECT, FILES)
    machine.build()
    machine.docker(
        "run",
        "--detach",
        "--init",
        "--name",
        "other",
        "--publish",
        "127.0.0.1:8642:80",
        "busybox:test",
        "sleep",
        "1000",
    )
    before = machine.lives("other")
    refused = machine.up(check=False)
    assert refused.code == 3
    assert "8642" in refused.stderr
    assert set(machine.containers()) == {"other"}
    assert "box_default" not in networks(machine)
    assert machine.lives("other") == before
    assert "does not run here" in machine.dom0("status", check=False).stderr
    machine.docker("rm", "--force", "other")


def test_what_people_type_who_know_compose_is_understood(machine: Machine) -> None:
    machine.write(PROJECT, FILES)
    machine.dom0("up", "-d", "--build", str(machine.project))
    started = machine.until_good()["generation"]["number"]
    machine.write(PROJECT.replace("64m", "66m"), FILES)
    for words in (("--build",), ("-d",)):
        machine.dom0("up", *words)
        assert machine.until_good()["generation"]["number"] == started + 1
    assert machine.container("box-web-1")["HostConfig"]["Memory"] == 66 << 20
    forget(machine)


def test_progress_has_one_clock_from_the_build_to_the_hand_over(machine: Machine) -> None:
    machine.write(PROJECT, FILES)
    machine.up()
    machine.write(PROJECT.replace("64m", "66m"), FILES)
    said = machine.up().stdout
    lines = [found.groups() for line in said.splitlines() if (found := re.fullmatch(r" *(\d+\.\d)s  (.*)", line))]
    times, texts = [float(time) for time, _ in lines], [text for _, text in lines]
    assert times == sorted(times), said
    stages = ("dom0:latest: the files of box", "stop box-web-1", "dom0: runs from its new image")
    assert [stage for text in texts for stage in stages if text.startswith(stage)] == list(stages), said
    forget(machine)
