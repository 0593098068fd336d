"""A scope is stopped and removed as a whole, whatever it does meanwhile, and nothing else is."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dom0.run import Output
from dom0.socketproxy import gate, subtree
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Upstream
from dom0.testing import scopes
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox]}"
WITH_DOCKER = f"{GRANTS}\npaths: ['/usr:ro']"  # the host's docker command, in a container
DOCKER = ("-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro")
CGROUPS = Path("/sys/fs/cgroup")
SOCKET = ("-v", "/var/run/docker.sock:/var/run/docker.sock")


class Scoped(scopes.Scoped):
    """And the commands beside its server."""

    def sleeper(self, name: str, *options: str) -> None:
        self.docker("run", "-d", "--init", "--name", name, *options, IMAGE, "sleep", "1000")

    def command(self, *arguments: str) -> Output:
        """`dom0 socket …` beside the server."""
        environment = self.host.environment() | {
            "DOM0_RUN": str(self.path.parent / "run"),
            "DOCKER_HOST": f"unix://{self.host.socket}",
        }
        argv = [sys.executable, "-m", "dom0", "socket", *arguments]
        ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return Output(ended.returncode, ended.stdout, ended.stderr)

    def done(self, *arguments: str) -> set[tuple[str, str, str]]:
        output = self.command(*arguments, "--json")
        assert output.code == 0, output.stderr
        found: list[dict[str, Any]] = json.loads(output.stdout)
        assert not any(one["error"] for one in found), found
        return {(one["action"], one["kind"], one["name"]) for one in found}


@pytest.fixture
def guest(engine_host: Host, tmp_path: Path) -> Iterator[Scoped]:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield Scoped(engine_host, path)


@pytest.fixture
def team(engine_host: Host, tmp_path: Path, guest: Scoped) -> Iterator[Scoped]:
    directory = tmp_path / "team"
    directory.mkdir()
    with scopes.served(engine_host, directory, GRANTS, scope="team", engine=tmp_path / "docker.sock") as path:
        yield Scoped(engine_host, path)


def listed(host: Host, *arguments: str) -> set[str]:
    return set(host.docker(*arguments).stdout.split())


def running(host: Host) -> set[str]:
    return listed(host, "ps", "--format", "{{.Names}}")


def happened(host: Host, container: str, *, until: str) -> list[str]:
    """Its events, up to the first one that is called so."""
    argv = ["docker", "events", "--since", "10m", "--filter", "type=container", "--filter", f"container={container}"]
    environment = host.environment() | {"DOCKER_HOST": f"unix://{host.socket}"}
    found: list[str] = []
    with subprocess.Popen(
        [*argv, "--format", "{{.Action}}"], env=environment, stdout=subprocess.PIPE, text=True
    ) as events:
        assert events.stdout is not None
        while until not in found:
            found.append(events.stdout.readline().strip())
            assert found[-1], found
        events.terminate()
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_all_that_is_in_it_is_stopped_in_good_order_and_stays(guest: Scoped, team: Scoped, engine_host: Host) -> None:
    engine_host.docker("run", "-d", "--init", "--name", "foreign", IMAGE, "sleep", "1000")
    script = "trap 'echo well >/data/ended; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    guest.docker("run", "-d", "--name", "db", "--restart", "always", "-v", "data:/data", IMAGE, "sh", "-c", script)
    guest.sleeper("paused")
    guest.docker("pause", "paused")
    team.sleeper("web", "--rm")
    wait_until(lambda: "ready" in guest.docker("logs", "db"), "a trap")
    stopped = {("stop", "container", name) for name in ("guest.db", "guest.paused", "guest.team.web")}
    assert guest.done("stop", "guest") == stopped
    assert running(engine_host) == {"foreign"}
    left = {"foreign", "guest.db", "guest.paused"}  # the Engine removes the one with --rm when it has stopped
    wait_until(lambda: listed(engine_host, "ps", "--all", "--format", "{{.Names}}") == left, "a removal")
    found = json.loads(engine_host.docker("inspect", "guest.db").stdout)[0]
    assert found["State"]["ExitCode"] == 3
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert guest.done("stop", "guest") == set()
    assert guest.docker("run", "--rm", "-v", "data:/data", IMAGE, "cat", "/data/ended") == "well\n"


def test_an_orchestrator_that_starts_new_ones_all_the_time_is_stopped(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, WITH_DOCKER) as path:
        guest = Scoped(engine_host, path)
        start = f"docker run -d --init --restart always {IMAGE} sleep 1000"
        script = f"trap '' TERM; while :; do {start}; docker start $(docker ps -aq); done"
        options = ("-d", "--name", "boss", "--stop-timeout", "2", "--restart", "always", *DOCKER, *SOCKET)
        guest.docker("run", *options, IMAGE, "sh", "-c", script)
        wait_until(lambda: len(running(engine_host)) > 3, guest.docker("logs", "boss"))
        assert len(guest.done("stop", "guest")) > 3
        assert running(engine_host) == set()
        guest.done("rm", "guest")
        assert listed(engine_host, "ps", "--all", "--quiet") == set()


def test_the_orchestrator_of_a_project_is_stopped_as_a_person_does_it(guest: Scoped, engine_host: Host) -> None:
    """No pause, which the Engine would call unhealthy, and no other policy, which its agent would set back."""
    labels = ("--label", "dom0.scope=/guest", "--label", "dom0.orchestrator={}")
    options = ("-d", "--init", "--restart", "unless-stopped", "--name", "guest.dom0", *labels)
    engine_host.docker("run", *options, IMAGE, "sleep", "1000")
    guest.sleeper("web", "--restart", "always")
    assert guest.done("stop", "guest") == {("stop", "container", name) for name in ("guest.dom0", "guest.web")}
    assert running(engine_host) == set()
    found = json.loads(engine_host.docker("inspect", "guest.dom0", "guest.web").stdout)
    assert [one["HostConfig"]["RestartPolicy"]["Name"] for one in found] == ["unless-stopped", "no"]
    assert not {"pause", "update"} & set(happened(engine_host, "guest.dom0", until="stop"))
    assert "pause" in happened(engine_host, "guest.web", until="stop")
    assert ("remove", "container", "guest.dom0") not in guest.done("rm", "guest")


def test_what_is_only_called_an_orchestrator_inside_goes_with_the_rest(guest: Scoped, engine_host: Host) -> None:
    guest.sleeper("dom0", "--label", "dom0.scope=/inner", "--label", "dom0.orchestrator={}")
    assert ("remove", "container", "guest.dom0") in guest.done("rm", "guest")


def test_while_it_is_stopped_nothing_is_made(
    guest: Scoped, engine_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.docker("create", "--name", "web", "--init", IMAGE, "sleep", "1000")
    monkeypatch.setenv("DOM0_RUN", str(tmp_path / "run"))
    with gate.stopping("guest"):
        for asked in (
            ("run", IMAGE, "true"),
            ("start", "web"),
            ("volume", "create", "data"),
            ("network", "create", "n"),
        ):
            assert "is being stopped" in guest.docker(*asked, check=False)
        assert guest.docker("ps", "--all", "--format", "{{.Names}}") == "web\n"
    guest.docker("start", "web")
    assert running(engine_host) == {"guest.web"}


@contextmanager
def asking(path: Path, request: str) -> Iterator[socket.socket]:
    """Sent, and never read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(str(path))
        connection.sendall(f"{request} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
        yield connection


def test_no_archive_that_is_not_read_holds_it_up(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    guest.sleeper("web")
    guest.docker("exec", "web", "dd", "if=/dev/zero", "of=/large", "bs=1M", "count=64")
    with asking(tmp_path / "docker.sock", "GET /containers/web/archive?path=/large") as connection:
        assert connection.recv(1) == b"H"  # the Engine has begun
        assert guest.done("stop", "guest") == {("stop", "container", "guest.web")}
    assert running(engine_host) == set()


def test_no_restart_that_waits_for_a_day_holds_it_up(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    script = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    guest.docker("run", "-d", "--name", "web", "--stop-timeout", "1", IMAGE, "sh", "-c", script)
    wait_until(lambda: "ready" in guest.docker("logs", "web"), "a trap")
    with asking(tmp_path / "docker.sock", "POST /containers/web/restart?t=86400"):
        wait_until(lambda: "asked" in guest.docker("logs", "web"), "a restart")
        assert guest.done("stop", "guest") == {("stop", "container", "guest.web")}
        assert running(engine_host) == set()


async def test_one_that_takes_a_day_to_end_is_killed(
    guest: Scoped, engine_host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.docker("run", "-d", "--name", "web", "--stop-timeout", "86400", IMAGE, "sleep", "1000")
    monkeypatch.setenv("DOM0_RUN", str(tmp_path / "run"))
    monkeypatch.setattr(subtree, "STOPPED_WITHIN", 0.5)
    upstream = Upstream(str(engine_host.socket))
    try:
        done = await subtree.stop(upstream, Scope("guest"))
    finally:
        await upstream.close()
    assert done == [subtree.Done(action="stop", kind="container", name="guest.web")]
    assert running(engine_host) == set()


def test_a_step_of_a_build_ends_with_it(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, "images: {use: [busybox], build: true}") as path:
        (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN sleep 1000\n")
        environment = engine_host.environment() | {"DOCKER_HOST": f"unix://{path}", "DOCKER_BUILDKIT": "0"}
        argv = ["docker", "build", "--tag", "app", str(tmp_path)]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as build:
            try:
                wait_until(lambda: bool(running(engine_host)), "a step")
                assert Scoped(engine_host, path).done("stop", "guest") == set()
                wait_until(lambda: not running(engine_host), "the end of the step")
                assert build.wait(60) != 0
            finally:
                build.kill()


def test_what_is_not_of_the_scope_stays(guest: Scoped, team: Scoped, engine_host: Host) -> None:
    for name, path in (
        ("guest.alike", ""),
        ("other.web", "/guest"),
        ("guests.web", "/guests"),
        ("guest.other", "/other"),
    ):
        label = ("--label", f"dom0.scope={path}") if path else ()
        engine_host.docker("create", "--name", name, *label, IMAGE, "true")
        engine_host.docker("volume", "create", *label, name)
        engine_host.docker("network", "create", *label, "--subnet", f"10.{200 + len(name)}.{len(path)}.0/24", name)
    foreign = listed(engine_host, "ps", "--all", "--format", "{{.Names}}")
    volumes, networks = listed(engine_host, "volume", "ls", "-q"), listed(engine_host, "network", "ls", "-q")
    guest.sleeper("web", "-v", "data:/data")
    team.sleeper("web", "-v", "data:/data")
    removed = guest.done("rm", "guest")
    assert {("remove", "container", "guest.web"), ("remove", "container", "guest.team.web")} < removed
    assert ("remove", "network", "guest.bridge") in removed
    assert listed(engine_host, "ps", "--all", "--format", "{{.Names}}") == foreign
    assert listed(engine_host, "network", "ls", "-q") == networks
    assert listed(engine_host, "volume", "ls", "-q") == volumes | {"guest.data", "guest.team.data"}
    assert "volumes that stay: guest.data, guest.team.data" in guest.command("rm", "guest").stdout
    gone = {("remove", "volume", "guest.data"), ("remove", "volume", "guest.team.data")}
    assert guest.done("rm", "guest", "--volumes") == gone
    assert listed(engine_host, "volume", "ls", "-q") == volumes
    assert guest.done("rm", "guest", "--volumes") == set()


def test_a_volume_that_somebody_else_uses_is_not_called_removed(guest: Scoped, engine_host: Host) -> None:
    guest.sleeper("web", "-v", "data:/data", "-v", "other:/other")
    engine_host.docker("run", "-d", "--init", "-v", "guest.data:/data", IMAGE, "sleep", "1000")
    refused = guest.command("rm", "guest", "--volumes")
    assert refused.code == 1
    assert "remove volume guest.data: " in refused.stdout
    assert "in use" in refused.stdout
    assert listed(engine_host, "volume", "ls", "--quiet") == {"guest.data"}


def test_a_scope_that_is_not_known_is_refused_with_those_that_are(guest: Scoped) -> None:
    guest.docker("volume", "create", "data")
    for command in ("stop", "rm"):
        refused = guest.command(command, "gest")
        assert (refused.code, refused.stdout) == (2, "")
        assert "gest: no such scope" in refused.stderr
        assert "there are: guest" in refused.stderr


def test_what_its_server_has_made_goes_with_it(engine_host: Host, tmp_path: Path) -> None:
    """Its volume on a granted path, and nobody else's; and its group, when nobody serves it any more."""
    grants = f"{GRANTS}\npaths: [/var/lib/guest]\npids: 100"
    groups = [one for one in CGROUPS.glob("*") if (one / engine_host.cgroup).is_dir()] or [CGROUPS]
    longer = tmp_path / "longer"
    longer.mkdir()
    engine_host.path("/var/lib/guest").mkdir(exist_ok=True)
    with scopes.served(engine_host, tmp_path, grants) as path:
        guest = Scoped(engine_host, path)
        with scopes.served(engine_host, longer, grants, scope="guest-2") as other:
            for scoped in (guest, Scoped(engine_host, other)):
                scoped.docker("run", "-v", "/var/lib/guest/sub:/sub", IMAGE, "touch", "/sub/kept")
        before = listed(engine_host, "volume", "ls", "-q")
        (mine,) = (name for name in before if name.startswith("PATHS.guest."))
        assert ("remove", "volume", mine) in guest.done("rm", "guest")
        assert listed(engine_host, "volume", "ls", "-q") == before - {mine}
        assert any((group / engine_host.cgroup / "guest").is_dir() for group in groups)
        assert guest.done("rm", "guest") == set()
    assert guest.done("rm", "guest") == {("remove", "control group", f"/{engine_host.cgroup}/guest")}
    assert not any((group / engine_host.cgroup / "guest").is_dir() for group in groups)
    assert guest.done("rm", "guest") == set()
    assert engine_host.path("/var/lib/guest/sub/kept").exists()


def test_one_whose_server_was_killed_is_known_until_it_is_removed(guest: Scoped) -> None:
    registration = guest.path.parent / "run/scopes/guest/scope.json"
    os.kill(json.loads(registration.read_text())["pid"], signal.SIGKILL)
    wait_until(lambda: "not served" in guest.command("ls").stdout, "the end of the server")
    assert ("remove", "registration", "guest") in guest.done("rm", "guest")
    assert "no scope is served here" in guest.command("ls").stderr
