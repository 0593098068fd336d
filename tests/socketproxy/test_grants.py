from __future__ import annotations

from pathlib import Path

import pytest

from dom0.errors import UsageError
from dom0.socketproxy import grants
from dom0.socketproxy.grants import Budget, Grants, Images, Ports


@pytest.mark.parametrize(
    ("pattern", "image", "may"),
    [
        ("busybox", "busybox:latest", True),
        ("busybox", "busybox:1.36", True),
        ("busybox", "busybox@sha256:" + "0" * 64, True),
        ("busybox", "busybox2:latest", False),
        ("busybox", "evil/busybox:latest", False),
        ("busybox:1.36", "busybox:1.36", True),
        ("busybox:1.36", "busybox:latest", False),
        ("guest/*", "guest/dom0:latest", True),
        ("guest/*", "other/guest/x:latest", False),
        ("localhost:5000/a", "localhost:5000/a:1", True),
        ("localhost:5000/a", "localhost/a:1", False),
    ],
)
def test_a_pattern_of_images(pattern: str, image: str, may: bool) -> None:
    assert Grants(images=Images(use=(pattern,))).may_use(image) is may


@pytest.mark.parametrize(
    ("granted", "asked", "may"),
    [
        ("8080", "8080/tcp", True),
        ("8080", "127.0.0.1:8080/tcp", True),
        ("8080", "0.0.0.0:8080", True),
        ("0.0.0.0:8080", "[::]:8080", True),
        ("8080", "8080/udp", False),
        ("8080-8090", "8085-8090/tcp", True),
        ("8080-8090", "8090-8091/tcp", False),
        ("127.0.0.1:8080", "127.0.0.1:8080/tcp", True),
        ("127.0.0.1:8080", "8080/tcp", False),
        ("[::1]:53/udp", "[::1]:53/udp", True),
        ("[::1]:53/udp", "[::2]:53/udp", False),
        ("0", "0/tcp", True),
        ("0", "127.0.0.1:0/tcp", True),
        ("127.0.0.1:0", "0/tcp", False),
        ("0", "32768/tcp", False),
        ("1-65535", "0/tcp", False),
    ],
)
def test_a_range_of_ports(granted: str, asked: str, may: bool) -> None:
    assert Grants(ports=(granted,)).may_publish(Ports.read(asked)) is may


@pytest.mark.parametrize(
    ("granted", "asked", "may"),
    [
        ("8080", "127.0.0.1:8080", True),
        ("8080", "[::1]:8080", True),
        ("8080", "192.168.1.5:8080", True),
        ("8080", "127.0.0.2:8080", False),
        ("8080", "127.1.2.3:8080", False),
        ("8080", "[::ffff:127.0.0.2]:8080", False),
        ("127.0.0.2:8080", "127.0.0.2:8080", True),
    ],
)
def test_a_port_at_any_address_is_not_one_at_each_of_the_millions_that_a_host_has(
    granted: str, asked: str, may: bool
) -> None:
    assert Grants(ports=(granted,)).may_publish(Ports.read(asked)) is may


@pytest.mark.parametrize("text", ["", "0-1", "65536", "90-80", "80/icmp", "host:80", "80-", "-80", "1.2.3.4", "*"])
def test_what_is_no_port_is_no_grant(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)port"):
        Grants(ports=(text,))


@pytest.mark.parametrize("name", ["host", "bridge", "none", "default", ""])
def test_networks_of_the_engine_itself_are_not_joined(name: str) -> None:
    with pytest.raises(ValueError, match="no network to join"):
        Grants(join=(name,))


@pytest.mark.parametrize(
    "text", ["", "/dev", "/dev/", "/dev/a/../b", "/dev/a:x", "/dev/a:/dev/b", "/etc/a", "/dev/a\n"]
)
def test_what_is_no_device_is_no_grant(text: str) -> None:
    with pytest.raises(ValueError, match="is not /dev/NAME"):
        Grants(devices=(text,))


@pytest.mark.parametrize("name", ["ALL", "net_admin", "NET_ADMN", "CAP_NET_ADMIN", ""])
def test_what_is_no_capability_is_no_grant(name: str) -> None:
    with pytest.raises(ValueError, match="none that can be granted"):
        Grants(capabilities=("CHOWN", name))


@pytest.mark.parametrize(
    "text", ["containers: -1", "networks: -1", "volumes: -1", "connections: -1", "images: {own: -1}"]
)
def test_a_count_is_not_negative(text: str, tmp_path: Path) -> None:
    (tmp_path / "grants.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"-1 is no number of"):
        grants.read(tmp_path / "grants.yaml")
    (tmp_path / "grants.yaml").write_text(text.replace("-1", "0"))
    grants.read(tmp_path / "grants.yaml")


def test_what_is_no_subnet_is_no_grant() -> None:
    with pytest.raises(ValueError, match="host bits set"):
        Grants(subnets=("10.1.2.3/16",))


def test_nothing_granted_is_no_image() -> None:
    assert not Grants().may_use("busybox:latest")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ports: [x]", "ports: 'x'"),
        ("devices: [sda]", "devices: 'sda'"),
        ("paths: [srv]", "paths: 'srv'"),
        ("subnets: [10.1.2.3/16]", "subnets: 10.1.2.3/16"),
        ("join: [host]", "join: host"),
        ("image: {}", "did you mean images?"),
        ("containers: many", "a whole number"),
        ("{", "no YAML"),
        ("\x00", "no YAML"),
    ],
)
def test_a_wrong_file_is_refused_where_it_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "grants.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        grants.read(file)
    assert said in f"{refused.value.message} {refused.value.hint}"
    assert str(file) in refused.value.message


def test_an_empty_file_grants_nothing(tmp_path: Path) -> None:
    file = tmp_path / "grants.yaml"
    file.write_text("# nothing\n")
    assert grants.read(file) == Grants()


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("memory: 512m", Budget(memory=512 << 20)),
        ("memory: 536870912", Budget(memory=512 << 20)),
        ("cpus: 1", Budget(cpus=1)),
        ("{cpus: 0.5, pids: 100}", Budget(cpus=0.5, pids=100)),
        ("{}", Budget()),
    ],
)
def test_a_budget(text: str, budget: Budget, tmp_path: Path) -> None:
    (tmp_path / "grants.yaml").write_text(text)
    assert grants.read(tmp_path / "grants.yaml").budget == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory: much", "'much' is no size"),
        ("memory: 1m", "memory: 1m is not from 6m"),
        ("memory: -1", "'-1' is no size"),
        ("cpus: 0", "cpus: 0"),
        ("cpus: .nan", "cpus: nan"),
        ("cpus: '2'", "has to be a number"),
        ("pids: 0", "pids: 0"),
        ("pids: 1.5", "has to be a whole number"),
    ],
)
def test_a_budget_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "grants.yaml").write_text(text)
    with pytest.raises(UsageError, match=said):
        grants.read(tmp_path / "grants.yaml")
