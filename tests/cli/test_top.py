"""`dom0 top`: what a frame says, and what the keyboard does to it on a real terminal."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dom0.agent.events import Entry
from dom0.agent.status import Phase, PullStatus
from dom0.agent.vitals import FileSystem, UsageStatus, Vitals
from dom0.cli.top import REVERSED, Sample, frame
from dom0.engine.values import Usage
from dom0.run import Output
from dom0.testing.fake_agent import FakeAgent, Lines, Turns, make_service, make_status
from dom0.testing.terminal import Terminal

RunCommand = Callable[..., Output]
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202eevil\r\n" + "\u4e2d\u6587" * 60
MACHINE = Vitals(
    memory=4_000_000_000,
    memory_available=3_000_000_000,
    load=0.5,
    processors={"user": 10.0, "idle": 90.0},
    file_systems=(FileSystem("/var/lib/dom0", 100_000_000_000, 40_000_000_000),),
)
USAGE = UsageStatus(now=1180.0, machine=MACHINE, containers={"c" * 64: Usage(memory=5_000_000, processor=3.0)})
EVENT = Entry(seq=7, time=1100.0, kind="start-container", subject="box-web-1", text="start box-web-1", reason="ended")


def seen(**changes: Any) -> Sample:
    return replace(
        Sample(status=make_status(), events=(EVENT,), usage=USAGE, percent={"c" * 64: 12.34}, machine_percent=10.0),
        **changes,
    )


def texts(of: Sample, sort: str = "service", **options: Any) -> list[str]:
    return [text for _, text in frame(of, sort, **options)[0]]


def many(count: int) -> Sample:
    services = tuple(
        make_service(f"s{number:03}", Phase.READY, container_id=f"{number:064}", restarts=number)
        for number in range(count)
    )
    usage = replace(USAGE, containers={f"{n:064}": Usage(memory=1000 * (n * 7 % count)) for n in range(count)})
    events = tuple(replace(EVENT, seq=n, text=f"event {n}") for n in range(50))
    percent = {f"{n:064}": float(n * 3 % count) for n in range(count)}
    return seen(status=make_status(services=services, problems=()), usage=usage, events=events, percent=percent)


def test_a_frame_is_the_state_the_machine_problems_services_and_what_happened_last() -> None:
    shown = texts(seen())
    assert shown[:4] == [
        "box: not as desired; generation 3 (good), dom0 up, 3m ago",
        "processor 10%, load 0.50, memory 1GB of 4GB, 40GB left at /var/lib/dom0",
        "  error web: ends again and again  [crash-loop]",
        "      dom0 logs web",
    ]
    head, redis, web = (line.split() for line in shown[5:8])
    assert head == ["SERVICE", "PHASE", "HEALTH", "CPU", "MEMORY", "RESTARTS", "FOR", "PORTS", "REASON"]
    assert redis == ["redis", "ready", "12.3%", "5MB", "3m", "6379/tcp"]
    assert web[:4] == ["web", "crash-loop", "12.3%", "5MB"]
    assert shown[-1].endswith("  start box-web-1 (ended)")


def test_pulls_and_steps_under_way_are_told() -> None:
    pull = PullStatus(image="redis:8", size=100, have=50, rate=10.0, left=5.0, drops=2)
    shown = texts(seen(status=make_status(pulls=(pull,), steps=("start box-web-1",))))
    assert "pulls redis:8: 50% of 100B, 10B/s, 5s left, 2 drops" in shown
    assert "under way: start box-web-1" in shown


@pytest.mark.parametrize("size", [(79, 25), (20, 5), (40, 12), (200, 60)])
@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_a_frame_fills_its_terminal_and_no_more(size: tuple[int, int], count: int) -> None:
    of = many(count)
    hostile = replace(of.status, project=HOSTILE, steps=(HOSTILE,) * 9, services=of.status.services)
    for status in (of.status, hostile):
        for first in (0, 3, 100_000):
            shown = texts(replace(of, status=status), size=size, first=first, old=HOSTILE if first else "")
            assert len(shown) == size[1]
            assert all(line.isprintable() for line in shown)
            assert shown[-1].startswith("q ends  up/down")


def test_what_does_not_fit_is_counted_and_can_be_scrolled_to() -> None:
    shown, first = frame(many(100), "service", size=(79, 25), first=100_000)
    rows = [text.split()[0] for _, text in shown if text.startswith("s0")]
    assert rows[-1] == "s099"
    assert first == 100 - len(rows)
    assert shown[-1][1].endswith(f"({first} above, 0 below)")
    assert sum("event" in text for _, text in shown) >= 5


@pytest.mark.parametrize(
    ("sort", "first"), [("service", "s000"), ("processor", "s033"), ("memory", "s057"), ("restarts", "s099")]
)
def test_services_are_sorted_by_what_is_chosen(sort: str, first: str) -> None:
    shown = texts(many(100), sort)
    assert next(line for line in shown if line.startswith("s0")).split()[0] == first


def test_nothing_from_outside_reaches_the_terminal_unescaped() -> None:
    service = make_service("web", Phase.READY, reason=HOSTILE, ports=(HOSTILE,), service=HOSTILE)
    status = make_status(services=(service,), steps=(HOSTILE,), project=HOSTILE)
    status = replace(status, problems=(replace(status.problems[0], title=HOSTILE, hint=HOSTILE),))
    event = replace(EVENT, text=HOSTILE, reason=HOSTILE, actor=HOSTILE)
    for size in (None, (79, 25)):
        for _, text in frame(seen(status=status, events=(event,)), "service", size=size, old=HOSTILE)[0]:
            assert text.isprintable()
            assert "\u202e" not in text


def test_what_is_old_is_told_so() -> None:
    assert (REVERSED, "not as it is now") in frame(seen(), "service", size=(79, 25), old="not as it is now")[0]
    shown = texts(seen(usage=None, missing=("/v1/usage: no such path",)))
    assert shown[1:3] == ["processor and memory: not known", "/v1/usage: no such path"]


def answer(agent: FakeAgent) -> None:
    agent.answers["GET /v1/usage"] = USAGE
    agent.answers["GET /v1/events"] = Lines([EVENT])


def test_without_a_terminal_it_is_shown_once(agent: FakeAgent, dom0: RunCommand) -> None:
    answer(agent)
    shown = dom0("top")
    assert shown.code == 0
    assert shown.stdout.splitlines()[0] == "box: not as desired; generation 3 (good), dom0 up, 3m ago"
    assert "\x1b" not in shown.stdout
    document = json.loads(dom0("top", "--json").stdout)
    assert document["status"]["project"] == "box"
    assert document["usage"]["containers"]["c" * 64]["memory"] == 5_000_000
    assert document["events"][0]["text"] == "start box-web-1"


def test_what_is_not_answered_does_not_hide_the_rest(agent: FakeAgent, dom0: RunCommand) -> None:
    answer(agent)
    agent.refusals["GET /v1/events"] = (500, {"message": "/var/lib/dom0/events: cannot be read", "hint": "dmesg"})
    shown = dom0("top").stdout.splitlines()
    assert "/var/lib/dom0/events: cannot be read" in shown
    assert any(line.startswith("redis ") for line in shown)


def test_a_rate_is_of_the_time_between_what_the_engine_has_read_and_not_of_when_it_was_told(
    agent: FakeAgent, dom0: RunCommand
) -> None:
    answer(agent)
    container = "c" * 64
    looks = [(1000.0, 1.0, 5000.0), (1002.0, 2.0, 5060.0)]  # read, processor, told
    usages = [
        UsageStatus(now=now, machine=MACHINE, containers={container: Usage(read=read, processor=processor)})
        for read, processor, now in looks
    ]
    agent.answers["GET /v1/usage"] = Turns(usages)
    assert json.loads(dom0("top", "--json").stdout)["percent"] == {container: 50.0}


def test_containers_that_the_engine_does_not_answer_for_are_counted(agent: FakeAgent, dom0: RunCommand) -> None:
    answer(agent)
    agent.answers["GET /v1/usage"] = replace(USAGE, containers={})
    assert "the Docker Engine does not say what 1 of 1 containers use" in dom0("top").stdout.splitlines()


def test_an_agent_that_does_not_answer_is_told_with_the_time_that_it_had(
    environment: dict[str, str], dom0: RunCommand
) -> None:
    path = Path(environment["DOM0_RUN"]) / "dom0.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        assert f"{path}: no answer within 5 s" in dom0("top").stderr


def test_a_terminal_whose_size_nobody_knows_is_taken_for_the_usual_one(
    agent: FakeAgent, environment: dict[str, str]
) -> None:
    answer(agent)
    with Terminal(["top"], environment | {"TERM": "linux"}, columns=0, lines=0) as terminal:
        assert len(terminal.until("sort by service").splitlines()) == 25
        terminal.type("q")
        assert terminal.wait() == 0


def test_without_an_agent_it_says_why(dom0: RunCommand) -> None:
    assert dom0("top").code == 1


def test_keys_sort_scroll_and_end_it_and_the_terminal_is_as_before(
    agent: FakeAgent, environment: dict[str, str]
) -> None:
    answer(agent)
    agent.answers["GET /v1/status"] = many(100).status
    with Terminal(["top"], environment | {"TERM": "linux"}, columns=80, lines=25) as terminal:
        terminal.until("sort by service")
        assert terminal.shown().count("\n") <= 24
        terminal.type("\x1b[C")
        terminal.until("sort by processor")
        terminal.type("s")
        terminal.until("sort by memory")
        terminal.type("\x1b[D\x1b[D")
        terminal.until("sort by service")
        terminal.type("\x1b[F")
        terminal.until("s099")
        terminal.type("\x1b[H")
        terminal.until("s000")
        terminal.resize(columns=40, lines=12)
        terminal.until(lambda shown: len(shown.splitlines()) == 12)
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.is_as_before()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_the_terminal_is_as_before(
    agent: FakeAgent, environment: dict[str, str], number: int, code: int
) -> None:
    answer(agent)
    with Terminal(["top"], environment, columns=80, lines=25) as terminal:
        terminal.until("sort by service")
        os.kill(terminal.pid, number)
        assert terminal.wait() == code
        assert terminal.is_as_before()


def test_it_stops_and_goes_on_as_its_shell_wants(agent: FakeAgent, environment: dict[str, str]) -> None:
    answer(agent)
    with Terminal(["top"], environment, columns=80, lines=25) as terminal:
        terminal.until("sort by service")
        terminal.type("\x1a")
        terminal.until_stopped()
        assert terminal.is_as_before()
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.until("sort by service")
        terminal.type("q")
        assert terminal.wait() == 0
