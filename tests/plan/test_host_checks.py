"""What a host does not have for a project is refused with its place, before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.engine.bodies import DeviceMapping
from dom0.engine.values import PublishedPort
from dom0.errors import ProjectError
from dom0.plan.desired import Slot
from dom0.plan.host_checks import HostFacts, ListeningSocket, check_host
from dom0.testing.builders import asking, desired, slot

PORT = PublishedPort("tcp", 8080)
NGINX = ListeningSocket(PORT, "nginx (process 7)")


def web(**fields: Any) -> Slot:
    return slot("web", **fields)


def with_device(path: str) -> Slot:
    device = DeviceMapping(path_on_host=path, path_in_container=path, cgroup_permissions="rwm")
    return asking(web(), host={"devices": (device,)})


def test_a_port_that_another_program_has_is_refused_by_the_name_of_the_program() -> None:
    with pytest.raises(ProjectError, match=r"services\.web\.ports: 8080/tcp is in use by nginx \(process 7\)"):
        check_host(desired(web(ports=(PORT,))), None, HostFacts(listeners=(NGINX,)))


@pytest.mark.parametrize(
    "listens", [PublishedPort("udp", 8080), PublishedPort("tcp", 8081), PublishedPort("tcp", 8080, "10.0.0.2")]
)
def test_another_protocol_port_or_address_is_not_in_the_way(listens: PublishedPort) -> None:
    wanted = web(ports=(PublishedPort("tcp", 8080, "10.0.0.1"),))
    check_host(desired(wanted), None, HostFacts(listeners=(ListeningSocket(listens, "other"),)))


def test_a_port_that_the_machine_has_already_is_its_own() -> None:
    asked = desired(web(ports=(PORT,)))
    check_host(asked, asked, HostFacts(listeners=(NGINX,)))


def test_a_port_of_a_container_of_ours_that_no_generation_knows_is_our_own() -> None:
    check_host(desired(web(ports=(PORT,))), None, HostFacts(listeners=(NGINX,), held=(PORT,)))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ProjectError, match=r"services\.web\.devices: there is no /dev/nope on this host"):
        check_host(desired(with_device("/dev/nope")), None, HostFacts(absent=frozenset({"/dev/nope"})))
    check_host(desired(with_device("/dev/null")), None, HostFacts(absent=frozenset({"/dev/nope"})))


def test_more_processors_than_there_are_are_refused() -> None:
    asked = desired(web(resources={"NanoCpus": 4_000_000_000}))
    with pytest.raises(ProjectError, match="4 processors are more than this host has, 2"):
        check_host(asked, None, HostFacts(cpus=2))
    check_host(asked, None, HostFacts(cpus=4))
    check_host(asked, None, HostFacts())


def test_a_memory_limit_without_its_unit_is_refused_and_one_above_the_hosts_is_not() -> None:
    with pytest.raises(ProjectError, match="a memory limit of 512 bytes"):
        check_host(desired(web(resources={"Memory": 512})), None, HostFacts())
    check_host(desired(web(resources={"Memory": 1 << 50})), None, HostFacts())
