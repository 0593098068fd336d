"""What the host has is read from /proc."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.agent.host import look_at_host
from dom0.engine.bodies import DeviceMapping
from dom0.engine.values import PublishedPort
from dom0.plan.desired import Slot
from dom0.plan.host_checks import HostFacts
from dom0.testing.builders import asking, desired, slot


@pytest.fixture(
    params=[
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", ""),  # noqa: S104 -- that is what is looked for
        (socket.AF_INET6, "::1", "::1"),
    ]
)
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[int, str]]:
    family, address, ip = request.param
    with socket.socket(family, socket.SOCK_STREAM) as server:
        try:
            server.bind((address, 0))
        except OSError as error:
            pytest.skip(f"{address}: {error}")
        server.listen()
        yield server.getsockname()[1], ip


def look(port: PublishedPort) -> HostFacts:
    return look_at_host(desired(slot("web", ports=(port,))), None, cpus=2, root=Path("/"))


def test_a_program_that_listens_is_found_with_its_address_and_name(listening: tuple[int, str]) -> None:
    port, ip = listening
    found = look(PublishedPort("tcp", port)).listeners
    assert [listener.port for listener in found] == [PublishedPort("tcp", port, ip)]
    assert f"(process {os.getpid()})" in found[0].program
    assert look(PublishedPort("udp", port)).listeners == ()


def test_a_udp_socket_that_is_not_connected_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        number = server.getsockname()[1]
        udp = PublishedPort("udp", number, "127.0.0.1")
        found = look(PublishedPort("udp", number)).listeners
        assert ([it.port for it in found], f"(process {os.getpid()})" in found[0].program) == ([udp], True)
        assert look(PublishedPort("tcp", number)).listeners == ()


def test_a_device_is_looked_for_on_the_host(tmp_path: Path) -> None:
    def with_device(service: str, path: str) -> Slot:
        device = DeviceMapping(path_on_host=path, path_in_container=path, cgroup_permissions="rwm")
        return asking(slot(service), host={"devices": (device,)})

    asked = desired(with_device("a", "/dev/null"), with_device("b", "/dev/nope"))
    assert look_at_host(asked, None, cpus=2, root=Path("/")).absent == {"/dev/nope"}
    assert look_at_host(asked, None, cpus=2, root=tmp_path).absent == frozenset()
