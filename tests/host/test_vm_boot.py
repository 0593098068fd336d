"""A whole machine from nothing but kernel and initramfs: it ends with a login in the dom0 of examples/mybox, and what
it went through is told, also after the next start.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from dom0.names import MIRROR
from dom0.testing import data_disk, vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]
STAGES = ["kernel", "init", "drivers", "disk", "engine", "image", "dom0"]  # one after the other
BESIDE = {"network", "healthy", "service:dom0-sshd", "service:redis", "service:visitor"}


def test_a_machine_boots_to_dom0_and_its_services_and_keeps_the_record(virtual_machines: None) -> None:
    with vm.scratch() as directory:
        key = vm.Key(directory)
        disk = vm.overlay(directory / "data", data_disk.provide(started=False))
        with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
            machine.wait_for_services()
            assert machine.ssh("dom0 exec redis redis-cli ping").stdout.strip() == "PONG"
            assert "swap" not in machine.ssh("cat /proc/swaps").stdout
            assert MIRROR in machine.ssh("docker info --format '{{.RegistryConfig.Mirrors}}'").stdout
            assert json.loads(machine.ssh("dom0 status --json").stdout)["sharing"]["mirror"] == MIRROR
            first = _boot_with_all_stages(machine)
            machine.ssh("until grep -q healthy /run/dom0/boot/0001.record; do sleep 1; done")
            machine.type("")  # wakes the shell of the console
            machine.type("poweroff")
            machine.wait()
        with vm.VirtualMachine(vm.direct(key.setting), drives=[disk], key=key) as machine:
            machine.wait_for_services()
            machine.ssh("docker update --restart unless-stopped mybox-redis-1")  # crun needs some things for it
            second = _boot_with_all_stages(machine)
            _dom0_started_after_the_services(machine)
            boots = json.loads(machine.ssh("dom0 boot --last 5 --json").stdout)
            assert [(boot["number"], boot["running"]) for boot in boots] == [(1, False), (2, True)]
            assert boots[0]["stages"] == first["stages"]
            assert second["number"] == 2
            differences = json.loads(machine.ssh("dom0 boot --compare 1 2 --json").stdout)
            assert {*STAGES, *BESIDE} <= {row["name"] for row in differences}
            assert machine.ssh("dom0 boot --plot /tmp/boot.svg && cat /tmp/boot.svg").stdout.count("<title>") >= 12
            _one_more_key_is_let_in(machine, vm.Key(directory, "other"))
            machine.type("")
            _top_is_drawn_there_and_follows_its_size(machine)
            machine.type("dom0 ssh ls --json | grep -c fingerprint; echo typed: $?")
            machine.wait_for(r"typed: 0")


def _dom0_started_after_the_services(machine: vm.VirtualMachine) -> None:
    """At power-off it lost its restart policy, which the launcher gives back; else the Engine starts it beside them."""
    format_ = "{{.State.StartedAt}} {{.HostConfig.RestartPolicy.Name}}"
    told = machine.ssh(f"docker inspect dom0 dom0-sshd mybox-redis-1 mybox-visitor-1 --format '{format_}'").stdout
    (started, policy), *services = [line.split() for line in told.splitlines()]
    assert policy == "always"
    assert all(of_service < started for of_service, _ in services)


def _one_more_key_is_let_in(machine: vm.VirtualMachine, other: vm.Key) -> None:
    """As docs/os.md says it, because a login is not root on the host."""
    refused = machine.ssh(f"echo {other.public} | dom0 ssh add -", check=False)
    assert "docker exec -i dom0 dom0 ssh add" in refused.stderr
    machine.ssh(f"echo {other.public} | docker exec -i dom0 dom0 ssh add -")
    assert machine.ssh("true", key=other).code == 0


def _top_is_drawn_there_and_follows_its_size(machine: vm.VirtualMachine) -> None:
    machine.type("stty rows 30 cols 100; dom0 top; echo left: $?")
    machine.wait_for(r"redis +ready .*\n[\s\S]*q ends  up/down")
    resized = "docker exec dom0 nsenter --target=1 --mount stty -F /dev/ttyS0 rows 24 cols 80"
    machine.ssh(resized)
    lines = r"[^\n\x1b]*(?:\x1b\[[0-9]*[mK][^\n\x1b]*)*\n+"  # until the end of each; the next frame begins with "home"
    machine.wait_for(rf"\x1b\[H(?:{lines}){{23}}[^\n]*q ends  up/down")
    machine.type("q")
    machine.wait_for(r"left: 0")


def _boot_with_all_stages(machine: vm.VirtualMachine) -> dict[str, Any]:
    """The document of the running boot, once it has all stages and is over."""
    machine.ssh("until dom0 boot --json | grep -q '\"healthy\"'; do sleep 1; done")
    boot: dict[str, Any] = json.loads(machine.ssh("dom0 boot --json").stdout)
    stages = boot["stages"]
    assert [stage["name"] for stage in stages if not stage["beside"]] == STAGES
    assert {stage["name"] for stage in stages if stage["beside"]} - {"service:prepare"} == BESIDE
    assert all(0 <= stage["began"] <= stage["ended"] for stage in stages)
    assert boot["ready"] is not None
    assert (boot["troubles"], boot["unreadable"]) == ([], 0)
    return boot
