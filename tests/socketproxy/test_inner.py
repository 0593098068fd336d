"""A scope inside a scope has a budget of its own, within that of the outer one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0.testing import scopes
from dom0.testing.hosts import Host
from dom0.testing.scopes import Scoped

IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox]}\n"
CGROUPS = Path("/sys/fs/cgroup")
VERSION = 2 if (CGROUPS / "cgroup.controllers").exists() else 1


def limit(host: Host, path: str) -> str:
    """How many processes the group of a scope may have."""
    place = CGROUPS / host.cgroup if VERSION == 2 else CGROUPS / "pids" / host.cgroup
    return (place / path / "pids.max").read_text().strip()


def parent(host: Host, name: str) -> str:
    return host.docker("inspect", "--format", "{{.HostConfig.CgroupParent}}", name).stdout.strip()


@contextmanager
def inside(host: Host, directory: Path, outer: Path, grants: str, scope: str = "team") -> Iterator[Path]:
    (directory / scope).mkdir(exist_ok=True)
    with scopes.served(host, directory / scope, GRANTS + grants, scope=scope, engine=outer) as path:
        yield path


def test_each_level_is_limited_below_the_one_around_it(engine_host: Host, tmp_path: Path) -> None:
    with (
        scopes.served(engine_host, tmp_path, GRANTS + "pids: 60") as guest,
        inside(engine_host, tmp_path, guest, "pids: 40") as team,
        inside(engine_host, tmp_path, team, "pids: 20", "sub") as sub,
    ):
        for place, pids in {"guest": "60", "guest/team": "40", "guest/team/sub": "20"}.items():
            assert limit(engine_host, place) == pids
        for socket in (guest, team, sub):
            Scoped(engine_host, socket).docker("run", "-d", "--init", "--name", "web", IMAGE, "sleep", "1000")
        group = f"/{engine_host.cgroup}/guest"
        assert parent(engine_host, "guest.web") == group
        assert parent(engine_host, "guest.team.web") == f"{group}/team"
        assert parent(engine_host, "guest.team.sub.web") == f"{group}/team/sub"
        many = "for i in $(seq 30); do sleep 1000 & done; echo all there"
        assert "can't fork" in Scoped(engine_host, sub).docker("exec", "web", "sh", "-c", many, check=False)
        assert "all there" in Scoped(engine_host, guest).docker("exec", "web", "sh", "-c", many)
    with scopes.served(engine_host, tmp_path, GRANTS + "pids: 60") as guest:  # what is in there is known to a new one
        with inside(engine_host, tmp_path, guest, "pids: 30"):
            assert limit(engine_host, "guest/team") == "30"
        with inside(engine_host, tmp_path, guest, "") as team:
            assert limit(engine_host, "guest/team") == "max"
            Scoped(engine_host, team).docker("run", "--name", "late", IMAGE, "true")
            assert parent(engine_host, "guest.team.late") == f"{group}/team"


def test_more_than_the_outer_one_has_is_not_granted(engine_host: Host, tmp_path: Path) -> None:
    budget = "memory: 64m\ncpus: 0.5\npids: 60\ncontainers: 2"
    with scopes.served(engine_host, tmp_path, GRANTS + budget, scope="small") as guest:
        for more in ("memory: 65m", "cpus: 0.6", "pids: 61"):
            with (
                pytest.raises(RuntimeError, match=f"it would take the grant {more.partition(':')[0]}: "),
                inside(engine_host, tmp_path, guest, more),
            ):
                pass
        ask = Scoped(engine_host, guest).client.ask
        for scope in ("/a", "/b/c", "/b"):
            answer = ask("PUT", "/dom0/budget", {"Scope": scope, "PidsLimit": 10})
            assert answer.status == (403 if scope == "/b/c" else 200), answer
        assert ask("PUT", "/dom0/budget", {"Scope": "/c"}).status == 403
        assert ask("PUT", "/dom0/budget", {"Scope": "/a", "PidsLimit": 20}).status == 200
        assert limit(engine_host, "small/a") == "20"


def test_containers_that_were_made_outside_of_the_group_are_in_the_way(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, GRANTS + "pids: 60") as guest:
        client = Scoped(engine_host, guest)
        client.docker("create", "--name", "team.before", "--label", "dom0.scope=/team", IMAGE, "true")
        with (
            pytest.raises(RuntimeError, match=r"team.before: was made outside of"),
            inside(engine_host, tmp_path, guest, "pids: 20"),
        ):
            pass
        unknown = ("run", "--cgroup-parent", "/other", IMAGE, "true")
        assert "HostConfig.CgroupParent: '/other': not through this socket" in client.docker(*unknown, check=False)
