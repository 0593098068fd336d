"""A scope's socket that outlives who serves it: under load, handed over, after a kill, from systemd."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0.testing import api, scopes
from dom0.testing.escape.raw import Client
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
CLIENTS = 8
GENERATIONS = 5
PATIENCE = 60.0


def _places(directory: Path) -> dict[str, str]:
    """Who serves which scope is not written to this machine's own /run/dom0."""
    return {"DOM0_RUN": str(directory / "run")}


class Servers:
    """Processes of `dom0 socket serve` for one scope, whose socket the holder in `directory` keeps."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.path = directory / "guest" / "docker.sock"
        self.directory = directory
        self.host = host
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *, prefix: tuple[str, ...] = (), descriptor: int | None = None) -> None:
        """Another one, until it accepts. It takes the socket from the holder, or inherits `descriptor`."""
        argv = [
            "setpriv",
            "--pdeathsig=KILL",
            *prefix,
            sys.executable,
            "-m",
            "dom0",
            "socket",
            "serve",
            "--scope",
            "guest",
        ]
        argv += ["--cgroup-parent", f"/{self.host.cgroup}"]  # which is swept with the host
        argv += ["--holder", str(self.directory)] if descriptor is None else []
        descriptors = () if descriptor is None else (descriptor,)
        environment = self.host.environment() | {"DOCKER_HOST": self.host.docker_host} | _places(self.directory)
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment, pass_fds=descriptors)
        self.started.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == f"scope /guest: {self.path}\n".encode()

    def end(self) -> None:
        """The oldest, orderly."""
        server = self.started[0]
        server.terminate()
        assert server.wait(PATIENCE) == 0
        self._forget(server)

    def kill(self) -> None:
        server = self.started[0]
        server.kill()
        server.wait(PATIENCE)
        self._forget(server)

    def _forget(self, server: subprocess.Popen[bytes]) -> None:
        assert server.stdout is not None
        server.stdout.close()
        self.started.remove(server)


@pytest.fixture
def servers(engine_host: Host, tmp_path: Path) -> Iterator[Servers]:
    argv = [sys.executable, "-m", "dom0", "socket", "hold", str(tmp_path)]
    servers = Servers(engine_host, tmp_path)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == f"holding sockets in {tmp_path}\n".encode()
            yield servers
        finally:
            while servers.started:
                servers.kill()
            holder.terminate()
            holder.wait(PATIENCE)


class Load:
    """Clients that ask one thing after the other, half of them on one connection for as long as it lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_over = False
        self.answered = [0] * CLIENTS
        self.cut: list[BaseException] = []  # accepted, but not answered
        self.failed: list[BaseException] = []  # in any other way

    def ask(self, number: int) -> None:
        """Connect, ask and connect again when the server says so, or after each answer where `number` is odd."""
        while not self._is_over:
            try:
                connection = self._connect()
            except OSError as error:
                self.failed.append(error)
                return
            with contextlib.closing(connection):
                try:
                    self._ask(connection, number)
                except (OSError, http.client.HTTPException) as error:
                    self.cut.append(error)

    def _ask(self, connection: http.client.HTTPConnection, number: int) -> None:
        is_last = False
        while not is_last and not self._is_over:
            connection.request("GET", "/containers/json" if number % 4 < 2 else "/info")
            answer = connection.getresponse()
            json.load(answer)
            self.answered[number] += 1
            is_last = answer.will_close or number % 2 == 1

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(str(self._path))
        return connection

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self.ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def await_answers(self) -> None:
        """One more to each client."""
        before = list(self.answered)
        _until(lambda: self.failed or all(now > then for now, then in zip(self.answered, before, strict=True)))


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_request_fails_when_one_server_follows_the_other(servers: Servers) -> None:
    servers.start()
    with Load(servers.path) as load:
        for _ in range(GENERATIONS):
            load.await_answers()
            servers.start()
            load.await_answers()
            servers.end()
        load.await_answers()
    assert (load.failed, load.cut) == ([], [])


def test_no_request_fails_when_one_server_is_ended_before_the_next_begins(servers: Servers) -> None:
    servers.start()
    with Load(servers.path) as load:
        for _ in range(GENERATIONS):
            load.await_answers()
            servers.end()
            servers.start()
        load.await_answers()
    assert (load.failed, load.cut) == ([], [])


def test_no_request_fails_when_the_file_of_a_scope_among_others_changes(engine_host: Host, tmp_path: Path) -> None:
    with scopes.Together(engine_host, tmp_path, {"guest": "{}", "team": "{}"}) as together:
        together.await_served("guest", "team")
        with Load(together.socket("guest")) as changed, Load(together.socket("team")) as other:
            for generation in range(GENERATIONS):
                changed.await_answers()
                together.write("guest", f"containers: {generation + 1}")
                together.reload()
                together.await_served("guest")
            changed.await_answers()
            other.await_answers()
    assert (changed.failed, changed.cut, other.failed, other.cut) == ([], [], [], [])


def test_no_request_fails_when_another_process_serves_all_scopes(servers: Servers, tmp_path: Path) -> None:
    """The holder's sockets go from one to the next."""
    grants = {"guest": "{}", "team": "{}"}
    with contextlib.ExitStack() as stack:

        def start(number: int) -> scopes.Together:
            (tmp_path / str(number)).mkdir()
            return scopes.Together(servers.host, tmp_path / str(number), grants, holder=servers.directory)

        present = stack.enter_context(start(0))
        present.await_served("guest", "team")
        loads = [stack.enter_context(Load(present.socket(scope))) for scope in grants]
        for number in range(1, GENERATIONS):
            for load in loads:
                load.await_answers()
            following = stack.enter_context(start(number))
            following.await_served("guest", "team")
            present.process.terminate()
            assert present.process.wait(PATIENCE) == 0
            present = following
        for load in loads:
            load.await_answers()
            load.__exit__()
    assert [(load.failed, load.cut) for load in loads] == [([], []), ([], [])]


def test_a_kill_cuts_only_what_was_being_answered(servers: Servers) -> None:
    servers.start()
    with Load(servers.path) as load:
        for _ in range(GENERATIONS):
            load.await_answers()
            servers.kill()
            servers.start()
        load.await_answers()
    assert load.failed == []
    assert len(load.cut) <= GENERATIONS * CLIENTS


def test_who_connects_while_nobody_serves_is_answered_by_the_next(servers: Servers) -> None:
    servers.start()
    servers.kill()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in range(200)]
        for client in waiting:
            client.settimeout(PATIENCE)
            client.connect(str(servers.path))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        servers.start()
        for client in waiting:
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_container_keeps_a_working_socket(servers: Servers, engine_host: Host) -> None:
    servers.start()
    bound = f"type=bind,source={servers.path},target=/var/run/docker.sock"
    container = engine_host.docker("run", "-d", "--init", "--mount", bound, "busybox:test", "sleep", "1000").stdout
    pid = engine_host.docker("inspect", "--format", "{{.State.Pid}}", container.strip()).stdout.strip()
    inside = Client(engine_host.path(f"/proc/{pid}/root/var/run/docker.sock"))
    assert inside.ask("GET", "/_ping", patience=PATIENCE).status == 200
    servers.kill()
    servers.start()
    assert inside.ask("GET", "/_ping", patience=PATIENCE).status == 200
    servers.end()
    servers.start()
    assert inside.ask("GET", "/_ping", patience=PATIENCE).status == 200


def test_what_is_under_way_ends_before_the_server_does(servers: Servers, engine_host: Host) -> None:
    servers.start()
    make = ("--name", "guest.web", "--label", "dom0.scope=/guest", "busybox:test", "sleep", "1000")
    engine_host.docker("run", "-d", "--init", *make)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waits:
        waits.settimeout(PATIENCE)
        waits.connect(str(servers.path))
        waits.sendall(b"POST /containers/web/wait HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        answer = waits.recv(1000)  # its head
        servers.started[0].terminate()
        api.request(engine_host.socket, "POST", "/containers/guest.web/kill")
        while more := waits.recv(1000):
            answer += more
    assert b'"StatusCode":' in answer
    assert answer.endswith(b"0\r\n\r\n")
    assert servers.started[0].wait(PATIENCE) == 0


def _as_systemd(descriptor: int, *, count: str = "1") -> tuple[str, ...]:
    """What is called so gets `descriptor` as descriptor 3, and LISTEN_PID says that it is meant."""
    launch = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
    launch += "os.environ['LISTEN_FDS'] = sys.argv[2]; os.execv(sys.argv[3], sys.argv[3:])"
    return (sys.executable, "-c", launch, str(descriptor), count)


def test_a_socket_that_systemd_keeps(servers: Servers, tmp_path: Path) -> None:
    servers.path = tmp_path / "guest.sock"
    client = Client(servers.path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(servers.path))
        listener.listen()
        inode = servers.path.stat().st_ino
        for _ in range(2):
            servers.start(prefix=_as_systemd(listener.fileno()), descriptor=listener.fileno())
            assert client.ask("GET", "/_ping", patience=PATIENCE).status == 200
            servers.end()
    assert servers.path.stat().st_ino == inode


@pytest.mark.parametrize(("count", "what"), [("2", "'2' sockets"), ("1", "no unix socket that listens")])
def test_what_else_is_handed_on_is_refused(count: str, what: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        argv = [*_as_systemd(deaf.fileno(), count=count), sys.executable, "-m", "dom0", "socket", "serve"]
        argv += ["--scope", "guest"]
        environment = os.environ | _places(tmp_path)
        descriptors = (deaf.fileno(),)
        served = subprocess.run(
            argv, pass_fds=descriptors, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    assert (served.returncode, what in served.stderr) == (2, True)
