"""What the containers of a scope use together is limited by the kernel, whatever they ask for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.errors import UsageError
from dom0.package_data import PACKAGE
from dom0.socketproxy import budget
from dom0.socketproxy.grants import Budget
from dom0.socketproxy.scope import Scope
from dom0.testing import scopes
from dom0.testing.hosts import Host
from dom0.testing.scopes import Scoped

IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox]}\n"
ALL = Budget(memory=64 << 20, cpus=0.5, pids=40)
CGROUPS = Path("/sys/fs/cgroup")
VERSION = 2 if (CGROUPS / "cgroup.controllers").exists() else 1


def planned(version: int, asked: Budget) -> list[tuple[str, str]]:
    group = budget.group_of(Scope("guest"), "", systemd=False)
    return [(it.file, it.value) for it in budget.settings(version, group, asked)]


def test_the_limits_of_version_1() -> None:
    assert planned(1, ALL) == [
        ("memory/dom0/guest/memory.use_hierarchy", "1"),
        ("memory/dom0/guest/memory.memsw.limit_in_bytes", "-1"),
        ("memory/dom0/guest/memory.limit_in_bytes", "67108864"),
        ("memory/dom0/guest/memory.memsw.limit_in_bytes", "67108864"),
        ("cpu/dom0/guest/cpu.cfs_period_us", "100000"),
        ("cpu/dom0/guest/cpu.cfs_quota_us", "50000"),
        ("pids/dom0/guest/pids.max", "40"),
    ]


def test_the_limits_of_version_2_where_each_group_above_hands_the_controllers_down() -> None:
    assert planned(2, ALL) == [
        *(("cgroup.subtree_control", f"+{name}") for name in ("memory", "cpu", "pids")),
        *(("dom0/cgroup.subtree_control", f"+{name}") for name in ("memory", "cpu", "pids")),
        ("dom0/guest/memory.swap.max", "0"),
        ("dom0/guest/memory.max", "67108864"),
        ("dom0/guest/cpu.max", "50000 100000"),
        ("dom0/guest/pids.max", "40"),
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_granted_any_more_is_let_go_where_it_was_limited(version: int) -> None:
    group = budget.group_of(Scope("guest"), "", systemd=False)
    written = budget.settings(version, group, Budget())
    assert {it.value for it in written} <= {"1", "-1", "max", "100000", "max 100000"}
    assert not any(it.needed for it in written)


@pytest.mark.parametrize(
    ("scope", "parent", "group"),
    [
        ("guest", "", ("dom0-guest.slice", "dom0.slice/dom0-guest.slice")),
        ("my-team", "", (r"dom0-my\x2dteam.slice", r"dom0.slice/dom0-my\x2dteam.slice")),
        ("guest", "a-b.slice", ("a-b-guest.slice", "a.slice/a-b.slice/a-b-guest.slice")),
    ],
)
def test_with_systemd_the_group_is_a_slice_whose_dashes_are_levels(
    scope: str, parent: str, group: tuple[str, str]
) -> None:
    assert budget.group_of(Scope(scope), parent, systemd=True) == group


def test_a_slice_is_limited_by_its_properties() -> None:
    group = budget.group_of(Scope("guest"), "", systemd=True)
    limits = ["MemoryMax=67108864", "MemorySwapMax=0", "CPUQuota=50%", "TasksMax=40"]
    assert budget.properties(group, ALL) == ["set-property", "--runtime", "dom0-guest.slice", *limits]
    none = ["MemoryMax=", "MemorySwapMax=", "CPUQuota=", "TasksMax="]
    assert budget.properties(group, Budget())[3:] == none


@pytest.mark.parametrize(
    ("parent", "systemd"),
    [("docker", False), ("/a/../b", False), ("/", False), ("/a.slice", True), ("a", True), ("-.slice", True)],
)
def test_a_parent_that_the_engine_would_not_take(parent: str, systemd: bool) -> None:
    with pytest.raises(UsageError, match="--cgroup-parent"):
        budget.group_of(Scope("guest"), parent, systemd=systemd)


@pytest.mark.parametrize(
    ("own", "above"),
    [
        ("5:pids:/x\n4:memory:/docker/0123\n", "/docker"),
        ("4:memory:/machine/lab/0123\n", "/machine/lab"),
        ("4:memory:/\n", ""),
        ("4:memory:/0123\n", ""),
        ("0::/\n", ""),
        ("4:memory:/a b/0123\n", ""),
        ("", ""),
    ],
)
def test_in_a_container_the_group_is_below_the_engines_own(own: str, above: str) -> None:
    assert budget.engines_group(own) == above
    assert budget.group_of(Scope("guest"), "", systemd=False, above=above).parent == f"{above}/dom0/guest"


def test_a_controller_that_the_kernel_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    group = budget.group_of(Scope("guest"), "", systemd=False)
    with pytest.raises(UsageError, match=r"pids: .*the kernel of this host does not limit that"):
        budget.limit(tmp_path, 1, group, Budget(pids=10))
    budget.limit(tmp_path, 1, group, Budget())
    assert (tmp_path / "memory/dom0/guest").is_dir()


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
        assert groups(engine_host) == {f"/{engine_host.cgroup}/guest"}
        asked = ("run", "--cgroup-parent", f"/{engine_host.cgroup}", IMAGE, "true")
        assert "HostConfig.CgroupParent" in guest.docker(*asked, check=False)
        answer = guest.client.ask("POST", "/containers/web/update", {"CgroupParent": "/"})
        assert answer.status == 403, answer
        assert groups(engine_host) == {f"/{engine_host.cgroup}/guest"}
        pid = engine_host.docker("inspect", "--format", "{{.State.Pid}}", "guest.team.web").stdout.strip()
        places = engine_host.run(["cat", f"/proc/{pid}/cgroup"]).stdout
        assert f"/{engine_host.cgroup}/guest/" in places


def test_more_processors_than_the_scope_has_are_refused(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS + "cpus: 0.5") as path:
        guest = Scoped(engine_host, path)
        said = guest.docker("run", "--cpus", "1.5", IMAGE, "true", check=False)
        assert "it would take the grant cpus: 1.5" in said
        guest.docker("run", "-d", "--init", "--name", "web", "--cpus", "0.5", IMAGE, "sleep", "1000")
        assert "not granted" in guest.docker("update", "--cpus", "1", "web", check=False)


def test_a_budget_that_would_not_hold_is_not_served(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        inner = tmp_path / "team"
        inner.mkdir()
        with (
            pytest.raises(RuntimeError, match="is the socket of a scope"),
            scopes.served(engine_host, inner, GRANTS + "pids: 20", scope="team", engine=path),
        ):
            pass
    label = ("--label", "dom0.scope=/guest")
    engine_host.docker("create", "--name", "guest.before", *label, IMAGE, "true")
    with (
        pytest.raises(RuntimeError, match=r"guest.before: was made outside of"),
        scopes.served(engine_host, tmp_path, GRANTS + "pids: 20"),
    ):
        pass


@pytest.mark.parametrize("systemd", [False, True])
def test_a_group_is_found_by_what_containers_are_told(systemd: bool) -> None:
    group = budget.group_of(Scope("guest-1"), "", systemd=systemd)
    assert budget.directory_of(group.parent) == group.directory


def test_a_server_in_a_container_limits_where_the_hosts_groups_are_mounted(engine_host: Host, tmp_path: Path) -> None:
    (tmp_path / "grants.yaml").write_text(GRANTS + "pids: 60")
    programs = {sys.prefix, sys.base_prefix, str(PACKAGE.parent), "/usr/lib", "/lib", "/lib64"}
    binds = [f"{path}:{path}:ro" for path in sorted(programs)]
    binds += [f"{tmp_path}:{tmp_path}", "/var/run/docker.sock:/run/docker.sock"]
    dom0 = (sys.executable, "-m", "dom0", "socket", "serve", "--scope", "guest")
    served = ("--grants", str(tmp_path / "grants.yaml"), "--listen", str(tmp_path / "docker.sock"))

    def server(*more: str) -> None:
        mounts = [word for bind in (*binds, *more) for word in ("-v", bind)]
        environment = ("-e", "DOCKER_HOST=unix:///run/docker.sock", "-e", f"PYTHONPATH={PACKAGE.parent}")
        engine_host.docker("run", "-d", "--init", "--name", "server", *mounts, *environment, IMAGE, *dom0, *served)

    server()
    assert engine_host.docker("wait", "server").stdout == "2\n"
    assert "-v /sys/fs/cgroup:/host/sys/fs/cgroup" in engine_host.docker("logs", "server").stderr
    engine_host.docker("rm", "server")
    server("/sys/fs/cgroup:/host/sys/fs/cgroup")
    wait_until((tmp_path / "docker.sock").exists, engine_host.docker("logs", "server").stderr)
    run(Scoped(engine_host, tmp_path / "docker.sock"), "web", "sleep 1000")
    parent = engine_host.docker("inspect", "--format", "{{.HostConfig.CgroupParent}}", "guest.web").stdout.strip()
    if VERSION == 1:  # else a container sees itself at the root
        assert parent == f"/{engine_host.cgroup}/dom0/guest"
        assert (CGROUPS / "pids" / parent[1:] / "pids.max").read_text() == "60\n"
