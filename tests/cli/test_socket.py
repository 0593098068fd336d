"""`dom0 socket`: who has which scoped socket on this host, how much of it is used, and what was refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.run import Output
from dom0.socketproxy import registrations
from dom0.socketproxy.context import Context
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Upstream
from dom0.testing import scopes
from dom0.testing.hosts import Host

IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox]}"


def test_without_a_scope(dom0: Callable[..., Output]) -> None:
    assert json.loads(dom0("socket", "ls", "--json").stdout) == []
    assert "no scope is served here" in dom0("socket", "ls").stderr
    for command in ("show", "log"):
        refused = dom0("socket", command, "guest")
        assert (refused.code, refused.stdout) == (2, "")
        assert "guest: no such scope" in refused.stderr


def test_one_scope_or_a_directory_of_them(dom0: Callable[..., Output], tmp_path: Path) -> None:
    for arguments in ((), ("--scope", "guest", "--scopes", str(tmp_path))):
        assert "it takes one of them" in dom0("socket", "serve", *arguments).stderr
    assert "leave the rest out" in dom0("socket", "serve", "--scopes", str(tmp_path), "--listen", "a.sock").stderr
    assert "has no file NAME.yaml" in dom0("socket", "serve", "--scopes", str(tmp_path)).stderr


@pytest.mark.parametrize("words", ["serve --scope guest", "record true", "stop guest", "rm guest"])
def test_which_engine_does_not_answer_is_said(dom0: Callable[..., Output], words: str) -> None:
    refused = dom0("socket", *words.split(), env={"DOCKER_HOST": "unix:///no-engine.sock"})
    said = "/no-engine.sock: the Engine behind this socket does not answer: No such file or directory"
    assert (refused.code, refused.stderr.splitlines()[0]) == (4, f"dom0: {said}")


def test_another_machine_has_other_scopes(dom0: Callable[..., Output]) -> None:
    refused = dom0("socket", "ls", env={"DOCKER_HOST": "tcp://192.0.2.1:2375"})
    assert refused.code == 2
    assert "only the socket of an Engine on this host" in refused.stderr


def test_a_compose_file_is_explained(dom0: Callable[..., Output], tmp_path: Path) -> None:
    written = """
        services:
          web:
            image: nginx:1.27
            cap_add: [NET_ADMIN]
            ports: ["8080:80"]
            volumes: ["data:/data"]
          db: {image: redis, network_mode: "service:web"}
          own: {build: {context: ., dockerfile_inline: FROM redis}, image: own}
        volumes: {data: {driver_opts: {device: /}}}
        """
    explained = dom0("socket", "explain", "-", stdin=written)
    assert explained.code == 10
    assert explained.stdout.splitlines() == [
        '# db: Image: redis:latest: not granted; it would take the grant images: {use: ["redis:latest"]}',
        "# own: build: 'own': not granted; it would take the grant images: {build: true}",
        '# web: Image: nginx:1.27: not granted; it would take the grant images: {use: ["nginx:1.27"]}',
        "# web: HostConfig.CapAdd: 'NET_ADMIN': not granted; it would take the grant capabilities: [NET_ADMIN]",
        """# web: HostConfig.PortBindings: '8080/tcp': not granted; it would take the grant ports: ["8080/tcp"]""",
        "# volume data: DriverOpts: {'device': '/'}: not through this socket",
        'images: {use: ["redis:latest", "nginx:1.27"], build: true}',
        "capabilities: [NET_ADMIN]",
        'ports: ["8080/tcp"]',
    ]
    (tmp_path / "grants.yaml").write_text(explained.stdout)
    (tmp_path / "prod.yaml").write_text(written.replace("{driver_opts: {device: /}}", "{}"))
    granted = dom0("socket", "explain", "--grants", str(tmp_path / "grants.yaml"), str(tmp_path / "prod.yaml"))
    assert (granted.code, granted.stdout) == (0, "".join(explained.stdout.splitlines(keepends=True)[-3:]))


def test_a_compose_file_in_json_is_explained(dom0: Callable[..., Output]) -> None:
    explained = dom0("socket", "explain", "-", stdin='{"services": {"web": {"image": "web:1"}}}')
    assert (explained.code, explained.stdout.splitlines()[-1]) == (10, 'images: {use: ["web:1"]}')


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", ":2: this is not YAML"), ("[]", ":1: the file has to be"), ("services: {a: 1}", ":1: services.a")],
)
def test_what_is_no_compose_file_is_named_as_it_was_given(
    dom0: Callable[..., Output], tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "prod.yaml"
    file.write_text(text)
    refused = dom0("socket", "explain", str(file))
    assert (refused.code, refused.stderr.startswith(f"dom0: {file}{said}")) == (3, True), refused.stderr
    assert dom0("socket", "explain", "-", stdin=text).stderr.startswith(f"dom0: standard input{said}")


def test_a_create_body_is_explained(dom0: Callable[..., Output]) -> None:
    body = '{"Image": "web", "HostConfig": {"Privileged": true}, "hostconfig": {}}'
    explained = dom0("socket", "explain", "--json", "-", stdin=body)
    assert explained.code == 10
    (row,) = json.loads(explained.stdout)
    assert row == {
        "subject": "container",
        "field": "",
        "value": "",
        "message": row["message"],
        "grant": None,
    }
    assert "'hostconfig' is there twice" in row["message"]
    refused = dom0("socket", "explain", "--grants", "a", "guest", "-", stdin=body)
    assert (refused.code, refused.stdout) == (2, "")


def test_an_orchestrators_socket_that_nobody_serves(dom0: Callable[..., Output], environment: dict[str, str]) -> None:
    directory = Path(environment["DOM0_RUN"]) / "scopes" / "guest"
    directory.mkdir(parents=True)
    (directory / "docker.sock").touch()
    listed = dom0("socket", "ls")
    assert (listed.code, listed.stdout) == (0, "")
    assert listed.stderr == (
        "guest: nobody serves its socket; an orchestrator's? dom0 status; docker logs dom0-socket-guest; "
        "not wanted? dom0 socket rm guest\n"
    )
    assert "dom0 status; docker logs dom0-socket-guest" in dom0("socket", "show", "guest").stderr


def test_why_an_engine_does_not_answer_is_said(
    dom0: Callable[..., Output], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOM0_RUN", environment["DOM0_RUN"])
    context = Context(Scope("guest"), Grants(), Upstream("/no-engine.sock"), "/run/guest.sock")
    with registrations.registered(context, Path("/run/guest.sock")):
        said = "the Engine behind this socket does not answer: No such file or directory"
        assert json.loads(dom0("socket", "show", "guest", "--json").stdout)["error"] == said
        assert f"/no-engine.sock: {said}" in dom0("socket", "show", "guest").stdout


class Commands:
    """dom0 as it is called beside the server, docker through its socket."""

    def __init__(self, host: Host, directory: Path, socket: Path, *, engine: Path | None = None) -> None:
        self._host = host
        self._socket = socket
        self.environment = host.environment() | {
            "DOM0_RUN": str(directory / "run"),
            "DOCKER_HOST": f"unix://{engine or host.socket}",
        }

    def dom0(self, *arguments: str) -> str:
        argv = [sys.executable, "-m", "dom0", "socket", *arguments]
        return subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=120, check=True
        ).stdout

    def docker(self, *arguments: str, fails: bool = False) -> str:
        ended = scopes.docker(self._host, self._socket, *arguments, check=False)
        assert (ended.returncode != 0) is fails, ended.stderr
        return ended.stdout

    def show(self, scope: str = "guest") -> dict[str, Any]:
        return dict(json.loads(self.dom0("show", scope, "--json")))


def counted(shown: dict[str, Any]) -> dict[str, int]:
    """Without what the kernel counts, which changes."""
    return {key: value for key, value in shown["usage"].items() if key != "kernel"}


@pytest.mark.engine
def test_a_scope_and_what_it_uses(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, "{images: {use: [busybox]}, networks: 3, memory: 64m}") as socket:
        guest = Commands(engine_host, tmp_path, socket)
        assert counted(guest.show()) == {"running": 0, "containers": 0, "networks": 0, "volumes": 0}
        engine_host.docker("volume", "create", "foreign")
        guest.docker("run", "-d", "--init", "-v", "data:/data", "--network", "none", IMAGE, "sleep", "1000")
        guest.docker("create", "--network", "none", IMAGE, "true")
        guest.docker("network", "create", "front")
        shown = guest.show()
        assert counted(shown) == {"running": 1, "containers": 2, "networks": 1, "volumes": 1}
        assert 0 < shown["usage"]["kernel"]["memory"] <= 64 << 20
        assert shown["usage"]["kernel"]["pids"] == 2
        assert (shown["scope"], shown["socket"], shown["engine"]) == ("guest", str(socket), str(engine_host.socket))
        assert (shown["served"], shown["refusals"]) == (True, 0)
        assert (shown["grants"]["images.use"], shown["grants"]["containers"]) == (["busybox"], 100)
        said = [line.split() for line in guest.dom0("show", "guest").splitlines()]
        assert ["containers", "100", "2,", "1", "run"] in said
        assert ["networks", "3", "1"] in said
        (listed,) = json.loads(guest.dom0("ls", "--json"))
        assert counted(listed) == counted(shown)
        assert listed | {"usage": None} == shown | {"usage": None}
        (_, row) = guest.dom0("ls").splitlines()
        assert "of 64m" in row
        assert row.split()[:3] == ["guest", "by", str(shown["pid"])]
        os.kill(shown["pid"], signal.SIGKILL)
        wait_until(lambda: not guest.show()["served"])
        assert "not served" in guest.dom0("ls")
        assert counted(guest.show()) == counted(shown)


@pytest.mark.engine
def test_a_scope_inside_another_one_and_what_it_uses(engine_host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "team"
    directory.mkdir()
    with (
        scopes.served(engine_host, tmp_path, GRANTS) as outer,
        scopes.served(engine_host, directory, GRANTS, scope="team", engine=outer) as inner,
    ):
        team = Commands(engine_host, directory, inner, engine=outer)
        team.docker("create", "-v", "data:/data", "--network", "none", IMAGE, "true")
        shown = team.show("team")
        assert (shown["error"], shown["usage"]["containers"], shown["usage"]["volumes"]) == ("", 1, 1)


@pytest.mark.engine
def test_what_was_refused(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS) as socket:
        guest = Commands(engine_host, tmp_path, socket)
        guest.docker("create", "--cap-add", "NET_ADMIN", IMAGE, fails=True)
        follower = subprocess.Popen(
            [sys.executable, "-m", "dom0", "socket", "log", "-f", "guest"],
            env=guest.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        with follower:
            assert follower.stdout is not None
            assert "capabilities: [NET_ADMIN]" in follower.stdout.readline()
            guest.docker("create", "--pid", "host", IMAGE, fails=True)
            assert "HostConfig.PidMode: 'host': not through this socket" in follower.stdout.readline()
            follower.terminate()
        guest.docker("image", "inspect", "secret:1", fails=True)
        guest.docker("container", "inspect", "unknown", fails=True)  # not refused: there is none
        rows = [json.loads(line) for line in guest.dom0("log", "guest", "--json").splitlines()]
        assert [row["field"] for row in rows] == ["HostConfig.CapAdd", "HostConfig.PidMode", "Image"]
        assert [row["grant"] for row in rows] == [
            {"capabilities": ["NET_ADMIN"]},
            None,
            {"images": {"use": ["secret:1"]}},
        ]
        assert (rows[0]["value"], rows[0]["method"], rows[0]["times"]) == ("'NET_ADMIN'", "POST", 1)
        assert rows[0]["path"].endswith("/containers/create")
        (last,) = guest.dom0("log", "-n", "1", "guest").splitlines()
        assert "secret:1" in last
        assert guest.show()["refusals"] == 3
    assert len(guest.dom0("log", "guest").splitlines()) == 3  # it is there when nobody serves it any more


RUN = """
    set -e
    docker compose --file "$0" up --detach --wait
    docker create --publish 127.0.0.1:8080:80 --cap-add CHOWN busybox:test true
    ! docker create --cap-add SYS_TIME --privileged busybox:test true
    docker compose --file "$0" down --timeout 1
    exit 3
    """
COMPOSE = """
    name: shop
    services:
      web: {image: "busybox:test", command: [sleep, "1000"], init: true, cap_add: [NET_ADMIN]}
    """


@pytest.mark.engine
def test_what_a_recorded_run_needed_is_what_it_needs(engine_host: Host, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    run = ["sh", "-c", RUN, str(tmp_path / "compose.yaml")]
    environment = engine_host.environment() | {
        "DOM0_RUN": str(tmp_path / "run"),
        "DOCKER_HOST": f"unix://{engine_host.socket}",
        "DOCKER_CONTEXT": "elsewhere",
    }
    recorded = subprocess.run(
        [sys.executable, "-m", "dom0", "socket", "record", "--", *run],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert recorded.returncode == 3, recorded.stderr
    assert "HostConfig.Privileged: True: not through this socket" in recorded.stderr
    assert recorded.stdout.splitlines() == [
        'images: {use: ["busybox:test"]}',
        "capabilities: [NET_ADMIN, CHOWN]",
        'ports: ["127.0.0.1:8080/tcp"]',
    ]
    with scopes.served(engine_host, tmp_path, recorded.stdout) as socket:
        guest = Commands(engine_host, tmp_path, socket)
        environment = engine_host.environment() | {"DOCKER_HOST": f"unix://{socket}"}
        again = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert again.returncode == 3, again.stderr
        rows = [json.loads(line) for line in guest.dom0("log", "guest", "--json").splitlines()]
        assert {row["field"] for row in rows} <= {"HostConfig.CapAdd", "HostConfig.Privileged"}


@pytest.mark.engine
def test_a_recording_without_a_command_ends_with_ctrl_c(engine_host: Host, tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    guest = Commands(engine_host, tmp_path, socket)
    recording = subprocess.Popen(
        [sys.executable, "-m", "dom0", "socket", "record", "--listen", str(socket), "--json"],
        env=guest.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    with recording:
        wait_until(socket.exists)
        guest.docker("create", "--cap-add", "NET_ADMIN", IMAGE, "true")
        recording.send_signal(signal.SIGINT)
        assert recording.stdout is not None
        assert json.loads(recording.stdout.read()) == {"images": {"use": [IMAGE]}, "capabilities": ["NET_ADMIN"]}
    assert recording.returncode == 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
