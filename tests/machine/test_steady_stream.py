"""New connections come all the time while what they lead to is replaced, goes back, is restarted or loses its agent:
none is refused, none is reset, each is answered.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dom0.testing import api
from dom0.testing.bare_agent import BareAgent
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine
from dom0.testing.namespaces import Child

SERVER = """
    import socket, sys, threading, time
    if sys.argv[1] == "check":
        socket.create_connection(("127.0.0.1", 7000)).close()
    if sys.argv[1] in ("check", "bad"):
        sys.exit(sys.argv[1] == "bad")
    def serve(connection):
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                time.sleep(0.02)
                connection.sendall(sys.argv[1].encode() + b" " + line)
    listening = socket.create_server(("", 7000), backlog=100)
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""
"""Takes its time to answer each line; SIGTERM ends it at once, with whatever it was about to say."""
CLIENT = """
    import json, os, socket, threading, time
    found = {"heard": {}, "count": 0, "errors": []}
    def ask(port):
        while True:
            try:
                with socket.create_connection(("10.77.8.100", port), 60) as connection:
                    connection.sendall(b"?\\n")
                    name = connection.makefile("rb").readline().split()[0].decode()
                found["heard"][port] = name
                found["count"] += 1
            except (OSError, IndexError) as error:
                found["errors"].append(f"{port}: {error!r}")
            time.sleep(0.005)
    for port in (7000, 7000, 7001):
        threading.Thread(target=ask, args=(port,), daemon=True).start()
    while True:
        with open("/tmp/count.new", "w") as file:
            json.dump(found, file)
        os.replace("/tmp/count.new", "/tmp/count")
        time.sleep(0.05)
"""
TALK = r"""
import socket, sys
with socket.create_connection(("10.77.8.100", 7000)) as connection:
    for _ in sys.stdin:
        connection.sendall(b"?\n")
        print(connection.recv(100).split()[0].decode(), flush=True)
"""
"""Keeps one connection until its input ends; says for each line of it who answers."""
COMPOSE = """
    name: box
    x-dom0:
      rollout: {monitor: 1s, timeout: 60s}
    services:
      web: &server  # its replacement runs beside it for a moment
        image: python:test
        entrypoint: ["python3", "-u", "/server.py"]
        command: ["web-1"]
        init: true
        healthcheck: {test: ["CMD", "python3", "/server.py", "check"], interval: 1h}
        volumes: ["./server.py:/server.py:ro"]
      db:  # alone with its data: its replacement starts when it has ended
        <<: *server
        command: ["db-1"]
        volumes: ["./server.py:/server.py:ro", "data:/data"]
      front:
        image: dom0-ambassador
        x-dom0:
          ambassador:
            listen:
              "7000": {to: ["service:web:7000"], existing: drain=60s}
              "7001": {to: ["service:db:7000"], existing: drain=10s}
        networks: {default: {ipv4_address: 10.77.8.100}}
      client:
        image: python:test
        entrypoint: ["python3", "-u", "/client.py"]
        init: true
        volumes: ["./client.py:/client.py:ro"]
        depends_on: [front, web, db]
    volumes: {data: {}}
    networks:
      default:
        ipam: {config: [{subnet: 10.77.8.0/24}]}
    """
CONSUMERS = ("box-client-1", "stranger")  # with the shortcut, and through the ambassador


@pytest.fixture(scope="module")
def agent(session_host: Host, ambassador_image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareAgent]:
    images = api.images(session_host.socket)
    machine = Machine(session_host, tmp_path_factory.mktemp("project"))
    recipe = b"FROM dom0-ambassador\nLABEL dom0.role=\nENTRYPOINT []\nHEALTHCHECK NONE\n"
    machine.host.run(["docker", "build", "--quiet", "--tag", "python:test", "-"], stdin=recipe)
    agent = BareAgent(machine)
    agent.write(COMPOSE, {"server.py": SERVER, "client.py": CLIENT})
    agent.start()
    machine.until_good()
    script = ("--volume", "/var/lib/dom0/project/client.py:/client.py:ro")
    run = ("run", "--detach", "--init", "--name", "stranger", "--network", "box_default", *script)
    machine.docker(*run, "python:test", "python3", "-u", "/client.py")
    until_heard(machine, "web-1", "db-1")
    # Those of the start, before anything was there, do not count.
    machine.docker("restart", "--time", "0", *CONSUMERS)
    machine.until(lambda: shortcut(agent) == {"7000/tcp", "7001/tcp"})
    until_heard(machine, "web-1", "db-1")
    yield agent
    agent.kill()
    machine.docker("rm", "--force", "stranger")
    session_host.clean(keep=images)


def count(machine: Machine, consumer: str) -> dict[str, Any]:
    return dict(json.loads(machine.docker("exec", consumer, "cat", "/tmp/count").stdout))  # noqa: S108


def until_heard(machine: Machine, web: str, db: str) -> None:
    """On each consumer's new connections; and then 20 more."""
    for consumer in CONSUMERS:
        machine.until(lambda: count(machine, consumer)["heard"] == {"7000": web, "7001": db})  # noqa: B023 -- at once
        before = count(machine, consumer)["count"]
        machine.until(lambda: count(machine, consumer)["count"] > before + 20)  # noqa: B023 -- at once


def shortcut(agent: BareAgent) -> set[str]:
    """The listeners that the client reaches past the ambassador."""
    found = [one for front in agent.ask("GET", "/v1/ambassadors") for one in front.get("shortcuts", ())]
    return {listener for one in found if one["consumer"] == CONSUMERS[0] for listener in one.get("listeners", ())}


def assert_nothing_lost(machine: Machine) -> None:
    assert [count(machine, consumer)["errors"] for consumer in CONSUMERS] == [[], []]


def change(agent: BareAgent, *replaced: tuple[str, str]) -> None:
    compose = COMPOSE
    for one in replaced:
        compose = compose.replace(*one)
    agent.write(compose)
    with contextlib.suppress(OSError, http.client.HTTPException):  # a test may kill it meanwhile
        agent.ask("POST", "/v1/up")


def ask(kept: Child) -> str:
    assert kept.stdin is not None
    assert kept.stdout is not None
    kept.stdin.write(b"\n")
    kept.stdin.flush()
    return str(kept.stdout.readline().decode().strip())


NEW = (("web-1", "web-2"), ("db-1", "db-2"))


def test_a_change(agent: BareAgent) -> None:
    change(agent, *NEW)
    agent.machine.until_good()
    until_heard(agent.machine, "web-2", "db-2")
    assert_nothing_lost(agent.machine)


def test_a_rollback(agent: BareAgent) -> None:
    agent.machine.dom0("rollback")
    agent.machine.until_good()
    until_heard(agent.machine, "web-1", "db-1")
    assert_nothing_lost(agent.machine)


def test_a_change_that_is_bad_and_goes_back_by_itself(agent: BareAgent) -> None:
    change(agent, ("web-1", "bad"), ("db-1", "bad"))
    agent.machine.until(lambda: agent.machine.history()[0]["outcome"] == "failed")
    agent.machine.until_good()
    until_heard(agent.machine, "web-1", "db-1")
    assert_nothing_lost(agent.machine)


def test_a_restart(agent: BareAgent) -> None:
    before = agent.machine.lives("box-web-1", "box-db-1")
    assert agent.machine.dom0("restart", "web", "db").stdout == "box-web-1\nbox-db-1\n"
    until_heard(agent.machine, "web-1", "db-1")
    assert not before.items() & agent.machine.lives("box-web-1", "box-db-1").items()
    assert_nothing_lost(agent.machine)


@pytest.mark.parametrize("death", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_an_agent_and_another_one(agent: BareAgent, death: signal.Signals) -> None:
    agent.kill(death)
    agent.start()
    agent.machine.until(lambda: shortcut(agent) == {"7000/tcp", "7001/tcp"})
    until_heard(agent.machine, "web-1", "db-1")
    assert_nothing_lost(agent.machine)


def test_an_agent_that_is_killed_before_the_stop_that_it_has_announced(agent: BareAgent) -> None:
    machine = agent.machine
    old = machine.container("box-web-1")["Id"]
    talk = ["docker", "exec", "--interactive", "stranger", "python3", "-c", TALK]
    with machine.host.popen(talk, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kept:
        assert ask(kept) == "web-1"
        changing = threading.Thread(target=change, args=(agent, NEW[0]))
        changing.start()
        machine.until(lambda: {count(machine, one)["heard"]["7000"] for one in CONSUMERS} == {"web-2"})
        assert ask(kept) == "web-1"
        agent.kill()
        changing.join()
        agent.start()
        machine.until(lambda: any(step.startswith("stop ") for step in machine.status().get("steps", ())))
        assert ask(kept) == "web-1"
    machine.until_good()
    machine.until(lambda: machine.container("box-web-1")["Id"] != old)
    until_heard(machine, "web-2", "db-1")
    assert_nothing_lost(machine)
