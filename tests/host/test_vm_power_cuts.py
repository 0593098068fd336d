"""The power is cut at random moments, again and again, on the same disks: the machine always comes up by itself, with
what was there before or what was asked for, and nothing that was kept is lost.

QEMU is killed: what the machine has handed to its disk is there, what it has not is lost. DOM0_TEST_POWER_CUTS says how
often for each kind of moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0.host import uki
from dom0.osimage import build, disk_image, media, qemu
from dom0.osimage.boot_contract import BootContract
from dom0.testing import data_disk, vm

CUTS = int(os.environ.get("DOM0_TEST_POWER_CUTS", "1"))
pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800 + 600 * CUTS)]
HOST = "10.0.2.2"  # how a machine reaches this one (QEMU's own network)
COMPOSE = """\
name: mybox
services:
  redis:
    image: mybox-redis
    command: ["redis-server", "/etc/redis/mybox.conf"]
    configs: [{{source: redis, target: /etc/redis/mybox.conf}}]
    environment: {{NUMBER: "{number}"}}
    volumes: ["redis-data:/var/lib/redis"]
    healthcheck: {{test: ["CMD", "redis-cli", "ping"], interval: 10s, timeout: 3s, retries: 3}}
configs: {{redis: {{content: "dir /var/lib/redis\\nappendonly yes\\nappendfsync everysec\\n"}}}}
volumes: {{redis-data: }}
x-dom0: {{hostname: mybox, ssh: {{port: 2222}}, home: {{}}}}
"""


class Box:
    """A machine that is switched on again and again: its two disks and its key."""

    def __init__(self, directory: Path, *, started: bool, seed: int) -> None:
        self.key = vm.Key(directory)
        self.random = random.Random(seed)  # noqa: S311 -- moments, no secrets
        boot = directory / "boot.img"
        asyncio.run(write_boot_disk(boot, self.key))
        self.drives = [qemu.Drive(boot), vm.overlay(directory / "data", data_disk.provide(started=started))]

    def switch_on(self) -> vm.VirtualMachine:
        return vm.VirtualMachine(qemu.Bios(), drives=self.drives, key=self.key)

    def cut_within(self, machine: vm.VirtualMachine, seconds: float) -> None:
        time.sleep(self.random.uniform(0, seconds))
        machine.cut_power()


async def write_boot_disk(file: Path, key: vm.Key) -> None:
    os_file = uki.read(vm.base_os() / build.UKI)
    contract = BootContract(config=b"hostname=cutbox\n", authorized_keys=f"{key.public}\n".encode())
    files = await media.disk_files(os_file, contract)
    await media.write_disk(os_file, files, file, disk_image.least_size(files))


@pytest.fixture
def scratch(virtual_machines: None) -> Iterator[Path]:
    with vm.scratch() as directory:
        yield directory


def test_power_cuts_while_it_boots_and_starts_for_the_first_time(scratch: Path) -> None:
    box = Box(scratch, started=False, seed=1)
    with box.switch_on() as machine:  # how long that takes; the disks are then thrown away
        begun = time.monotonic()
        machine.wait_for_services()
        whole = time.monotonic() - begun
    for number in range(CUTS):
        fresh = scratch / f"data{number}"
        box.drives[1] = vm.overlay(fresh, data_disk.provide(started=False))
        with box.switch_on() as machine:
            box.cut_within(machine, whole)
        with box.switch_on() as machine:
            machine.wait_for_services()
            assert machine.ssh("hostname -f; dom0 exec redis redis-cli get visits").stdout.split()[-1].isdigit()
        fresh.unlink()


def test_power_cuts_while_it_boots_again(scratch: Path) -> None:
    box = Box(scratch, started=True, seed=2)
    kept = 0
    whole = 0.0
    for number in range(CUTS + 1):
        with box.switch_on() as machine:
            begun = time.monotonic()
            machine.wait_for_services()
            whole = whole or time.monotonic() - begun
            assert read(machine, "canary") == kept
            kept = number + 1
            write(machine, "canary", kept)
            machine.cut_power()
        with box.switch_on() as machine:
            box.cut_within(machine, whole)


def test_power_cuts_while_it_replaces_itself(scratch: Path) -> None:
    box = Box(scratch, started=True, seed=3)
    number, running, seconds = 0, "", 0.0
    for _ in range(CUTS + 1):
        with box.switch_on() as machine:
            machine.wait_for_services()
            before, running = running, machine.ssh("dom0 exec redis sh -c 'echo $NUMBER'").stdout.strip()
            assert running in {before, str(number)}  # the old one, however many in a row were cut off early
            assert read(machine, "canary") == number
            number += 1
            write(machine, "canary", number)
            machine.ssh(f"mkdir -p box && cat >box/compose.yaml <<'END'\n{COMPOSE.format(number=number)}END")
            if not seconds:  # the first one goes through
                begun = time.monotonic()
                machine.ssh("dom0 up --wait box")
                seconds = time.monotonic() - begun
                running = machine.ssh("dom0 exec redis sh -c 'echo $NUMBER'").stdout.strip()
                assert running == str(number)
            else:
                machine.ssh("setsid dom0 up --wait box >up.log 2>&1 </dev/null &")
                box.cut_within(machine, seconds)


def test_power_cuts_while_its_base_os_is_updated(scratch: Path) -> None:
    box = Box(scratch, started=True, seed=4)
    seconds = 0.0
    with served(vm.base_os() / build.UKI) as url:
        for number in range(CUTS + 1):
            with box.switch_on() as machine:
                machine.wait_for_services()
                assert read(machine, "canary") == number
                write(machine, "canary", number + 1)
                now = json.loads(machine.ssh("dom0 os status --json").stdout)
                assert now["running"] in {now["good"], now["next"]}
                assert {slot["name"] for slot in now["slots"] if slot["version"]} >= {now["good"]}
                if not seconds:
                    begun = time.monotonic()
                    machine.ssh(f"dom0 os update --yes {url}")
                    seconds = time.monotonic() - begun
                    machine.cut_power()
                else:
                    machine.ssh(f"setsid dom0 os update --yes {url} >update.log 2>&1 </dev/null &")
                    box.cut_within(machine, seconds)


def read(machine: vm.VirtualMachine, name: str) -> int:
    return int(machine.ssh(f"dom0 exec redis redis-cli get {name}").stdout.strip() or 0)


def write(machine: vm.VirtualMachine, name: str, value: int) -> None:
    """On disk when this returns."""
    said = machine.ssh(f"dom0 exec redis sh -c 'redis-cli set {name} {value}; redis-cli save; sync'").stdout
    assert said.split() == ["OK", "OK"], said


@contextmanager
def served(file: Path) -> Iterator[str]:
    """By HTTP on this machine, with the digest that `dom0 os build` wrote beside it; as virtual machines reach it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(file.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{HOST}:{server.server_port}/{file.name}"
    finally:
        server.shutdown()
        with contextlib.suppress(OSError):
            server.server_close()
