"""Networks of others that a scope may join, addresses and devices that it was granted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dom0.testing import scopes
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
IMAGE = "busybox:test"
GRANTS = """
images: {use: [busybox]}
join: [front]
subnets: [10.213.0.0/16]
devices: ["/dev/loop-control:r"]
"""
Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def docker(engine_host: Host, tmp_path: Path) -> Iterator[Docker]:
    """The host's docker command through the socket of a scope; `proxy` is on the network `front`, and not its own."""
    engine_host.docker("network", "create", "--label", "secret=1", "front")
    engine_host.docker("run", "-d", "--init", "--network", "front", "--name", "proxy", IMAGE, "sleep", "1000")
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield partial(scopes.docker, engine_host, path, check=False)


def known_as(host: Host, container: str) -> set[str]:
    """To the Engine's DNS on `front`; without the beginning of its ID."""
    (found,) = json.loads(host.docker("inspect", container).stdout)
    return set(found["NetworkSettings"]["Networks"]["front"]["DNSNames"]) - {found["Id"][:12]}


def test_a_container_on_a_network_of_others_has_its_long_name_there(docker: Docker, engine_host: Host) -> None:
    assert docker("network", "ls", "--format", "{{.Name}}").stdout == "bridge\nfront\nhost\nnone\n"
    own = ("--network", "front", "--network-alias", "db", "--init", "--name", "web")
    assert docker("run", "-d", *own, IMAGE, "sleep", "1000").returncode == 0
    assert docker("exec", "web", "ping", "-c", "1", "proxy").returncode == 0
    engine_host.docker("exec", "proxy", "ping", "-c", "1", "guest.web")
    assert known_as(engine_host, "guest.web") == {"guest.web"}
    seen = json.loads(docker("network", "inspect", "front").stdout)[0]
    assert [member["Name"] for member in seen["Containers"].values()] == ["web"]
    assert seen["Labels"] == {}
    assert docker("network", "disconnect", "front", "web").returncode == 0
    assert json.loads(docker("network", "inspect", "front").stdout)[0]["Containers"] == {}
    assert docker("network", "connect", "--alias", "db", "front", "web").returncode == 0
    assert known_as(engine_host, "guest.web") == {"guest.web"}


def test_nobodys_name_or_address_is_taken_there(docker: Docker, engine_host: Host) -> None:
    said = docker("run", "--network", "front", "--hostname", "proxy", IMAGE, "true").stderr
    assert "Hostname: 'proxy': not on front" in said
    said = docker("run", "--network", "front", "--ip", "172.18.0.9", IMAGE, "true").stderr
    assert "an address of one's own" in said
    said = docker("run", "--network", "front", "--mac-address", "02:42:ac:12:00:02", IMAGE).stderr
    assert "an address of one's own" in said
    docker("create", "--name", "named", "--hostname", "proxy", IMAGE, "true")
    assert "Hostname" in docker("network", "connect", "front", "named").stderr
    made = ""
    while not made.startswith("a"):
        docker("rm", "short")
        made = docker("create", "--name", "short", "--hostname", "a", IMAGE, "true").stdout
    assert "Hostname" in docker("network", "connect", "front", "short").stderr
    for command in (("disconnect", "front", "proxy"), ("rm", "front"), ("create", "front")):
        assert docker("network", *command).returncode == 1
    assert docker("network", "prune", "--force").returncode == 0
    assert known_as(engine_host, "proxy") == {"proxy"}


def test_a_compose_project_joins_it_as_an_external_network(docker: Docker, engine_host: Host, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        "name: shop\n"
        "services: {web: {image: 'busybox:test', init: true, command: [sleep, '1000'], networks: [front, default]}}\n"
        "networks: {front: {external: true}, default: {ipam: {config: [{subnet: 10.213.1.0/24}]}}}\n"
    )
    compose = ("compose", "--file", str(file))
    ended = docker(*compose, "up", "--detach")
    assert ended.returncode == 0, ended.stderr
    assert known_as(engine_host, "guest.shop-web-1") == {"guest.shop-web-1"}
    before = docker("ps", "--quiet").stdout
    assert docker(*compose, "up", "--detach").returncode == 0
    assert docker("ps", "--quiet").stdout == before


def test_addresses_and_devices_are_there_as_they_were_granted(docker: Docker) -> None:
    assert docker("network", "create", "--subnet", "10.213.2.0/24", "own").returncode == 0
    own = ("--network", "own", "--ip", "10.213.2.77", "--device", "/dev/loop-control:/dev/x:r")
    ended = docker("run", "--rm", *own, IMAGE, "sh", "-c", "ip address; : </dev/x && echo read; : >/dev/x")
    assert "10.213.2.77" in ended.stdout
    assert ended.stdout.endswith("read\n")
    assert "Operation not permitted" in ended.stderr
    said = docker("network", "create", "--subnet", "10.214.0.0/24", "other").stderr
    assert 'it would take the grant subnets: ["10.214.0.0/24"]' in said
    said = docker("run", "--rm", "--device", "/dev/loop-control", IMAGE, "true").stderr
    assert 'it would take the grant devices: ["/dev/loop-control"]' in said
