"""The example guest-machine as its README says: a dom0 in a dom0, and a team's Compose stack inside that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.testing import chain
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine


@pytest.fixture
def machine(fresh_host: Callable[..., Host], tmp_path: Path) -> Machine:
    host = fresh_host(outside=True)
    chain.provide(host)
    machine = Machine(host, tmp_path)
    machine.dom0("init", "--example", "guest-machine", "both")
    return Machine(host, tmp_path / "both")


@pytest.mark.timeout(600)
def test_three_machines_in_one_have_a_clock_each(machine: Machine) -> None:
    machine.dom0("build", "--tag", "guest/dom0:1", "guest", timeout=300)
    machine.dom0("up", "--wait", "owner", timeout=300)
    clocks = {"owner-clock-1", "guest.guest-clock-1", "guest.team.stack-clock-1"}
    machine.until(lambda: {name for name, state in machine.containers().items() if state == "running"} >= clocks)
    assert "stack" in machine.docker("exec", "guest.team.dom0", "docker", "compose", "ls").stdout
    status = ("exec", "guest.dom0", "dom0", "status", "--json")
    machine.until(lambda: json.loads(machine.docker(*status).stdout)["converged"])
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():  # else a container does not see the Engine's group
        guest = f"/{machine.host.cgroup}/dom0/guest"
        names = ("guest.dom0", "guest.guest-clock-1", "guest.team.dom0", "guest.team.stack-clock-1")
        parents = [machine.container(name)["HostConfig"]["CgroupParent"] for name in names]
        assert parents == [guest, guest, f"{guest}/team", f"{guest}/team"]
        limits = [Path(f"/sys/fs/cgroup/memory{place}/memory.limit_in_bytes").read_text() for place in parents[1:3]]
        assert limits == [f"{512 << 20}\n", f"{128 << 20}\n"]
    for refused in (["--privileged", "dom0-rootfs"], ["-v", "/etc:/host", "dom0-rootfs"]):
        said = machine.docker("exec", "guest.dom0", "docker", "run", "--rm", *refused, "true", check=False)
        assert said.code != 0
    log = machine.dom0("socket", "log", "guest").stdout
    assert "Privileged" in log
    assert "/etc" in log
