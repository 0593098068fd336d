"""What the agent says of the sockets of scopes, and how it ends by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dom0.agent.observe import Observer
from dom0.agent.ownership import Ownership
from dom0.agent.scope_problems import LASTS
from dom0.agent.scopes import Scopes
from dom0.engine.values import ContainerSummary, Event, Network, State, Volume
from dom0.health import Problem
from dom0.plan.actual import Actual
from dom0.plan.container_plan import SlotPlan
from dom0.plan.desired import Desired, Role
from dom0.plan.ownership import Seal
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan
from dom0.socketproxy import registrations
from dom0.socketproxy.context import Context
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusals import Refusals, RefusedRequest
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Upstream
from dom0.testing.builders import slot
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

SOCKET = Path("/run/guest.sock")
GUESTS = {"dom0.scope": "/guest"}


@pytest.fixture(autouse=True)
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its directory."""
    monkeypatch.setenv("DOM0_RUN", str(tmp_path))
    return tmp_path / "scopes/guest"


@contextmanager
def served(grants: Grants | None = None, *, group: str = "") -> Iterator[None]:
    context = Context(
        Scope("guest"), grants or Grants(), Upstream("/run/docker.sock"), str(SOCKET), cgroup_parent=group
    )
    with registrations.registered(context, SOCKET):
        yield


def killed() -> None:
    """A server of the scope, by SIGKILL."""
    child = os.fork()
    if not child:
        with served():
            os._exit(0)
    os.waitpid(child, 0)


def plan(phase: Phase, reason: str = "") -> Plan:
    server = SlotPlan(slot=slot("dom0-socket-guest", role=Role.SOCKET), phase=phase, reason=reason)
    return Plan(steps=(), slots=(server,), problems=(), settled=False, well=False)


def found(plan: Plan | None = None, actual: Actual | None = None, *, later: float = 0.0) -> list[Problem]:
    return list(Scopes().problems(plan, actual, time.time() + later))


def said(plan: Plan | None = None, actual: Actual | None = None, *, later: float = 0.0) -> list[tuple[str, str]]:
    problems = found(plan, actual, later=later)
    assert {problem.subject for problem in problems} <= {"scope guest"}
    return [(problem.code, problem.title) for problem in problems]


def test_where_no_socket_is_there_is_nothing_to_say() -> None:
    assert found() == []


def test_a_scope_that_is_served_is_no_problem() -> None:
    with served():
        assert found(plan(Phase.READY), Actual()) == []


def test_one_whose_server_was_killed_is_one_until_it_is_served() -> None:
    killed()
    assert said() == [("scope-unserved", "nobody serves its socket: its server was killed")]
    assert found()[0].hint.endswith("dom0 socket rm guest")
    with served():
        assert found() == []
    assert found() == []


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.CREATED, Phase.STARTING])
def test_an_orchestrators_socket_that_is_on_its_way_is_none(phase: Phase) -> None:
    assert found(plan(phase)) == []


def test_an_orchestrators_server_that_ends_is_one_with_its_log() -> None:
    (problem,) = found(plan(Phase.FAILED, "exited with code 2, the Engine restarts it"))
    assert problem.title == "nobody serves its socket: exited with code 2, the Engine restarts it"
    assert (problem.severity, problem.hint) == ("error", "docker logs box-dom0-socket-guest-1; then dom0 up")
    assert found(plan(Phase.STOPPED, "stopped manually"))[0].severity == "warning"


def test_one_that_serves_and_is_not_registered_cannot_write_there() -> None:
    assert [code for code, _ in said(plan(Phase.READY))] == ["scope-unregistered"]


def test_a_registration_that_is_not_understood_is_said(scope: Path) -> None:
    scope.mkdir(parents=True)
    (scope / "scope.json").write_text("{}")
    ((code, title),) = said()
    assert code == "scope-unregistered"
    assert "scope.json: is not understood" in title


def test_a_directory_that_no_scope_can_have_is_not_looked_at(scope: Path) -> None:
    with served():
        registration = (scope / "scope.json").read_bytes()
        for name, content in (("Not one", registration), ("damaged", registration.replace(b'"guest"', b'""'))):
            (scope.parent / name).mkdir()
            (scope.parent / name / "scope.json").write_bytes(content)
        assert {problem.subject for problem in found()} == {"scope damaged"}


def test_grants_that_are_refused_are_why(tmp_path: Path) -> None:
    (tmp_path / "grants.yaml").write_text("memry: 1g")
    argv = [
        sys.executable,
        "-m",
        "dom0",
        "socket",
        "serve",
        "--scope",
        "guest",
        "--grants",
        str(tmp_path / "grants.yaml"),
    ]
    subprocess.run(argv, env=os.environ | {"DOM0_RUN": str(tmp_path)}, check=False, capture_output=True)
    assert found() == []  # one that was never served here: who typed it was told
    killed()
    ended = subprocess.run(
        argv, env=os.environ | {"DOM0_RUN": str(tmp_path)}, check=False, capture_output=True, text=True
    )
    ((code, title),) = said()
    assert code == "scope-unserved"
    assert title.removeprefix("nobody serves its socket: ") in ended.stderr
    assert "grants.yaml/memry" in title
    with served():
        registrations.note_failure("guest", "a second server", "")
        assert found() == []


async def test_what_was_refused_is_counted_since_the_server_began(scope: Path) -> None:
    def note(message: str, at: float, times: int = 1, method: str = "POST") -> None:
        one = RefusedRequest(at=at, method=method, path="/containers/create", message=message, times=times)
        refused = Refusals(scope)
        refused.note(one)
        refused.close()

    with served():
        note("of an earlier one", time.time() - 100)
        scopes = Scopes()
        assert scopes.problems(None, None, time.time()) == ()
        note("no devices", time.time(), times=3)
        note("no ports", time.time())
        note("no such image", time.time(), method="GET")
        (problem,) = scopes.problems(None, None, time.time())
        assert (problem.code, problem.title) == ("scope-refused", "4 requests were refused, lastly: no ports")
        assert (problem.severity, problem.hint) == ("warning", "dom0 socket log guest")
        assert scopes.problems(None, None, time.time() + LASTS + 1) == ()
    with served():
        assert scopes.problems(None, None, time.time()) == ()
    assert scopes.problems(None, None, time.time()) == ()


def test_what_has_the_socket_before_this_one_bound_is_named_with_the_command() -> None:
    with served():
        (problem,) = found(actual=Actual(cut_off_inside={"guest": ("guest.a", "guest.team.b")}))
    assert (problem.code, problem.severity) == ("scope-cut-off", "error")
    assert problem.hint == "docker restart guest.a guest.team.b"


def test_as_many_as_it_may_have_is_used_up() -> None:
    rows = [
        ContainerSummary(id=name, name=name, image_id="", state=State.EXITED, labels=labels)
        for name, labels in {"guest.a": GUESTS, "guest.b": {"dom0.scope": "/guest/team"}, "guest.c": {}}.items()
    ]
    network = Network(id="n", name="guest.default", driver="bridge", labels=GUESTS)
    volumes = tuple(Volume(name=name, driver="local", labels=GUESTS) for name in ("guest.data", "f" * 64))
    actual = Actual(others=tuple(rows), networks=(network,), volumes=volumes)
    with served(Grants(containers=2, networks=2, volumes=2)):
        title = "has used up what it was granted: containers (2 of 2), volumes (2 of 2)"
        assert said(actual=actual) == [("scope-budget", title)]
        assert found(actual=Actual(others=tuple(rows[1:]))) == []
    with served(Grants(containers=0)):
        assert found(actual=Actual()) == []


@pytest.mark.parametrize("version", [1, 2])
def test_processes_at_their_number_are_used_up(tmp_path: Path, version: int) -> None:
    place = tmp_path / "cgroup/dom0/guest" if version == 2 else tmp_path / "cgroup/pids/dom0/guest"
    memory = place / "memory.current" if version == 2 else tmp_path / "cgroup/memory/dom0/guest/memory.usage_in_bytes"
    for file in (place, memory.parent):
        file.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (tmp_path / "cgroup/cgroup.controllers").touch()
    memory.write_text("4096\n")
    scopes = Scopes(tmp_path / "cgroup")
    with served(Grants(pids=20), group="/dom0/guest"):
        (place / "pids.current").write_text("19\n")
        assert scopes.problems(None, None, time.time()) == ()
        (place / "pids.current").write_text("20\n")
        (problem,) = scopes.problems(None, None, time.time())
        assert problem.title.endswith(": pids (20 of 20)")


async def test_a_scope_whose_memory_ended_says_so_for_a_day_or_until_it_is_granted_anew() -> None:
    observer = Observer(FakeEngine(FakeDocker()), Ownership(Seal(), lambda _: None))
    now = time.time()

    async def told(labels: dict[str, str]) -> Actual:
        event = Event(type="container", action="oom", id="1", attributes={"name": "guest.a", **labels}, time=now + 1)
        observer.note(event)
        return await observer.actual(Desired(project="box"))

    with served(Grants(memory="48m")):
        assert found(actual=await told({})) == []
        assert found(actual=await told(GUESTS | {"dom0.orchestrator": "{}"})) == []  # its own limit
        actual = await told({"dom0.scope": "/guest/team"})
        title = "has used up what it was granted: memory (48m; the kernel has killed a process)"
        assert said(actual=actual) == [("scope-budget", title)]
        assert found(actual=actual, later=LASTS + 2) == []
    with served():
        assert found(actual=actual) == []


async def test_what_each_uses_of_what_it_was_granted_is_told_with_what_was_refused_last(
    scope: Path, tmp_path: Path
) -> None:
    place = tmp_path / "cgroup/dom0/guest"
    place.mkdir(parents=True)
    (tmp_path / "cgroup/cgroup.controllers").touch()
    (place / "memory.current").write_text("4096\n")
    (place / "pids.current").write_text("3\n")
    scopes = Scopes(tmp_path / "cgroup")
    assert scopes.status(Actual()) == []
    mine = ContainerSummary(id="1", name="guest.a", image_id="", state=State.RUNNING, labels=GUESTS)
    other = ContainerSummary(id="2", name="b", image_id="", state=State.RUNNING, labels={})
    with served(Grants(memory="64m", cpus=0.5, containers=2), group="/dom0/guest"):
        (scope.parent / "Not one").mkdir()
        (scope.parent / "Not one" / "scope.json").write_bytes((scope / "scope.json").read_bytes())
        (one,) = scopes.status(Actual(others=(mine, other)))
        assert (one.scope, one.served, one.refused, one.refusals) == ("guest", True, 0, ())
        assert [(it.kind, it.granted, it.used) for it in one.budget] == [
            ("containers", 2, 1),
            ("networks", 8, 0),
            ("volumes", 100, 0),
            ("memory", 64 << 20, 4096),
            ("pids", None, 3),
            ("cpus", 0.5, None),
        ]
        log = Refusals(scope)
        for number in range(30):
            log.note(RefusedRequest(at=1.0, method="POST", path="/build\x1b", message=f"not {number}", value="secret"))
        log.close()
        (one,) = scopes.status(Actual())
        assert (one.refused, len(one.refusals)) == (30, 20)
        assert (one.refusals[-1].message, one.refusals[-1].path) == ("not 29", "/build\\x1b")
        assert "secret" not in repr(one)
    (scope / "scope.json").write_text("{}")
    assert scopes.status(Actual()) == []
