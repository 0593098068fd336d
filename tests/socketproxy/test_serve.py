"""A scoped socket in front of a real Engine, asked by the clients that people have."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import scopes
from dom0.testing.hosts import Host
from dom0.testing.scopes import Scoped

pytestmark = pytest.mark.engine
IMAGE = "busybox:test"
PROJECT = """
    name: shop
    services:
      db:
        image: busybox:test
        command: [sh, -c, "echo up >/data/is; exec sleep 1000"]
        init: true
        volumes: ["data:/data"]
        healthcheck: {test: [CMD, test, -e, /data/is], interval: 1s}
      web:
        image: busybox:test
        command: [sleep, "1000"]
        init: true
        depends_on: {db: {condition: service_healthy}}
        networks: [front, default]
      beside:
        image: busybox:test
        command: [sleep, "1000"]
        init: true
        network_mode: service:web
        volumes_from: [db]
    volumes: {data: {}}
    networks: {front: {}}
    """


@pytest.fixture
def guest(engine_host: Host, tmp_path: Path) -> Iterator[Scoped]:
    with scopes.served(engine_host, tmp_path, "images: {use: [busybox]}") as path:
        yield Scoped(engine_host, path)


@pytest.fixture
def other(engine_host: Host, tmp_path: Path) -> Iterator[Scoped]:
    directory = tmp_path / "other"
    directory.mkdir()
    with scopes.served(engine_host, directory, "images: {use: [busybox]}", scope="other") as path:
        yield Scoped(engine_host, path)


def names(host: Host) -> set[str]:
    return set(host.docker("ps", "--all", "--format", "{{.Names}}").stdout.split())


def test_the_docker_command_works_as_it_does(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    assert guest.docker("run", "--rm", IMAGE, "echo", "hello") == "hello\n"
    assert guest.docker("run", "--rm", "-i", IMAGE, "sh", stdin="echo typed\n") == "typed\n"
    guest.docker("run", "-d", "--init", "--name", "web", IMAGE, "sleep", "1000")
    assert names(engine_host) == {"guest.web"}
    assert guest.docker("ps", "--format", "{{.Names}}") == "web\n"
    assert guest.docker("ps", "--quiet", "--filter", "name=^/web$").strip() != ""
    assert guest.docker("exec", "-i", "web", "cat", stdin="in and out") == "in and out"
    assert guest.run("exec", "web", "sh", "-c", "exit 3").returncode == 3
    (tmp_path / "file").write_text("copied")
    guest.docker("cp", str(tmp_path / "file"), "web:/tmp/file")
    guest.docker("cp", "web:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "copied"
    guest.docker("rename", "web", "www")
    assert json.loads(guest.docker("inspect", "www"))[0]["Name"] == "/www"
    assert "www" in guest.docker("stats", "--no-stream")
    assert "sleep" in guest.docker("top", "www")
    guest.docker("pause", "www")
    guest.docker("unpause", "www")
    guest.docker("update", "--memory", "64m", "--memory-swap", "64m", "www")
    guest.docker("restart", "-t", "0", "www")
    assert guest.docker("wait", guest.docker("run", "-d", IMAGE, "sh", "-c", "exit 3").strip()) == "3\n"
    guest.docker("rm", "--force", "www")
    guest.docker("container", "prune", "--force")
    assert names(engine_host) == set()


def test_docker_compose_works_as_it_does(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(PROJECT)
    compose = ("compose", "--file", str(file))
    guest.docker(*compose, "up", "--detach", "--wait")
    assert names(engine_host) == {"guest.shop-db-1", "guest.shop-web-1", "guest.shop-beside-1"}
    assert "1 packets received" in guest.docker(*compose, "exec", "-T", "web", "ping", "-c", "1", "db")
    assert guest.docker(*compose, "exec", "-T", "beside", "cat", "/data/is") == "up\n"
    before = guest.docker("ps", "--quiet")
    assert engine_host.docker("compose", "ls", "--all", "--quiet").stdout == ""
    assert engine_host.docker("compose", "--project-name", "shop", "ps", "--all", "--quiet").stdout == ""
    engine_host.docker("compose", "--project-name", "shop", "down", "--remove-orphans", "--volumes")
    guest.docker(*compose, "up", "--detach")
    assert guest.docker("ps", "--quiet") == before
    guest.docker(*compose, "up", "--detach", "--force-recreate", "--timeout", "1")
    assert set(guest.docker("ps", "--quiet").split()).isdisjoint(before.split())
    guest.docker(*compose, "down", "--volumes", "--timeout", "1")
    assert names(engine_host) == set()
    assert guest.docker("volume", "ls", "--quiet") == ""
    assert guest.docker("network", "ls", "--format", "{{.Name}}") == "bridge\nhost\nnone\n"


def test_a_container_that_was_renamed_is_found_by_its_new_name(guest: Scoped) -> None:
    guest.docker("network", "create", "front")
    guest.docker("run", "-d", "--init", "--name", "asks", "--network", "front", IMAGE, "sleep", "1000")
    own = ("--network", "front", "--network-alias", "too")
    guest.docker("create", "--name", "before", "--init", *own, IMAGE, "sleep", "1000")
    guest.docker("rename", "before", "after")
    guest.docker("start", "after")
    for name in ("after", "too"):
        assert "1 packets received" in guest.docker("exec", "asks", "ping", "-c", "1", name)
    assert "bad address" in guest.docker("exec", "asks", "ping", "-c", "1", "before", check=False)


def test_an_image_is_seen_by_the_names_that_were_granted(engine_host: Host, tmp_path: Path) -> None:
    engine_host.docker("tag", IMAGE, "guest/tool:1")
    with scopes.served(engine_host, tmp_path, 'images: {use: ["guest/*"]}') as path:
        guest = Scoped(engine_host, path)
        assert guest.docker("run", "--rm", "guest/tool:1", "echo", "runs") == "runs\n"
        assert guest.docker("images", "--format", "{{.Repository}}:{{.Tag}}") == "guest/tool:1\n"
        image_id = guest.docker("images", "--quiet", "--no-trunc").strip()
        assert json.loads(guest.docker("image", "inspect", image_id))[0]["RepoTags"] == ["guest/tool:1"]
        assert guest.docker("run", "--rm", image_id.removeprefix("sha256:")[:12], "echo", "by ID") == "by ID\n"
        assert "not granted" in guest.docker("run", "--rm", IMAGE, "true", check=False)  # a pull


def test_labels_are_found_by_who_gave_them_and_by_nobody_else(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    def now() -> str:
        return engine_host.docker("info", "--format", "{{.SystemTime}}").stdout.strip()

    since, wanted = now(), ("--filter", "label=traefik.enable=true")
    lists = {"ps": ("ps", "--all"), "network": ("network", "ls"), "volume": ("volume", "ls")}

    def told(docker: Callable[..., Any]) -> dict[str, list[str]]:
        found = {kind: docker(*asked, "--quiet", *wanted) for kind, asked in lists.items()}
        found["events"] = docker("events", "--since", since, "--until", now(), *wanted, "--format", "{{.Action}}")
        return {kind: getattr(said, "stdout", said).split() for kind, said in found.items()}

    def make(scope: Scoped) -> None:
        for kind in ("network", "volume"):
            scope.docker(kind, "create", "--label", "traefik.enable=true", "labelled")
        scope.docker("create", "--label", "traefik.enable=true", "--name", "labelled", IMAGE, "true")

    directory = tmp_path / "team"
    directory.mkdir()
    with scopes.served(engine_host, directory, "images: {use: [busybox]}", scope="team", engine=guest.path) as path:
        make(Scoped(engine_host, path))
        seen = told(Scoped(engine_host, path).docker)
        assert {kind: len(rows) for kind, rows in seen.items()} == {"ps": 1, "network": 1, "volume": 1, "events": 1}
        assert not any(told(guest.docker).values())
    make(guest)
    assert {kind: len(rows) for kind, rows in told(guest.docker).items()} == dict.fromkeys(seen, 1)
    assert not any(told(engine_host.docker).values())
    raw = json.loads(engine_host.docker("inspect", "guest.team.labelled").stdout)[0]["Config"]["Labels"]
    assert raw["guest/team/traefik.enable"] == "true"


def test_two_scopes_see_each_their_own(guest: Scoped, other: Scoped, engine_host: Host) -> None:
    engine_host.docker("run", "-d", "--init", "--name", "web", IMAGE, "sleep", "1000")
    for scope in (guest, other):
        scope.docker("run", "-d", "--init", "--name", "web", "--volume", "data:/data", IMAGE, "sleep", "1000")
    assert names(engine_host) == {"web", "guest.web", "other.web"}
    assert guest.docker("ps", "--format", "{{.Names}}") == other.docker("ps", "--format", "{{.Names}}") == "web\n"
    guest.docker("exec", "web", "touch", "/data/mine")
    assert other.docker("exec", "web", "ls", "/data") == ""
    guest.docker("rm", "--force", "web")
    guest.docker("volume", "prune", "--all", "--force")
    assert names(engine_host) == {"web", "other.web"}
    assert other.docker("volume", "ls", "--quiet") == "data\n"


def test_a_scope_inside_a_scope(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "team"
    directory.mkdir()
    with scopes.served(engine_host, directory, "images: {use: [busybox]}", scope="team", engine=guest.path) as path:
        team = Scoped(engine_host, path)
        team.docker("run", "-d", "--init", "--name", "web", IMAGE, "sleep", "1000")
        guest.docker("run", "-d", "--init", "--name", "web", IMAGE, "sleep", "1000")
        assert names(engine_host) == {"guest.team.web", "guest.web"}
        assert set(guest.docker("ps", "--format", "{{.Names}}").split()) == {"team.web", "web"}
        assert team.docker("ps", "--format", "{{.Names}}") == "web\n"
        assert "No such container" in team.docker("rm", "--force", guest.docker("ps", "-qf", "name=^/web").strip())
        assert "not through this socket" in team.docker("run", "--privileged", IMAGE, "true", check=False)
    label = engine_host.docker("inspect", "--format", '{{index .Config.Labels "dom0.scope"}}', "guest.team.web")
    assert label.stdout == "/guest/team\n"


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(guest: Scoped) -> None:
    guest.docker("run", "--name", "says", IMAGE, "echo", "hello")
    answer = guest.client.send(b"GET /containers/says/logs?stdout=1 HTTP/1.0\r\n\r\n", patience=60)
    head, _, body = answer.content.partition(b"\r\n\r\n")
    assert (answer.status, b"chunked" in head.lower()) == (200, False)
    assert body.endswith(b"hello\n")
    assert not body.startswith(b"e\r\n")


def test_a_large_archive_comes_whole(guest: Scoped, tmp_path: Path) -> None:
    fill = "dd if=/dev/urandom of=/big bs=1M count=20 && sha256sum /big"
    digest = guest.docker("run", "--name", "big", IMAGE, "sh", "-c", f"({fill}) 2>/dev/null").split()[0]
    guest.docker("cp", "big:/big", str(tmp_path / "big"))
    assert hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest() == digest
    guest.docker("cp", str(tmp_path / "big"), "big:/again")
    guest.docker("cp", "big:/again", str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "big").read_bytes()


def _names_in_events(scoped: Scoped) -> set[str]:
    """Of the last minute, those of earlier tests too."""
    events = scoped.docker("events", "--since", "1m", "--until", "0s", "--format", "{{json .}}").splitlines()
    return {json.loads(line)["Actor"]["Attributes"].get("name", "") for line in events}


def test_events_are_of_the_scope(guest: Scoped, engine_host: Host) -> None:
    engine_host.docker("run", "--rm", "--name", "foreign", IMAGE, "true")
    guest.docker("run", "--rm", "--name", "own", IMAGE, "true")
    deadline = time.monotonic() + 60
    while "own" not in (heard := _names_in_events(guest)):  # docker cuts off the second that has begun
        assert time.monotonic() < deadline, heard
    assert "foreign" not in heard


def test_a_container_gets_the_scopes_socket_for_the_engines(guest: Scoped, engine_host: Host) -> None:
    guest.docker(
        "run",
        "-d",
        "--init",
        "--name",
        "tool",
        "-v",
        "/var/run/docker.sock:/var/run/docker.sock",
        IMAGE,
        "sleep",
        "1000",
    )
    mounts = json.loads(engine_host.docker("inspect", "guest.tool").stdout)[0]["Mounts"]
    assert [mount["Source"] for mount in mounts] == [str(guest.path)]
    assert json.loads(guest.docker("inspect", "tool"))[0]["Mounts"][0]["Source"] == "/var/run/docker.sock"


def test_an_orchestrator_changes_no_limits_of_its_own(guest: Scoped, engine_host: Host) -> None:
    given = ("--label", "dom0.scope=/guest", "--label", "dom0.orchestrator={}", IMAGE, "true")
    engine_host.docker("create", "--name", "guest.dom0", *given)
    for command in (("update", "--pids-limit", "-1"), ("rename",), ("rm",)):
        said = guest.docker(*command, "dom0", *(("other",) if command == ("rename",) else ()), check=False)
        assert "is the orchestrator's own container" in said
    guest.docker("container", "prune", "--force")
    assert guest.docker("ps", "--all", "--format", "{{.Names}}") == "dom0\n"
    inner = ("--label", "dom0.scope=/team", "--label", "dom0.orchestrator={}", IMAGE, "true")
    guest.docker("create", "--name", "team.dom0", *inner)
    guest.docker("update", "--pids-limit", "10", "team.dom0")
    guest.docker("rename", "team.dom0", "team.other")
    guest.docker("rm", "team.other")


def test_volumes_without_a_name_are_counted(guest: Scoped) -> None:
    mounts = [argument for number in range(101) for argument in ("--mount", f"type=volume,target=/v{number}")]
    assert "100 volumes are all" in guest.docker("create", *mounts, IMAGE, check=False)
    assert guest.docker("volume", "ls", "--quiet") == ""


def test_a_refusal_says_what_and_how_it_would_be_granted(guest: Scoped, tmp_path: Path) -> None:
    said = guest.docker("run", "--cap-add", "NET_ADMIN", IMAGE, "true", check=False)
    assert "HostConfig.CapAdd: 'NET_ADMIN': not granted; it would take the grant capabilities: [NET_ADMIN]" in said
    assert "not granted" in (tmp_path / "serve.log").read_text()


def test_what_is_said_behind_an_upgrade_that_was_not_given_is_no_request(guest: Scoped) -> None:
    start = b'{"Detach":true}'
    head = b"POST /exec/" + b"0" * 64 + b"/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
    behind = b"GET /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    answer = guest.client.send(head + f"Content-Length: {len(start)}\r\n\r\n".encode() + start + behind)
    assert answer.status == 404


def test_clients_that_say_nothing_are_in_nobodys_way(guest: Scoped) -> None:
    """Of those that a scope may have at a time, each open connection is one; then the next is told so at once."""
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            silent.connect(str(guest.path))
            silent.sendall(b"GET /_ping HT")
        deadline = time.monotonic() + 60
        while guest.client.ask("GET", "/_ping").status != 503:
            assert time.monotonic() < deadline
    deadline = time.monotonic() + 60
    while guest.client.ask("GET", "/_ping").status != 200:
        assert time.monotonic() < deadline


def _descriptors(connection: socket.socket) -> int:
    """How many the process has open that listens at the other end."""
    pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_client_that_goes_takes_its_request_along(guest: Scoped) -> None:
    with contextlib.ExitStack() as stack:
        stays, *others = (stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in range(6))
        for follower in (stays, *others):
            follower.settimeout(60)
            follower.connect(str(guest.path))
            follower.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            assert follower.recv(1000).startswith(b"HTTP/1.1 200")
        open_with_all = _descriptors(stays)
        for follower in others:
            follower.close()
        deadline = time.monotonic() + 60
        while (still := _descriptors(stays)) > open_with_all - 2 * len(others):  # theirs, and those to the Engine
            assert time.monotonic() < deadline, f"{still} of {open_with_all}"
            time.sleep(0.1)


def test_a_network_of_somebody_else_is_not_the_scopes_bridge(guest: Scoped, engine_host: Host) -> None:
    engine_host.docker("network", "create", "guest.bridge")
    said = guest.docker("run", "--rm", IMAGE, "true", check=False)
    assert "already exists" in said
    assert names(engine_host) == set()


def test_a_network_is_found_by_the_beginning_of_its_id(guest: Scoped) -> None:
    guest.docker("network", "create", "front")
    own = ("network", "ls", "--quiet", "--filter", "name=front")
    short = guest.docker(*own).split()
    assert len(short) == 1
    assert len(short[0]) == 12
    guest.docker("network", "rm", short[0])
    assert guest.docker(*own) == ""


def test_many_at_once(guest: Scoped) -> None:
    guest.docker("run", "-d", "--init", "--name", "web", IMAGE, "sleep", "1000")
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(guest.client.ask("GET", "/containers/web/json", patience=60).status)
        )
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert statuses == [200] * 50


def test_without_an_engine_it_says_so(engine_host: Host, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="does not answer"),
        scopes.served(engine_host, tmp_path, engine=tmp_path / "none.sock"),
    ):
        pass


def test_a_second_one_does_not_take_the_socket_away(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another process serves this socket"), scopes.served(engine_host, tmp_path):
        pass
    assert guest.client.ask("GET", "/_ping", patience=60).status == 200
