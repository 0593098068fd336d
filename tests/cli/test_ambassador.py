"""`dom0 ambassador` and what it makes of the agent's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dom0.agent.ambassador_status import AmbassadorStatus, InShortcuts, PlacedFlow, Rewired, ShortcutStatus
from dom0.ambassador.messages import ListenerState, Receipt, Rewire, State
from dom0.forward.dataplane import Flow
from dom0.forward.table import Protocol, Target
from dom0.run import Output
from dom0.testing.fake_agent import FakeAgent
from dom0.testing.fake_talk import make_receipt, make_state

RunCommand = Callable[..., Output]
LIST = "GET /v1/ambassadors"
REWIRE = "POST /v1/ambassadors/redis/rewire"
FLOW = Flow(
    protocol=Protocol.TCP,
    generation=2,
    client=Target("10.0.0.3", 40000),
    listener=Target("10.0.0.9", 80),
    near=Target("10.0.0.3", 40000),
    target=Target("10.0.0.5", 80),
    state="ESTABLISHED",
)


def state() -> State:
    listener = ListenerState(
        listener="80/tcp", generation=2, sources=("web:80",), targets=("10.0.0.5:80",), rewired=True
    )
    return make_state(listeners=(listener,), shortcut=True)


def redis(**fields: Any) -> AmbassadorStatus:
    known: dict[str, Any] = {
        "service": "redis",
        "container": "box-redis-1",
        "container_id": "c" * 64,
        "running": True,
        "state": state(),
        "shortcuts": (ShortcutStatus(consumer="box-web-1", listeners=("80/tcp",)),),
    }
    return AmbassadorStatus(**known | fields)


@pytest.fixture(autouse=True)
def answers(agent: FakeAgent) -> None:
    stranger = ShortcutStatus(consumer="stranger", reason="dom0 did not make it")
    agent.answers[LIST] = [redis(shortcuts=(*redis().shortcuts, stranger))]


def test_ls_shows_where_each_listener_leads_and_who_has_the_shortcut(dom0: RunCommand) -> None:
    assert dom0("ambassador", "ls").stdout.splitlines() == [
        "AMBASSADOR  LISTENER  TARGETS      SHORTCUTS  REMARK",
        "redis       80/tcp    10.0.0.5:80  1 of 2     rewired",
    ]


def test_ls_shows_one_that_cannot_be_asked_or_does_not_run(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers[LIST] = [redis(state=None, error="nobody in it listens"), redis(running=False)]
    shown = dom0("ambassador", "ls").stdout
    assert "cannot be asked: nobody in it listens" in shown
    assert "does not run" in shown


def test_show_says_who_has_no_shortcut_and_why(dom0: RunCommand) -> None:
    shown = dom0("ambassador", "show", "redis").stdout
    assert "  from     web:80 (rewired)" in shown
    assert "  box-web-1: shortcut for 80/tcp" in shown
    assert "  stranger: no shortcut (dom0 did not make it)" in shown
    assert json.loads(dom0("ambassador", "show", "box-redis-1", "--json").stdout)["service"] == "redis"
    assert dom0("ambassador", "show", "nobody").code == 2


def test_rewire_asks_for_what_was_typed_and_prints_the_receipt(agent: FakeAgent, dom0: RunCommand) -> None:
    part = InShortcuts(consumers=1, kept=2)
    agent.answers[REWIRE] = Rewired(receipt=make_receipt(kept=3, rescued=1), shortcuts=part)
    options = ("--to", "10.0.0.5:80", "--existing", "drain=30s", "--udp", "keep", "--hold", "--hold-timeout", "5s")
    shown = dom0("ambassador", "rewire", "redis", *options)
    assert shown.stdout.splitlines() == [
        "80/tcp: 10.0.0.4:80 → 10.0.0.5:80",
        "  receipt 1, switched in 1.5 ms; old connections: 3 kept, 1 half-open connection redirected "
        "(in shortcuts: 2 kept)",
    ]
    (body,) = [body for what, body in agent.asked if what == REWIRE]
    assert msgspec.json.decode(body, type=Rewire) == Rewire(
        to=("10.0.0.5:80",), existing="drain=30s", udp="keep", hold=True, hold_timeout="5s"
    )


def test_rewire_names_shortcuts_that_did_not_follow(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers[REWIRE] = Rewired(receipt=make_receipt(), refused=("box-web-1: has ended meanwhile",))
    assert "shortcut of box-web-1: has ended meanwhile" in dom0("ambassador", "rewire", "redis", "--to", "x:1").stderr


def test_a_plan_lists_connections(agent: FakeAgent, dom0: RunCommand) -> None:
    flows = (PlacedFlow(flow=FLOW), PlacedFlow(flow=FLOW, consumer="box-web-1"))
    agent.answers[REWIRE] = Rewired(receipt=make_receipt(number=0, cut=2), flows=flows)
    lines = dom0("ambassador", "rewire", "redis", "--to", "x:1", "--plan").stdout.splitlines()
    assert lines[1] == "  would be: 2 cut"
    assert [line.split() for line in lines[3:]] == [
        ["80/tcp", "2", "-", "10.0.0.3:40000", "10.0.0.5:80", "ESTABLISHED"],
        ["80/tcp", "2", "box-web-1", "10.0.0.3:40000", "10.0.0.5:80", "ESTABLISHED"],
    ]


def test_history_and_flows(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers["GET /v1/ambassadors/redis/history"] = [make_receipt(cause="undo", moved=4)]
    agent.answers["GET /v1/ambassadors/redis/flows"] = [PlacedFlow(flow=FLOW)]
    assert "4 moved" in dom0("ambassador", "history", "redis").stdout
    assert "10.0.0.3:40000" in dom0("ambassador", "flows", "redis", "--listener", "80").stdout
    assert msgspec.json.decode(dom0("ambassador", "history", "redis", "--json").stdout, type=list[Receipt])


def test_a_refusal_of_the_ambassador_comes_with_its_hint(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.refusals[REWIRE] = (400, {"message": "to: is a loop", "hint": "name the provider"})
    refused = dom0("ambassador", "rewire", "redis", "--to", "x:1")
    assert (refused.code, refused.stderr) == (2, "dom0: to: is a loop\n      name the provider\n")


def test_a_wait_that_is_none_is_refused_before_anybody_is_asked(agent: FakeAgent, dom0: RunCommand) -> None:
    assert dom0("ambassador", "rewire", "redis", "--to", "x:1", "--hold", "--hold-timeout", "soon").code == 2
    assert agent.asked == []


def test_control_characters_are_escaped(agent: FakeAgent, dom0: RunCommand) -> None:
    agent.answers[LIST] = [redis(shortcuts=(ShortcutStatus(consumer="\x1b[2J", reason="a\rb"),))]
    for command in (("ls",), ("show", "redis")):
        assert not any(char in dom0("ambassador", *command).stdout for char in "\x1b\r")


def test_names_are_completed(dom0: RunCommand) -> None:
    env = {"_DOM0_COMPLETE": "bash_complete", "COMP_WORDS": "dom0 ambassador show r", "COMP_CWORD": "3"}
    assert dom0(env=env).stdout == "plain,redis\n"


def test_without_an_agent_it_says_how_to_ask_the_ambassador_itself(dom0: RunCommand) -> None:
    refused = dom0("ambassador", "rewire", "redis", "--to", "x:1", env={"DOM0_RUN": "/nowhere"})
    assert refused.code == 1
    assert "docker exec AMBASSADOR dom0-ambassador rewire" in refused.stderr
