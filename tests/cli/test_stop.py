"""`dom0 stop`, `start` and `restart` of several services, before an agent that says what a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dom0.agent.status import Acted, Phase
from dom0.run import Output
from dom0.testing.fake_agent import FakeAgent, make_service, make_status

RunCommand = Callable[..., Output]


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_several_services_are_asked_for_at_once_and_every_refusal_is_said(
    agent: FakeAgent, dom0: RunCommand, verb: str
) -> None:
    services = tuple(make_service(name, Phase.READY) for name in ("a", "b", "c"))
    agent.answers["GET /v1/status"] = make_status(services=services)
    for name in ("a", "c"):
        agent.refusals[f"POST /v1/services/{name}/{verb}"] = (500, {"message": f"box-{name}-1: hangs", "hint": "look"})
    agent.answers[f"POST /v1/services/b/{verb}"] = [Acted(service="b", container="box-b-1")]
    agent.at_once = 3
    told = dom0(verb, "a", "b", "c")
    assert (told.code, told.stdout) == (1, "box-b-1\n")
    assert told.stderr == "dom0: box-a-1: hangs\nbox-c-1: hangs\n      look\n"
    told = dom0(verb, "a", "b", "c", "--json")
    assert json.loads(told.stdout) == [{"service": "b", "container": "box-b-1"}]
    assert "box-c-1" in json.loads(told.stderr)["message"]
