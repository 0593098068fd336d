"""Three machines with slots follow their farm: real Engines, the base OS's own `slots` on a medium of each, and the
server. What a machine's firmware and GRUB do, and that a role runs well, is played by the test.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.engine.docker import DockerEngine
from dom0.farms.directory import FarmDirectory
from dom0.farms.publish import keep_base_os, publish
from dom0.farms.revisions import Revision, RoleContent, revise
from dom0.testing import api, slots_machine
from dom0.testing.busybox import BUSYBOX
from dom0.testing.fake_uki import make_uki
from dom0.testing.hosts import OWN_STORE, Host, Switch, until
from dom0.testing.machine_farm import look
from dom0.testing.namespaces import Child
from dom0.testing.slots_machine import SlotsMachine

pytestmark = pytest.mark.engine
DOM0 = (sys.executable, "-m", "dom0")
ADDRESSES = {"one": "10.9.7.1", "two": "10.9.7.2", "three": "10.9.7.3"}
BOOT_ID = "/proc/sys/kernel/random/boot_id"
DISK = 300 << 20  # bytes, of what dom0 keeps
LARGE = 8 << 20
OVER = "mkdir -p /run/over/{0} /run/over/{0}.work && mount -t overlay over -o {1} {2}"


class Station:
    """A node: its `host` with an Engine, and the medium that it starts from."""

    def __init__(self, host: Host, log: Path) -> None:
        self.host = host
        self.log = log
        self.slots = SlotsMachine(host=host)
        self.restarts = 0
        self.node: Child | None = None
        with (host.root / "disk.img").open("wb") as file:
            file.truncate(DISK)
        host.run(["mkfs.ext4", "-q", "-m", "0", str(host.root / "disk.img")])
        host.run(["mount", "-o", "loop", str(host.root / "disk.img"), "/var/lib/dom0"])
        for name, top in (("etc", "/etc"), ("lib", "/usr/lib")):
            options = f"lowerdir={top},upperdir=/run/over/{name},workdir=/run/over/{name}.work"
            host.run(["sh", "-c", OVER.format(name, options, top)])
        host.path("/usr/lib/dom0").mkdir()
        program = host.path("/usr/lib/dom0/slots")
        chroot = f"{BUSYBOX} chroot {self.slots.root} /usr/bin/env -i"
        restart = '[ "$1" != restart ] || exec touch /run/restart'
        program.write_text(f'#!/bin/sh\n{restart}\nexec {chroot} /usr/lib/dom0/slots "$@"\n')
        program.chmod(0o755)
        host.path("/run/boot_id").write_text(f"{uuid.uuid4()}\n")
        host.run(["mount", "--bind", "/run/boot_id", BOOT_ID])
        programs = [word for top in ("/usr", "/lib", "/lib64") for word in ("--volume", f"{top}:{top}:ro")]
        root = ["--name", "dom0", "--privileged", "--pid", "host", *programs, "busybox:test", "sleep", "100000"]
        host.docker("run", "--detach", *root)

    @property
    def version(self) -> str:
        return self.host.path("/etc/dom0-os").read_text().strip()

    def start(self, running: str, version: str) -> None:
        """As GRUB and the base OS do, up to the agent."""
        self.host.path("/etc/dom0-os").write_text(f"{version}\n")
        self.slots.inside("/etc/dom0-os").write_text(f"{version}\n")
        self.host.path("/run/boot_id").write_text(f"{uuid.uuid4()}\n")
        self.slots.tell(running)
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "dom0.testing.farm_node", "well"]
            self.node = self.host.popen(argv, stdout=log, stderr=log)

    def restart_if_told(self, bad: set[str]) -> None:
        flag = self.host.path("/run/restart")
        if not flag.exists():
            return
        assert self.node is not None
        self.node.kill()
        self.node.wait(60)
        flag.unlink()
        self.restarts += 1
        armed = self.slots.environment()["next"]
        if armed and (version := self.slots.read(armed, "version").split()[0].decode()) not in bad:
            self.slots.write_environment(left="2")
            self.slots.tell(armed, trial=900)
            assert self.slots.slots("bless").code == 0
            self.start(armed, version)
            return
        self.slots.write_environment(next="", left="", failed=armed)  # three starts came to nothing
        self.start(self.slots.environment()["good"], self.version)


class Farm:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = FarmDirectory(path)
        self.switch = Switch()
        self.stations: dict[str, Station] = {}
        self.hosts: dict[str, Host] = {}
        self.bad: set[str] = set()

    def start(self) -> None:
        for name, address in ADDRESSES.items():
            host = self.hosts[name] = Host(name=name, switch=self.switch, address=f"{address}/24", config=OWN_STORE)
            self.stations[name] = Station(host, self.path.parent / f"{name}.log")
        one = self.hosts["one"]
        one.run([*DOM0, "farm", "init", str(self.path)])
        listen = f"name: attic\nlisten: {ADDRESSES['one']}:7701\nos: dom0-os.efi\n"
        (self.path / "farm.yaml").write_text(f"{listen}roles: {{hello: {{soak: 1s}}}}\n")
        printed = self.path.parent / "served"
        with printed.open("wb") as log, (self.path.parent / "server.log").open("ab") as errors:
            one.popen([*DOM0, "farm", "serve", "--dir", str(self.path), "--json"], stdout=log, stderr=errors)
        join = str(json.loads(until(printed.read_text))["join"])
        joining = [host.popen([*DOM0, "farm", "join", join]) for host in self.hosts.values()]
        codes = until(lambda: len(found := self.codes()) == len(ADDRESSES) and found)
        assert codes
        for name, code in codes.items():
            one.run([*DOM0, "farm", "approve", code, "--as", name, "--role", "hello", "--dir", str(self.path)])
        for station in self.stations.values():
            station.start("a", "1.0")
        assert [one.wait(60) for one in joining] == [0] * len(joining)

    def codes(self) -> dict[str, str]:
        return {node["hostname"]: node["code"] for node in self.look("nodes") if node["code"]}

    def look(self, command: str) -> Any:
        return json.loads(look(self.path, command, "--json").stdout)

    async def publish(self, version: str, tag: str = "test") -> Revision:
        (self.path / "dom0-os.efi").write_bytes(make_uki(version=version))
        engine = await DockerEngine.connect(self.hosts["one"].docker_host)
        try:
            with self.directory.publishing():
                id_ = (await engine.image(f"busybox:{tag}")).id
                image = (await publish(engine, self.directory, [id_], []))[id_]
                roles = {"hello": RoleContent(image=replace(image, reference="dom0:latest"))}
                base_os = await asyncio.to_thread(keep_base_os, self.directory)
                return self.directory.revise(lambda known: revise(known, roles, time.time(), os=base_os))[0]
        finally:
            await engine.close()

    def until(self, holds: Any) -> Any:
        def look() -> Any:
            for station in self.stations.values():
                station.restart_if_told(self.bad)
            status = self.look("status")
            return status if holds(status) else None

        return until(look, self.story)

    def versions(self) -> list[str]:
        return [station.version for station in self.stations.values()]

    def story(self) -> str:
        logs = [f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.path.parent.glob("*.log")]
        return "\n".join([json.dumps(self.look("status"), indent=1), *logs])

    def stop(self) -> None:
        for host in self.hosts.values():
            host.stop()
        for station in self.stations.values():
            station.slots.__exit__()
        self.switch.stop()


@pytest.fixture(scope="module")
def farm(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    if reason := slots_machine.missing():
        pytest.skip(reason)
    made = Farm(tmp_path_factory.mktemp("farm") / "attic")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def restarts(farm: Farm) -> list[int]:
    return [station.restarts for station in farm.stations.values()]


async def test_a_base_os_comes_to_one_machine_after_the_other_and_a_bad_one_to_one(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", farm.hosts["one"].docker_host)
    await farm.publish("1.0")
    farm.until(lambda status: all(node["state"] == "good" and not node["waits"] for node in status["nodes"]))
    assert restarts(farm) == [0, 0, 0]
    await farm.publish("2.0")
    most = 0

    def all_have_it(status: Any) -> bool:
        nonlocal most
        most = max(most, len(status["locked"]))
        return all(node["os"] == "2.0" and not node["waits"] for node in status["nodes"])

    farm.until(all_have_it)
    assert (farm.versions(), restarts(farm), most) == (["2.0"] * 3, [1, 1, 1], 1)
    assert [station.slots.environment()["good"] for station in farm.stations.values()] == ["b"] * 3
    farm.bad = {"3.0"}
    await farm.publish("3.0")
    why = "one failed: it went back to the base OS 2.0: 3.0 did not prove itself"
    status = farm.until(lambda status: status["paused"])
    assert status["paused"] == {"hello": why}
    assert (farm.versions(), restarts(farm)) == (["2.0"] * 3, [2, 1, 1])


async def test_a_node_whose_disk_is_full_says_so_and_goes_on_by_itself_when_there_is_room(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", farm.hosts["one"].docker_host)
    full = farm.hosts["three"]
    runs = full.docker("inspect", "--format", "{{.State.StartedAt}}", "dom0").stdout
    full.run(["dd", "if=/dev/zero", "of=/var/lib/dom0/filler", "bs=64k"], check=False)
    full.run(["sh", "-c", "cat /dev/zero >>/var/lib/dom0/filler"], check=False)
    (tmp_path / "large").write_bytes(os.urandom(LARGE))
    with tarfile.open(tmp_path / "layer.tar", "w") as layer:
        layer.add(tmp_path / "large", "large")
    api.import_image(farm.hosts["one"].socket, "busybox:large", (tmp_path / "layer.tar").read_bytes())
    revision = await farm.publish("2.0", "large")

    def is_said(status: Any) -> bool:
        three = next(node for node in status["nodes"] if node["name"] == "three")
        others = [node for node in status["nodes"] if node["fetched"]]
        return "three" not in [node["name"] for node in others] and len(others) == 2 and three["reason"]

    status = farm.until(is_said)
    (reason,) = (node["reason"] for node in status["nodes"] if node["name"] == "three")
    assert "MiB are free" in reason or "No space left" in reason
    assert reason in look(farm.path, "status").stdout
    assert full.docker("inspect", "--format", "{{.State.StartedAt}}", "dom0").stdout == runs
    full.run(["rm", "/var/lib/dom0/filler"])
    at_it = (revision.number, "")
    farm.until(lambda status: all((node["revision"], node["waits"]) == at_it for node in status["nodes"]))
    assert full.docker("inspect", "--format", "{{.State.StartedAt}}", "dom0").stdout == runs
