"""Who may have the shortcut, and whose namespace is entered. What it does is in tests/machine/test_ambassador.py."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dom0.agent.shortcut import Ended, addresses, enter, table_name, why_not
from dom0.engine.bodies import ContainerBody
from dom0.engine.values import Container, Endpoint, State
from dom0.errors import Dom0Error
from dom0.plan import labels
from dom0.testing.builders import PROJECT, container, slot
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.fake_talk import make_state

ON = make_state(shortcut=True)


def made(**fields: Any) -> Container:
    return container(slot("web"), **fields)


@pytest.mark.parametrize(
    "marks",
    [
        {},
        {labels.PROJECT: PROJECT},
        {labels.PROJECT: "other", labels.ROLE: "service"},
        {labels.PROJECT: PROJECT, labels.ROLE: "root"},
        {labels.PROJECT: PROJECT, labels.ROLE: "sshd"},
        {"com.docker.compose.project": PROJECT, labels.ROLE: "service"},
    ],
    ids=str,
)
def test_a_container_that_is_no_service_of_ours_gets_none(marks: dict[str, str]) -> None:
    assert why_not(ON, made(labels=marks), PROJECT) == "dom0 did not make it"


def test_a_service_and_a_dev_container_may_have_it() -> None:
    assert why_not(ON, made(), PROJECT) == ""
    assert why_not(ON, made(labels={labels.ROLE: "dev", labels.PROJECT: ""}), PROJECT) == ""


def test_an_ambassador_a_switch_and_another_plane_stand_against_it() -> None:
    assert why_not(ON, made(labels=made().labels | {labels.AMBASSADOR: "true"}), PROJECT) == "it forwards itself"
    assert "switched off" in why_not(make_state(), made(), PROJECT)
    assert "relay" in why_not(make_state(shortcut=True, plane="relay"), made(), PROJECT)


def test_only_addresses_on_common_networks_are_the_ambassadors_for_a_consumer() -> None:
    def on(*networks: str) -> tuple[Endpoint, ...]:
        return tuple(
            Endpoint(network=name, network_id=name, ip_address=f"10.0.{number}.9", ipv6_address="fd00::09")
            for number, name in enumerate(networks)
        )

    ambassador, consumer = made(endpoints=on("a", "b")), made(endpoints=on("b", "c"))
    assert addresses(ambassador, consumer) == ("10.0.1.9", "fd00::9")
    assert addresses(ambassador, made(endpoints=on("c"))) == ()


def test_a_table_has_the_same_name_for_every_container_of_a_service() -> None:
    assert table_name("redis") == table_name("redis") != table_name("redis-2")
    assert table_name("x; flush ruleset").isalnum()


class Process:
    """The container's process, in a network namespace of its own, on the fake Engine."""

    def __init__(self, pid: int) -> None:
        self.docker = FakeDocker()
        self.docker.images.add("busybox:test")
        self.made = self.docker.create("web", ContainerBody(image="busybox:test", cmd=("sleep", "1000")))
        self.made.state, self.made.pid, self.made.started = State.RUNNING, pid, 100.0
        self.engine = FakeEngine(self.docker)


@pytest.fixture
def pid() -> Iterator[int]:
    own = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert own.stdin is not None
    assert own.stdout is not None
    own.stdin.write(b"\n")
    own.stdin.flush()
    own.stdout.read(1)  # it is a `cat` by now, so the namespace is there
    yield own.pid
    with own:
        own.stdin.close()


@pytest.fixture
async def process(pid: int) -> Process:
    return Process(pid)


def namespace_of(handle: int) -> int:
    try:
        return os.fstat(handle).st_ino
    finally:
        os.close(handle)


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def own_namespace(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


async def test_the_namespace_of_the_containers_process_is_opened(process: Process) -> None:
    entered = await enter(process.engine, process.made.value())
    assert namespace_of(entered) == own_namespace(process.made.pid)


@pytest.mark.parametrize("change", [{"started": 200.0}, {"pid": 1}, {"state": State.EXITED}, {"state": State.PAUSED}])
async def test_a_container_that_is_another_start_by_now_is_not_entered(
    process: Process, change: dict[str, Any]
) -> None:
    before = process.made.value()
    for name, value in change.items():
        setattr(process.made, name, value)
    handles = open_files()
    with pytest.raises(Ended):
        await enter(process.engine, before)
    assert open_files() == handles


async def test_the_hosts_own_network_is_never_entered(process: Process) -> None:
    process.made.pid = os.getpid()
    with pytest.raises(Dom0Error, match="host's network"):
        await enter(process.engine, process.made.value())


async def test_a_process_that_is_gone_is_no_place(process: Process) -> None:
    process.made.pid = 2**22 + 1  # more than the kernel gives
    with pytest.raises(FileNotFoundError):
        await enter(process.engine, process.made.value())
