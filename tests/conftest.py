"""Fixtures that every test may use: Engines on hosts of their own, network namespaces. Fakes: dom0.testing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dom0.forward.kernel import KernelPlane
from dom0.forward.place import consumer, own
from dom0.testing import api, hosts, owned, vm
from dom0.testing import wires as kit
from dom0.testing.possible import require

# Seconds of each file that takes at least ten: `scripts/durations` writes it.
_DURATIONS = Path(__file__).with_name("durations.json")

# A test says nothing about time: this machine may be busy with something else.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_MARKS = {
    "session_host": pytest.mark.engine,
    "engine_host": pytest.mark.engine,
    "fresh_host": pytest.mark.engine,
    "chain_images": pytest.mark.chain,
    "ambassador_image": pytest.mark.chain,
    "rescue_image": pytest.mark.chain,
}


def pytest_configure() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and the commands of a test would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m "not engine"` leaves out whatever needs an Engine, without a mark on each test.

    Where files are shared out among processes the longest begin first, so that none of them ends alone.
    """
    for item in items:
        for fixture in _MARKS.keys() & getattr(item, "fixturenames", ()):
            item.add_marker(_MARKS[fixture])
    if "PYTEST_XDIST_WORKER" in os.environ:
        seconds: dict[str, int] = json.loads(_DURATIONS.read_text())
        items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0))


@pytest.fixture(scope="session")
def engines_possible() -> None:
    """Where this machine cannot run Engines, skip and say why; in CI that is a failure."""
    require(hosts.missing(), "tests that need an Engine")
    owned.sweep()


@pytest.fixture(scope="session")
def virtual_machines(engines_possible: None) -> None:
    """Where virtual machines are not tested, skip and say why. Asked to and unable is a failure."""
    if reason := vm.missing():
        if os.environ.get(vm.VARIABLE) == "1":
            pytest.fail(f"the tests of virtual machines cannot run: {reason}")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def session_host(engines_possible: None) -> Iterator[hosts.Host]:
    """One host per test process. For fixtures that prepare something for many tests; a test takes `engine_host`."""
    with hosts.Host() as host:
        yield host


@pytest.fixture
def engine_host(session_host: hosts.Host) -> Iterator[hosts.Host]:
    """A host with a running Engine that has the image busybox:test and nothing else.

    Afterwards its containers, networks, volumes, dom0's state and the images that the test made are removed.
    """
    images = api.images(session_host.socket)
    yield session_host
    session_host.clean(keep=images)


@pytest.fixture
def fresh_host(engines_possible: None) -> Iterator[Callable[..., hosts.Host]]:
    """Makes hosts that only this test uses, with the arguments of `Host`."""
    made: list[hosts.Host] = []

    def make(**options: Any) -> hosts.Host:
        made.append(hosts.Host(**options))
        return made[-1]

    yield make
    for host in made:
        host.stop()


@pytest.fixture(scope="session")
def chain_images(session_host: hosts.Host) -> None:
    """dom0-rootfs and dom0-base are on `engine_host`, made from the sources as they are."""
    from dom0.testing import chain  # it loads most of dom0, which tests of one package do without

    chain.provide(session_host)


@pytest.fixture(scope="session")
def ambassador_image(session_host: hosts.Host) -> None:
    """dom0-ambassador is on `engine_host`, made from the sources as they are."""
    from dom0.testing import chain

    chain.provide_ambassador(session_host)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """One self-signed certificate in all three roles."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(
        [*argv, *files, "-addext", "subjectAltName=IP:127.0.0.1,DNS:registry.test"], check=True, capture_output=True
    )
    shutil.copy(tmp_path / "cert.pem", tmp_path / "ca.pem")
    return tmp_path


# network namespaces: a fresh set of wires for each test, some 60 ms


@pytest.fixture(scope="session")
def wires_possible() -> None:
    """Where this machine cannot make network namespaces, skip and say why; in CI that is a failure."""
    require(kit.missing(), "tests of ambassadors")


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
