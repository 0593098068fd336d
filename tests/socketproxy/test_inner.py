"""A scope inside a scope has a budget of its own, within that of the outer one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0.socketproxy import budget, cgroup, inner, requests, strict
from dom0.socketproxy.context import Asked, Context
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import EngineAnswer
from dom0.testing import scopes
from dom0.testing.escape import still
from dom0.testing.escape.reach import Sent
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


class Outer(still.Still):
    """The socket of the scope around another one."""

    around: Context

    async def answer(self, sent: Sent) -> EngineAnswer:
        if sent.method != "PUT":
            return await super().answer(sent)
        return budgeted(self.around, strict.read(sent.body, requests.Budget))


def budgeted(context: Context, body: requests.Budget) -> EngineAnswer:
    """What the socket of a scope answers."""
    asked = Asked(method="PUT", path=budget.BUDGET, names={}, query={}, body=body)
    try:
        answer = inner.budgeted(context, asked).send(None)
    except StopIteration as ended:
        return EngineAnswer(200, ended.value.value)
    except Refused as refused:
        return EngineAnswer(refused.status, {"message": refused.message})
    raise AssertionError(f"it waits: {answer}")


@pytest.fixture
def scopes_in_scopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Context, ...]]:
    """`guest`, `team` in there and `sub` in there, with groups in a directory."""
    for name in ("memory", "cpu", "pids", "freezer"):
        (tmp_path / "cgroup" / name).mkdir(parents=True)
    monkeypatch.setattr(budget, "CGROUPS", str(tmp_path / "cgroup"))
    outermost = Outer()
    outermost.socket = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(outermost.socket)
        engine.listen()
        groups = cgroup.CgroupDriver(1, systemd=False, process=0)
        found = [Context(Scope("guest"), Grants(containers=6), outermost, "", cgroup_parent="/g", cgroups=groups)]
        for name, containers in {"team": 3, "sub": 1}.items():
            outer = Outer()
            outer.around = found[-1]
            grants = Grants(containers=containers)
            found.append(Context(Scope(name), grants, outer, "", cgroup_parent=f"/{name}"))
        yield tuple(found)


def made(directory: Path) -> set[str]:
    groups = directory / "cgroup/pids"
    return {str(one.relative_to(groups)) for one in groups.rglob("*")}


def test_no_scope_has_more_groups_inside_than_it_may_have_containers(
    scopes_in_scopes: tuple[Context, ...], tmp_path: Path
) -> None:
    guest, team, sub = scopes_in_scopes
    assert budgeted(sub, requests.Budget(scope="/a")).status == 200
    assert made(tmp_path) == {"g", "g/team", "g/team/sub", "g/team/sub/a"}
    assert budgeted(sub, requests.Budget(scope="/a")).status == 200
    refused = budgeted(sub, requests.Budget(scope="/b"))
    assert (refused.status, refused.document["message"]) == (
        403,
        "scopes inside sub can have 1 control groups, as many as there may be containers; "
        "it would take the grant containers: 2",
    )
    assert [budgeted(team, requests.Budget(scope=scope)).status for scope in ("/b", "/c", "/sub")] == [
        200,
        403,
        200,
    ]
    assert [budgeted(guest, requests.Budget(scope=scope)).status for scope in ("/d/e", "/f", "/d")] == [
        200,
        403,
        200,
    ]
    assert made(tmp_path) == {"g", "g/team", "g/team/sub", "g/team/sub/a", "g/team/b", "g/d", "g/d/e"}


@pytest.mark.parametrize("path", ["", "/", "/team", "/team/sub", "/other", "/tea", "team"])
def test_grants_are_said_of_scopes_on_the_way_alone(scopes_in_scopes: tuple[Context, ...], path: str) -> None:
    asked = requests.Budget(scope="/team/sub", containers={path: 1000})
    assert budgeted(scopes_in_scopes[0], asked).status == (200 if path == "/team" else 400)


def test_what_a_scope_says_of_grants_gives_it_no_room(scopes_in_scopes: tuple[Context, ...]) -> None:
    sub = scopes_in_scopes[2]
    assert budgeted(sub, requests.Budget(scope="/a/b", containers={"/a": 1000})).status == 403
    assert budgeted(sub, requests.Budget(scope="/a", containers={"/a": 1000})).status == 400


def test_in_a_scope_without_a_group_there_is_none_and_no_budget() -> None:
    guest = Context(Scope("guest"), Grants(), still.Still(), "")
    without = budgeted(guest, requests.Budget(scope="/team"))
    assert (without.status, without.document) == (200, {"CgroupParent": ""})
    refused = budgeted(guest, requests.Budget(scope="/team", pids_limit=5))
    assert (refused.status, refused.document["message"]) == (
        403,
        "guest has no control group of its own, and so has nothing inside it",
    )


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
