"""What a client sees through a scoped socket is what it would see on an Engine of its own."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dom0.testing import api, scopes
from dom0.testing.escape.raw import Client
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
IMAGE = "busybox:test"
WAITS = (IMAGE, "sleep", "1000")
GRANTS = "{images: {use: [busybox]}, containers: 4, networks: 3, volumes: 3}"

Docker = Callable[..., str]


@pytest.fixture
def socket(engine_host: Host, tmp_path: Path) -> Iterator[Path]:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield path


@pytest.fixture
def docker(engine_host: Host, socket: Path) -> Docker:
    def run(*arguments: str, check: bool = True) -> str:
        ended: subprocess.CompletedProcess[str] = scopes.docker(engine_host, socket, *arguments, check=check)
        return ended.stdout if check else ended.stdout + ended.stderr

    return run


def volumes(docker: Docker) -> list[str]:
    return docker("volume", "ls", "--quiet").split()


def test_a_volume_without_a_name_is_listed_found_and_goes_with_its_container(docker: Docker) -> None:
    docker("create", "--name", "one", "--volume", "/data", *WAITS)
    (name,) = volumes(docker)
    assert re.fullmatch("[0-9a-f]{64}", name)
    (mount,) = json.loads(docker("inspect", "one"))[0]["Mounts"]
    assert (mount["Name"], mount["Destination"]) == (name, "/data")
    assert json.loads(docker("volume", "inspect", name))[0]["Name"] == name
    docker("run", "--rm", "--volume", f"{name}:/d", IMAGE, "touch", "/d/file")
    assert docker("run", "--rm", "--volumes-from", "one", IMAGE, "ls", "/data") == "file\n"
    docker("rm", "--volumes", "one")
    docker("run", "--rm", "--volume", "/data", IMAGE, "true")
    assert volumes(docker) == []


def test_a_volume_without_a_name_is_pruned_and_one_with_a_name_is_not(docker: Docker) -> None:
    docker("volume", "create")
    docker("volume", "create", "kept")
    docker("create", "--name", "one", "--volume", "/data", *WAITS)
    docker("rm", "one")
    assert len(volumes(docker)) == 3
    docker("volume", "prune", "--force")
    assert volumes(docker) == ["kept"]


def test_a_volume_without_a_name_is_nobody_elses(engine_host: Host, docker: Docker) -> None:
    engine_host.docker("create", "--volume", "/data", IMAGE, "true")
    (foreign,) = engine_host.docker("volume", "ls", "--quiet").stdout.split()
    assert volumes(docker) == []
    assert "no such volume" in docker("volume", "inspect", foreign, check=False)
    docker("create", "--volume", f"{foreign}:/data", *WAITS)
    assert set(engine_host.docker("volume", "ls", "--quiet").stdout.split()) == {foreign, f"guest.{foreign}"}


def test_a_scope_inside_has_volumes_without_a_name_and_links_too(
    engine_host: Host, socket: Path, docker: Docker, tmp_path: Path
) -> None:
    directory = tmp_path / "team"
    directory.mkdir()
    with scopes.served(engine_host, directory, GRANTS, scope="team", engine=socket) as inner:
        scopes.docker(engine_host, inner, "run", "-d", "--init", "--name", "db", "--volume", "/data", *WAITS)
        (name,) = scopes.docker(engine_host, inner, "volume", "ls", "--quiet").stdout.split()
        assert volumes(docker) == [name]
        pinged = ("run", "--rm", "--volumes-from", "db", "--link", "db:other", IMAGE, "ping", "-c", "1", "other")
        assert "1 packets received" in scopes.docker(engine_host, inner, *pinged).stdout
        scopes.docker(engine_host, inner, "rm", "--force", "--volumes", "db")
        assert volumes(docker) == []


def test_volumes_of_an_image_are_the_scopes_and_of_another_container_that_ones(
    engine_host: Host, docker: Docker
) -> None:
    engine_host.docker("create", "--name", "made", IMAGE, "true")
    engine_host.docker("commit", "--change", "VOLUME /data", "made", "busybox:volume")
    engine_host.docker("rm", "made")
    docker("create", "--name", "one", "busybox:volume", "true")
    docker("create", "--name", "two", "--volumes-from", "one:ro", "busybox:volume", "true")
    assert len(volumes(docker)) == 1
    found = json.loads(docker("inspect", "two"))[0]
    assert found["HostConfig"]["VolumesFrom"] == ["one:ro"]
    assert found["HostConfig"].get("Mounts") is None
    docker("rm", "two")
    docker("rm", "--volumes", "one")
    assert volumes(docker) == []


def test_compose_keeps_a_volume_without_a_name_when_it_makes_the_container_anew(docker: Docker, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    service = {"image": IMAGE, "init": True, "command": ["sleep", "1000"], "volumes": ["/data"]}
    file.write_text(json.dumps({"name": "shop", "services": {"db": service}}))
    compose = ("compose", "--file", str(file))
    docker(*compose, "up", "--detach")
    docker(*compose, "exec", "-T", "db", "touch", "/data/kept")
    docker(*compose, "up", "--detach", "--force-recreate", "--timeout", "1")
    assert docker(*compose, "exec", "-T", "db", "ls", "/data") == "kept\n"
    docker(*compose, "down", "--timeout", "1")


def test_the_networks_of_every_engine_are_listed_and_stay(docker: Docker) -> None:
    def listed(*more: str) -> list[str]:
        return sorted(docker("network", "ls", "--format", "{{.Name}} {{.Driver}}", *more).splitlines())

    assert listed() == ["bridge bridge", "host host", "none null"]
    docker("network", "create", "front")
    docker("run", "-d", "--init", *WAITS)
    assert listed() == ["bridge bridge", "front bridge", "host host", "none null"]
    assert listed("--filter", "driver=bridge") == ["bridge bridge", "front bridge"]
    assert listed("--filter", "name=on") == ["front bridge", "none null"]
    assert listed("--filter", "label=a") == []
    assert json.loads(docker("network", "inspect", "none"))[0]["Driver"] == "null"
    for name in ("bridge", "host", "none"):
        assert "pre-defined" in docker("network", "rm", name, check=False)
        assert name in docker("network", "create", name, check=False)
    assert listed() == ["bridge bridge", "front bridge", "host host", "none null"]


def test_a_link_sets_the_variables_that_it_sets_on_docker0(docker: Docker) -> None:
    docker("run", "-d", "--init", "--name", "db", "--expose", "6379", "--env", "USER=me", *WAITS)
    said = docker("run", "--rm", "--name", "web", "--link", "db:redis", "--env", "REDIS_ENV_USER=own", IMAGE, "env")
    assert {line for line in said.splitlines() if line.startswith("REDIS_")} == {
        "REDIS_PORT=tcp://redis:6379",
        "REDIS_PORT_6379_TCP=tcp://redis:6379",
        "REDIS_PORT_6379_TCP_ADDR=redis",
        "REDIS_PORT_6379_TCP_PORT=6379",
        "REDIS_PORT_6379_TCP_PROTO=tcp",
        "REDIS_NAME=/web/redis",
        "REDIS_ENV_USER=own",
    }
    assert "1 packets received" in docker("run", "--rm", "--link", "db:redis", IMAGE, "ping", "-c", "1", "redis")


def test_a_rename_that_fails_leaves_the_container_its_name_on_its_networks(docker: Docker) -> None:
    docker("network", "create", "front")
    front = ("--network", "front", "--init")
    docker("create", "--name", "one", *front, *WAITS)
    docker("run", "-d", "--name", "two", *front, *WAITS)
    assert "is already in use" in docker("rename", "one", "two", check=False)
    docker("start", "one")
    assert "1 packets received" in docker("exec", "two", "ping", "-c", "1", "one")


@pytest.mark.parametrize(
    ("target", "body", "listed", "most"),
    [
        ("/containers/create", {"Image": IMAGE, "Cmd": ["true"]}, "/containers/json", 4),
        ("/networks/create", {"Name": "n{}"}, "/networks", 3),
        ("/volumes/create", {"Name": "v{}"}, "/volumes", 3),
    ],
)
def test_no_more_is_made_at_once_than_was_granted(
    socket: Path, engine_host: Host, target: str, body: dict[str, Any], listed: str, most: int
) -> None:
    client = Client(socket)

    def make(number: int) -> int:
        asked = json.loads(json.dumps(body).replace("{}", str(number)))
        return client.ask("POST", target, asked, patience=60).status

    with ThreadPoolExecutor(12) as threads:
        statuses = sorted(threads.map(make, range(12)))
    assert statuses == [201] * most + [403] * (12 - most)
    found = api.request(engine_host.socket, "GET", listed, query={"all": "1"})
    names = [
        row["Names"][0] if "Names" in row else row["Name"]
        for row in (found if isinstance(found, list) else found["Volumes"])
    ]
    assert sum(name.lstrip("/").startswith("guest.") for name in names) == most
