"""What clients notice of rewires, restarts and crashes, with real containers: a checker counts every request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import checker, redis
from dom0.testing.hosts import Host
from dom0.testing.wires import eventually

IMAGE = "dom0-ambassador"
AMBASSADOR = "10.8.0.10"
STEADY, FRESH = 6, 2
PATIENCE = 60.0  # seconds: what is asked of a machine under load
UNANNOUNCED = "com.docker.network.advertise_addr_nmsgs=0"  # docs/ambassador.md says when this is needed
RUN = ("run", "-d", "--net", "load")
REWIRES = 200
KERNEL = ("--cap-add", "NET_ADMIN")
BOTH = pytest.mark.parametrize("mode", [KERNEL, ()], ids=["kernel", "relay"], indirect=True)


@pytest.fixture(scope="module")
def loaded(session_host: Host, ambassador_image: None) -> None:
    redis.provide(session_host)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """In the kernel, unless a test is marked with BOTH."""
    return tuple(getattr(request, "param", KERNEL))


@pytest.fixture
def host(loaded: None, engine_host: Host, mode: tuple[str, ...]) -> Host:
    """With a network, two providers `one` and `two`, and an ambassador in front of `one`."""
    engine_host.docker("network", "create", "--subnet", "10.8.0.0/24", "--opt", UNANNOUNCED, "load")
    for name, address in (("one", "10.8.0.11"), ("two", "10.8.0.12")):
        engine_host.docker(*RUN, "--ip", address, "--name", name, redis.IMAGE)
    start_ambassador(engine_host, *mode)
    return engine_host


def start_ambassador(host: Host, *options: str) -> None:
    given = ("-e", "REDIS_PORT_6379_TCP=tcp://10.8.0.11:6379", "-v", "ambassador:/var/lib/dom0-ambassador")
    host.docker(*RUN, "--ip", AMBASSADOR, "--name", "amb", *given, *options, IMAGE)
    eventually(lambda: host.docker("exec", "amb", *SHOW, check=False).code == 0, "the control plane", patience=PATIENCE)


SHOW = ("dom0-ambassador", "show")
Load = Callable[..., "Checker"]


class Checker:
    """Asks through the ambassador until `end`."""

    def __init__(self, host: Host, steady: int, fresh: int) -> None:
        self._host = host
        program = Path(checker.__file__).read_text()
        arguments = [AMBASSADOR, "6379", str(steady), str(fresh), "580"]
        host.docker(*RUN, "--name", "checker", "--entrypoint", "python3", IMAGE, "-c", program, *arguments)
        self.goes_on()

    def goes_on(self) -> None:
        """Every connection and thread gets fifty more answers, or something has failed."""
        before = self._last()
        wanted = (before["least"] if before else 0) + 50
        eventually(
            lambda: (now := self._last()) and (now["least"] >= wanted or now["failed"]),
            "more answers",
            patience=PATIENCE,
        )

    def end(self) -> dict[str, Any]:
        self._host.docker("stop", "--time", "60", "checker")
        return self._last()

    def _last(self) -> dict[str, Any]:
        lines = self._host.docker("logs", "--tail", "1", "checker").stdout.splitlines()
        return dict(json.loads(lines[-1])) if lines else {}


@pytest.fixture
def load(host: Host) -> Load:
    def start(*, steady: int = STEADY, fresh: int = 0) -> Checker:
        return Checker(host, steady, fresh)

    return start


def control_plane(host: Host) -> str:
    """Its process ID, as the host sees it."""
    lines = host.docker("top", "amb", "-eo", "pid,args").stdout.splitlines()
    return next((line.split()[0] for line in lines if line.endswith("dom0-ambassador run")), "")


def await_control_plane(host: Host, *, other_than: str) -> None:
    eventually(lambda: control_plane(host) not in ("", other_than), "another control plane", patience=PATIENCE)
    eventually(lambda: host.docker("exec", "amb", *SHOW, check=False).code == 0, "its answer", patience=PATIENCE)


def test_a_restart_of_the_container_ends_no_connection(host: Host, load: Load) -> None:
    asking = load()
    for _ in range(3):
        host.docker("restart", "amb")
        asking.goes_on()
    assert asking.end()["failed"] == []


def test_four_restarts_within_eight_seconds_lose_no_request(host: Host, load: Load) -> None:
    """Nobody waits until the control plane answers again. Some of the clients connect anew for each question."""
    asking = load(fresh=FRESH)
    began = time.monotonic()
    for number in range(4):
        time.sleep(max(0.0, began + 2 * number - time.monotonic()))
        host.docker("restart", "amb")
    asking.goes_on()
    assert asking.end()["failed"] == []


def test_another_container_with_the_same_address_takes_the_connections_over(host: Host, load: Load) -> None:
    asking = load()
    for mac in ("02:42:0a:08:00:aa", "02:42:0a:08:00:bb"):
        host.docker("stop", "amb")
        host.docker("rm", "amb")
        start_ambassador(host, *KERNEL, "--mac-address", mac)
        asking.goes_on()
    assert asking.end()["failed"] == []


def test_connections_of_before_a_rewire_outlive_a_restart_too(host: Host, load: Load) -> None:
    asking = load()
    host.docker("exec", "amb", "dom0-ambassador", "rewire", "--to", "10.8.0.12:6379", "--existing", "keep")
    host.docker("restart", "amb")
    asking.goes_on()
    assert asking.end()["failed"] == []
    assert "10.8.0.12:6379" in eventually(lambda: host.docker("exec", "amb", *SHOW, check=False).stdout, "the state")


ASK_TWICE = f"""
import os, socket, time
connection = socket.create_connection(("{AMBASSADOR}", 6379), timeout=60)
for _ in range(2):
    connection.sendall(b"PING\\r\\n")
    print(connection.recv(100), flush=True)
    while not os.path.exists("/run/again"):
        time.sleep(0.1)
"""


def test_a_silent_connection_outlives_a_killed_container(host: Host) -> None:
    host.docker(*RUN, "--name", "silent", "--entrypoint", "python3", IMAGE, "-c", ASK_TWICE)
    eventually(lambda: pongs(host) == 1, "an answer", patience=PATIENCE)
    flows = ("exec", "amb", "cat", "/var/lib/dom0-ambassador/flows")
    eventually(lambda: "ESTABLISHED" in host.docker(*flows, check=False).stdout, "a saved one", patience=PATIENCE)
    host.docker("kill", "amb")
    host.docker("start", "amb")
    eventually(lambda: host.docker("exec", "amb", *SHOW, check=False).code == 0, "the control plane", patience=PATIENCE)
    host.docker("exec", "silent", "touch", "/run/again")
    eventually(lambda: pongs(host) == 2, "another answer", patience=PATIENCE)


def pongs(host: Host) -> int:
    return host.docker("logs", "silent").stdout.count("PONG")


@BOTH
def test_a_killed_control_plane_is_noticed_by_nobody_and_comes_back(host: Host, load: Load) -> None:
    asking = load(fresh=FRESH)
    for _ in range(3):
        before = control_plane(host)
        host.run(["kill", "-9", before])
        asking.goes_on()
        await_control_plane(host, other_than=before)
        host.docker("exec", "amb", "dom0-ambassador", "rewire", "--to", "10.8.0.12:6379")
        asking.goes_on()
    assert asking.end()["failed"] == []


def gets(host: Host) -> int:
    """GETs that were answered so far; nobody but redis-benchmark asks for one."""
    stats = host.docker("exec", "one", "redis-cli", "info", "commandstats").stdout
    return next((int(line.split("calls=")[1].split(",")[0]) for line in stats.split() if "cmdstat_get:" in line), 0)


def rewire_again_and_again(host: Host) -> None:
    """By one connection to the control socket, as fast as it answers."""
    targets = [f"10.8.0.{11 + number % 2}:6379" for number in range(1, REWIRES + 1)]
    lines = "".join(json.dumps({"do": "rewire", "to": [target], "existing": "keep"}) + "\n" for target in targets)
    talk = ("docker", "exec", "-i", "amb", "socat", "-t60", "-", "UNIX-CONNECT:/run/dom0-ambassador/control.sock")
    answers = [json.loads(line) for line in host.run(talk, stdin=lines.encode(), timeout=600).stdout.splitlines()]
    assert [answer["number"] for answer in answers] == list(range(1, REWIRES + 1))


@pytest.fixture
def benchmark(host: Host) -> None:
    """redis-benchmark, as fast as it can on connections that it keeps; it ends with the first answer that fails."""
    command = ("redis-benchmark", "-h", AMBASSADOR, "-t", "get", "-c", "20", "-n", str(2**31 - 1))
    host.docker(*RUN, "--name", "benchmark", redis.IMAGE, *command)
    eventually(lambda: gets(host), "a request of redis-benchmark", patience=PATIENCE)


def test_not_one_request_of_many_fails_while_targets_change_again_and_again(
    host: Host, benchmark: None, load: Load
) -> None:
    asking = load(fresh=FRESH)
    rewire_again_and_again(host)
    asking.goes_on()
    before = gets(host)
    eventually(lambda: gets(host) > before, "more requests of redis-benchmark", patience=PATIENCE)
    assert host.docker("inspect", "--format", "{{.State.Running}}", "benchmark").stdout.strip() == "true"
    found = asking.end()
    assert found["failed"] == []
    assert found["asked"] > REWIRES


@pytest.mark.parametrize("mode", [()], ids=["relay"], indirect=True)
def test_not_one_request_of_a_relay_fails_either(host: Host, load: Load) -> None:
    """Without redis-benchmark: a relay copies each of its bytes, and nothing would be left for anybody else."""
    asking = load(fresh=FRESH)
    rewire_again_and_again(host)
    asking.goes_on()
    found = asking.end()
    assert found["failed"] == []
    assert found["asked"] > REWIRES


def test_stopping_takes_no_longer_than_it_must(host: Host) -> None:
    host.docker("stop", "--time", "60", "amb")
    assert host.docker("inspect", "--format", "{{.State.ExitCode}}", "amb").stdout.strip() == "0"  # not 137: no kill
