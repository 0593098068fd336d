"""What the containers of a scope use together is limited by the kernel, whatever they ask for."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dom0.errors import UsageError
from dom0.package_data import PACKAGE
from dom0.socketproxy import budget, cgroup
from dom0.socketproxy.grants import Budget
from dom0.socketproxy.scope import Scope
from dom0.testing import owned, scopes
from dom0.testing.hosts import Host
from dom0.testing.scopes import Scoped

IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox]}\n"
CGROUPS = Path("/sys/fs/cgroup")
VERSION = 2 if (CGROUPS / "cgroup.controllers").exists() else 1


def test_a_controller_that_the_kernel_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    group = cgroup.group_of(Scope("guest"), "", systemd=False)
    with pytest.raises(UsageError, match=r"pids: .*the kernel of this host does not limit that"):
        budget.limit(tmp_path, 1, group, Budget(pids=10))
    budget.limit(tmp_path, 1, group, Budget())
    assert (tmp_path / "memory/dom0/guest").is_dir()


async def test_systemd_is_asked_only_for_what_is_not_so_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = cgroup.group_of(Scope("guest"), "", systemd=True)
    asked = tmp_path / "asked"
    nsenter = tmp_path / "bin/nsenter"
    nsenter.parent.mkdir()
    nsenter.write_text(f'#!/bin/sh\necho "$@" >>{asked}\n')
    nsenter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{nsenter.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(budget, "CGROUPS", str(tmp_path / "cgroup"))
    driver = cgroup.CgroupDriver(2, systemd=True, process=os.getpid())
    wanted = Budget(memory=64 << 20, cpus=0.5, pids=20)
    for setting in cgroup.settings(2, group, wanted):
        file = tmp_path / "cgroup" / setting.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("cpu memory pids" if setting.value.startswith("+") else f"{setting.value}\n")
    await budget.make(driver, group, wanted)
    assert not asked.exists()
    with pytest.raises(UsageError, match=r"systemd did not make .*pids\.max = 10"):
        await budget.make(driver, group, Budget(memory=64 << 20, cpus=0.5, pids=10))
    assert "TasksMax=10" in asked.read_text()


def run(guest: Scoped, name: str, script: str) -> None:
    guest.docker("run", "-d", "--init", "--name", name, IMAGE, "sh", "-c", script)


def limits(host: Host) -> dict[str, str]:
    """What the kernel holds the scope to."""
    if VERSION == 2:
        place = CGROUPS / host.cgroup / "guest"
        return {name: (place / f"{name}.max").read_text().strip() for name in ("memory", "cpu", "pids")}
    files = {"memory": "memory.limit_in_bytes", "cpu": "cpu.cfs_quota_us", "pids": "pids.max"}
    return {key: (CGROUPS / key / host.cgroup / "guest" / file).read_text().strip() for key, file in files.items()}


def groups(host: Host) -> set[str]:
    """The `CgroupParent` of every container."""
    names = host.docker("ps", "--all", "--quiet").stdout.split()
    return {found["HostConfig"]["CgroupParent"] for found in json.loads(host.docker("inspect", *names).stdout)}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_processes_are_counted_over_all_containers(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS + "pids: 60") as path:
        guest = Scoped(engine_host, path)
        many = "for i in $(seq 30); do sleep 1000 & done; echo all there; wait"
        run(guest, "one", many)
        wait_until(lambda: "all there" in guest.docker("logs", "one"), "30 processes")
        run(guest, "two", many)
        wait_until(lambda: "can't fork" in guest.docker("logs", "two"), "a limit")
        engine_host.docker("run", "--rm", "--name", "foreign", IMAGE, "sh", "-c", "for i in $(seq 30); do true & done")
        assert guest.docker("inspect", "--format", "{{.State.Running}}", "one") == "true\n"


def test_memory_ends_where_the_budget_does_and_in_the_scope_alone(engine_host: Host, tmp_path: Path) -> None:
    engine_host.docker("run", "-d", "--init", "--name", "foreign", IMAGE, "sleep", "1000")
    began = str(int(time.time()))
    with scopes.served(engine_host, tmp_path, GRANTS + "memory: 48m") as path:
        guest = Scoped(engine_host, path)
        greedy = ("dd", "if=/dev/zero", "of=/dev/null", "bs=96M", "count=1")
        guest.docker("run", "--name", "greedy", "--memory", "1g", IMAGE, *greedy, check=False)
        assert guest.docker("inspect", "--format", "{{.State.ExitCode}}", "greedy") == "137\n"

    def told() -> str:
        """What the agent hears of it."""
        of_scope = ("--filter", "event=oom", "--format", '{{index .Actor.Attributes "dom0.scope"}}')
        return engine_host.docker("events", "--since", began, "--until", str(time.time()), *of_scope).stdout

    wait_until(lambda: "/guest" in told(), "an event of the scope")
    assert engine_host.docker("inspect", "--format", "{{.State.Running}}", "foreign").stdout == "true\n"


def test_limits_are_there_before_the_first_container_and_follow_the_grants(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS + "memory: 64m\ncpus: 0.5\npids: 200") as path:
        cpu = "50000 100000" if VERSION == 2 else "50000"
        assert limits(engine_host) == {"memory": "67108864", "cpu": cpu, "pids": "200"}
        run(Scoped(engine_host, path), "web", "sleep 1000")
    with scopes.served(engine_host, tmp_path, GRANTS + "pids: 50"):
        unlimited = (
            {"memory": "max", "cpu": "max 100000"} if VERSION == 2 else {"memory": "9223372036854771712", "cpu": "-1"}
        )
        assert limits(engine_host) == unlimited | {"pids": "50"}


async def test_what_an_engine_starts_before_it_answers_is_limited_meanwhile(engine_host: Host, tmp_path: Path) -> None:
    place = CGROUPS / ("" if VERSION == 2 else "pids") / engine_host.cgroup / "early"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "engine.sock"))
        silent.listen()
        asked = (str(tmp_path / "engine.sock"), Scope("early"), Budget(pids=7), f"/{engine_host.cgroup}")
        async with asyncio.timeout(60), budget.kept_meanwhile(*asked):
            place.mkdir()
            while (place / "pids.max").read_text() != "7\n":  # noqa: ASYNC110 -- the kernel tells nobody
                await asyncio.sleep(0.05)


def test_another_socket_for_a_scope_that_is_served_changes_nothing(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS + "memory: 64m"):
        before = limits(engine_host)
        places = {"DOM0_RUN": str(tmp_path / "run"), "DOCKER_HOST": f"unix://{engine_host.socket}"}
        argv = [sys.executable, "-m", "dom0", "socket", "serve", "--scope", "guest"]
        argv += ["--cgroup-parent", f"/{engine_host.cgroup}", "--listen", str(tmp_path / "second.sock")]
        second = subprocess.run(
            argv, env=engine_host.environment() | places, capture_output=True, text=True, timeout=60, check=False
        )
        assert (second.returncode, second.stdout) == (2, "")
        assert f"guest: is served already at {tmp_path}/docker.sock" in second.stderr
        assert limits(engine_host) == before
        assert (tmp_path / "run/scopes/guest/scope.json").exists()


def test_every_container_is_in_the_group_and_none_leaves_it(engine_host: Host, tmp_path: Path) -> None:
    inner = tmp_path / "team"
    inner.mkdir()
    with (
        scopes.served(engine_host, tmp_path, GRANTS) as path,
        scopes.served(engine_host, inner, GRANTS, scope="team", engine=path) as team,
    ):
        guest = Scoped(engine_host, path)
        run(guest, "web", "sleep 1000")
        run(Scoped(engine_host, team), "web", "sleep 1000")
        own = {f"/{engine_host.cgroup}/guest", f"/{engine_host.cgroup}/guest/team"}
        assert groups(engine_host) == own
        asked = ("run", "--cgroup-parent", f"/{engine_host.cgroup}", IMAGE, "true")
        assert "HostConfig.CgroupParent" in guest.docker(*asked, check=False)
        answer = guest.client.ask("POST", "/containers/web/update", {"CgroupParent": "/"})
        assert answer.status == 403, answer
        assert groups(engine_host) == own
        pid = engine_host.docker("inspect", "--format", "{{.State.Pid}}", "guest.team.web").stdout.strip()
        places = engine_host.run(["cat", f"/proc/{pid}/cgroup"]).stdout
        assert f"/{engine_host.cgroup}/guest/team/" in places


def test_more_processors_than_the_scope_has_are_refused(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS + "cpus: 0.5") as path:
        guest = Scoped(engine_host, path)
        said = guest.docker("run", "--cpus", "1.5", IMAGE, "true", check=False)
        assert "it would take the grant cpus: 1.5" in said
        guest.docker("run", "-d", "--init", "--name", "web", "--cpus", "0.5", IMAGE, "sleep", "1000")
        assert "not granted" in guest.docker("update", "--cpus", "1", "web", check=False)


def test_a_budget_that_would_not_hold_is_not_served(engine_host: Host, tmp_path: Path) -> None:
    label = ("--label", "dom0.scope=/guest")
    engine_host.docker("create", "--name", "guest.before", *label, IMAGE, "true")
    with (
        pytest.raises(RuntimeError, match=r"guest.before: was made outside of"),
        scopes.served(engine_host, tmp_path, GRANTS + "pids: 20"),
    ):
        pass


def test_a_server_in_a_container_limits_where_the_hosts_groups_are_mounted_after_a_boot_too(
    engine_host: Host, tmp_path: Path
) -> None:
    (tmp_path / "grants.yaml").write_text(GRANTS + "pids: 60")
    programs = {sys.prefix, sys.base_prefix, str(PACKAGE.parent), "/usr/lib", "/lib", "/lib64"}
    binds = [f"{path}:{path}:ro" for path in sorted(programs)]
    binds += [f"{tmp_path}:{tmp_path}", "/var/run/docker.sock:/run/docker.sock"]
    dom0 = (sys.executable, "-m", "dom0", "socket", "serve", "--scope", "guest")
    served = ("--grants", str(tmp_path / "grants.yaml"), "--listen", str(tmp_path / "docker.sock"))

    def server(*more: str, options: Sequence[str] = ()) -> None:
        mounts = [word for bind in (*binds, *more) for word in ("-v", bind)]
        environment = ("-e", "DOCKER_HOST=unix:///run/docker.sock", "-e", f"PYTHONPATH={PACKAGE.parent}")
        engine_host.docker(
            "run", "-d", "--init", "--name", "server", *options, *mounts, *environment, IMAGE, *dom0, *served
        )

    server()
    assert engine_host.docker("wait", "server").stdout == "2\n"
    assert "-v /sys/fs/cgroup:/host/sys/fs/cgroup" in engine_host.docker("logs", "server").stderr
    engine_host.docker("rm", "server")
    server("/sys/fs/cgroup:/host/sys/fs/cgroup", options=("--restart", "always"))
    wait_until((tmp_path / "docker.sock").exists, engine_host.docker("logs", "server").stderr)
    run(Scoped(engine_host, tmp_path / "docker.sock"), "web", "sleep 1000")
    parent = engine_host.docker("inspect", "--format", "{{.HostConfig.CgroupParent}}", "guest.web").stdout.strip()
    if VERSION == 1:  # else a container sees itself at the root
        assert parent == f"/{engine_host.cgroup}/dom0/guest"
        limit = CGROUPS / "pids" / parent[1:] / "pids.max"
        assert limit.read_text() == "60\n"
        engine_host.stop_engine()  # as at a boot: the groups are gone, and the Engine makes them anew
        owned.remove_cgroup(engine_host.cgroup)
        assert not limit.exists()
        engine_host.start_engine()
        wait_until(lambda: limit.exists() and limit.read_text() == "60\n", "a limit after a boot")
