"""Fixtures for tests of ambassadors in network namespaces: a fresh set of wires each, some 60 ms."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dom0.ambassador.kernel import KernelPlane
from dom0.ambassador.place import consumer, own
from dom0.testing import wires as kit


@pytest.fixture(scope="session")
def wires_possible() -> None:
    """Where this machine cannot make network namespaces, skip and say why; in CI that is a failure."""
    if reason := kit.missing():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests of ambassadors, and cannot: {reason}")
        pytest.skip(f"no network namespaces for tests: {reason}")


@pytest.fixture
def wires(wires_possible: None) -> Iterator[kit.Wires]:
    """One consumer, the ambassador, two providers that serve 6379 and 6380."""
    with kit.Wires(ports=(6379, 6380)) as made:
        yield made


@pytest.fixture
def plane(wires: kit.Wires) -> KernelPlane:
    return KernelPlane(own(wires.ambassador.namespace))


@pytest.fixture
def shortcut(wires: kit.Wires) -> KernelPlane:
    """In the consumer's namespace."""
    addresses = [wires.ambassador.v4, wires.ambassador.v6]
    return KernelPlane(consumer(wires.consumer.namespace, addresses, "redis"))


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number
