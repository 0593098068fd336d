"""The Debian package: installed where there is nothing else of dom0, it runs a machine."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0 import __version__
from dom0.testing.fresh_machine import FreshMachine
from dom0.testing.hosts import Host

DEB = Path(__file__).parents[2] / "scripts" / "deb"
ENGINE = "dockerd >/root/engine.log 2>&1 & for i in $(seq 300); do docker version && exit; sleep 0.2; done; exit 1"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("deb")
    built = subprocess.run([DEB, directory], capture_output=True, text=True, check=True)
    return Path(built.stdout.strip())


def test_it_holds_the_command_its_manual_pages_and_nothing_of_the_tests(package: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(of_package("--fsys-tarfile", package))) as tar:
        files = {one.name.removeprefix("./"): one for one in tar}
    lib = "usr/lib/dom0/python"
    for name in ("usr/bin/dom0", f"{lib}/dom0/data/examples/mybox/compose.yaml", f"{lib}/h11/__init__.py"):
        assert name in files
    assert {"usr/share/man/man1/dom0.1.gz", "usr/share/man/man1/dom0-image.1.gz"} <= files.keys()
    assert not [name for name in files if "/testing" in name or "__pycache__" in name]
    assert {(one.uid, one.gid) for one in files.values()} == {(0, 0)}
    assert of_package("--field", package, "Version").decode().startswith(f"{__version__.replace('.dev', '~dev')}+20")


def test_the_same_commit_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    again = subprocess.run([DEB, tmp_path], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(again).read_bytes() == package.read_bytes()


def of_package(what: str, package: Path, *more: str) -> bytes:
    return subprocess.run(["dpkg-deb", what, package, *more], capture_output=True, check=True).stdout


@pytest.mark.timeout(1500)
def test_installed_on_a_fresh_debian_it_runs_the_example_and_leaves_nothing_when_it_is_removed(
    chain_images: None, fresh_host: Callable[..., Host], package: Path
) -> None:
    machine = FreshMachine(fresh_host(outside=True), ("ca-certificates",))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(package, "dom0.deb")
    machine.unpack(buffer.getvalue())
    machine.run("apt-get", "install", "--yes", "--no-install-recommends", "./dom0.deb")
    assert machine.run("dom0", "--version").stdout == f"dom0 {__version__}\n"
    machine.run("sh", "-c", ENGINE)
    findings = {one["check"]: one for one in json.loads(machine.run("dom0", "doctor", "--json").stdout)}
    assert findings["dom0 command"]["found"] == f"{__version__}, in /usr/lib/dom0/python, installed by dpkg"
    assert [one for one in findings.values() if one["verdict"] == "missing"] == []
    machine.run("dom0", "init", "--example", "mybox", "mybox")
    machine.run("dom0", "up", "--wait", "mybox")
    assert {"dom0", "dom0-sshd", "mybox-redis-1", "mybox-visitor-1"} <= machine.containers()
    assert machine.run("dom0", "status", "--exit-code").code == 0
    machine.run("dom0", "down")
    machine.run("apt-get", "purge", "--yes", "dom0")
    assert machine.run("test", "-e", "/usr/lib/dom0", check=False).code == 1
