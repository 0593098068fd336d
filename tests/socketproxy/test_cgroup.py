"""Names and limits of the control groups of scopes, as values."""

from __future__ import annotations

import pytest

from dom0.errors import UsageError
from dom0.socketproxy import cgroup
from dom0.socketproxy.grants import Budget
from dom0.socketproxy.scope import Scope

ALL = Budget(memory=64 << 20, cpus=0.5, pids=40)


def planned(version: int, asked: Budget) -> list[tuple[str, str]]:
    group = cgroup.group_of(Scope("guest"), "", systemd=False)
    return [(it.file, it.value) for it in cgroup.settings(version, group, asked)]


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
    group = cgroup.group_of(Scope("guest"), "", systemd=False)
    written = cgroup.settings(version, group, Budget())
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
    assert cgroup.group_of(Scope(scope), parent, systemd=True) == group


def test_a_slice_is_limited_by_its_properties() -> None:
    group = cgroup.group_of(Scope("guest"), "", systemd=True)
    limits = ["MemoryMax=67108864", "MemorySwapMax=0", "CPUQuota=50%", "TasksMax=40"]
    assert cgroup.properties(group, ALL) == ["set-property", "--runtime", "dom0-guest.slice", *limits]
    assert "CPUQuota=33.33%" in cgroup.properties(group, Budget(cpus=0.33337))  # of what it has no word for, less
    none = ["MemoryMax=", "MemorySwapMax=", "CPUQuota=", "TasksMax="]
    assert cgroup.properties(group, Budget())[3:] == none


@pytest.mark.parametrize(
    ("parent", "systemd"),
    [("docker", False), ("/a/../b", False), ("/", False), ("/a.slice", True), ("a", True), ("-.slice", True)],
)
def test_a_parent_that_the_engine_would_not_take(parent: str, systemd: bool) -> None:
    with pytest.raises(UsageError, match="--cgroup-parent"):
        cgroup.group_of(Scope("guest"), parent, systemd=systemd)


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
    assert cgroup.engines_group(own) == above
    assert cgroup.group_of(Scope("guest"), "", systemd=False, above=above).parent == f"{above}/dom0/guest"


@pytest.mark.parametrize("systemd", [False, True])
def test_a_group_is_found_by_what_containers_are_told(systemd: bool) -> None:
    group = cgroup.group_of(Scope("guest-1"), "", systemd=systemd)
    assert cgroup.directory_of(group.parent) == group.directory


@pytest.mark.parametrize(
    ("outer", "path", "group"),
    [
        ("/dom0/guest", "/team", "/dom0/guest/team"),
        ("/dom0/guest", "/team/sub", "/dom0/guest/team/sub"),
        ("dom0-guest.slice", "/my-team/sub", r"dom0-guest-my\x2dteam-sub.slice"),
        ("/team", "/sub", "/team/sub"),  # as a scope inside another one calls it
    ],
)
def test_a_scope_inside_has_a_group_below(outer: str, path: str, group: str) -> None:
    found = cgroup.inner(outer, path)
    assert found is not None
    assert found.parent == group
    assert found.directory.startswith(f"{cgroup.directory_of(outer)}/")
    assert cgroup.is_within(found.parent, outer)


@pytest.mark.parametrize(
    "path", ["", "/", "team", "/..", "/team/", "//team", "/team/..", "/Team", "/a.slice", "/team\n", "/x" * 16]
)
def test_what_is_no_path_of_a_scope_names_no_group(path: str) -> None:
    assert cgroup.inner("/dom0/guest", path) is None


@pytest.mark.parametrize(
    ("parent", "outer"),
    [
        ("/dom0/guest2", "/dom0/guest"),
        ("/dom0", "/dom0/guest"),
        ("", "/dom0/guest"),
        ("dom0-guest2.slice", "dom0-guest.slice"),
        (r"dom0-guest\x2dteam.slice", "dom0-guest.slice"),
        ("dom0.slice", "dom0-guest.slice"),
    ],
)
def test_others_groups_are_not_within(parent: str, outer: str) -> None:
    assert not cgroup.is_within(parent, outer)
    assert cgroup.is_within(outer, outer)


@pytest.mark.parametrize("name", ["team", "my_team-2", "dom0-guest-team.slice"])
def test_what_a_directory_of_a_scope_is_called(name: str) -> None:
    assert cgroup.is_of_scope(name)


@pytest.mark.parametrize("name", ["0123456789abcdef" * 4, "docker-0123.scope", "memory.max", "init.scope"])
def test_what_a_container_and_a_file_are_called(name: str) -> None:
    assert not cgroup.is_of_scope(name)


@pytest.mark.parametrize(
    ("grant", "asked", "found", "is_said"),
    [
        ("pids", "5000", "5000\n", True),
        ("pids", "5000", "4096\n", False),
        ("pids", "5000", "max\n", False),
        ("pids", "max", "max\n", True),
        ("pids", "max", "20\n", False),
        ("memory", str((64 << 20) + 1), f"{64 << 20}\n", True),
        ("memory", str(64 << 20), f"{32 << 20}\n", False),
        ("memory", str(64 << 20), "max\n", False),
        ("memory", "0", "0\n", True),
        ("memory", "1", "1\n", True),  # memory.use_hierarchy
        ("memory", "-1", "9223372036854771712\n", True),
        ("memory", "-1", "50000\n", False),
        ("cpus", "-1", "-1\n", True),
        ("cpus", "-1", "50000\n", False),
        ("cpus", "50000 100000", "50000 100000\n", True),
        ("cpus", "50000 100000", "50000 200000\n", False),
        ("pids", "+pids", "cpu memory pids\n", True),
        ("cpus", "+cpu", "cpuset memory\n", False),
    ],
)
def test_whether_a_limit_is_there_is_read_as_the_kernel_writes_it(
    grant: str, asked: str, found: str, is_said: bool
) -> None:
    assert cgroup.is_said(cgroup.Setting(grant, "file", asked, needed=True), found) is is_said
