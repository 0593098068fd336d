"""Every answer of a real agent is as it describes itself, and what it describes is all that it answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dom0.agent.api import ROUTES
from dom0.testing import api
from dom0.testing.bare_agent import SOCKET, BareAgent
from dom0.testing.described import Described
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {rollout: {monitor: 100ms, timeout: 60s}, web: {listen: "127.0.0.1:8443"}}
    services:
      web:
        image: busybox:test
        command: ["sh", "-c", "echo hello; exec httpd -f -p 80"]
        init: true
        labels: {version: one}
        ports: ["127.0.0.1::80"]
        volumes: ["./app.conf:/etc/app.conf", "data:/data"]
      front:
        image: dom0-ambassador
        x-dom0: {ambassador: {listen: {"80": {to: ["service:web:80"]}}}}
    volumes: {data: {}}
    """
UNREFUSED = {  # whatever is asked of them
    *("GET /v1/status", "GET /v1/history", "GET /v1/openapi.json", "GET /v1/files", "GET /v1/ambassadors"),
    *("GET /v1/storage", "GET /v1/usage", "GET /v1/scopes", "GET /v1/boots", "GET /v1/devices"),
    "GET /v1/farms",
}


@pytest.fixture
def agent(engine_host: Host, ambassador_image: None, tmp_path: Path) -> Iterator[BareAgent]:
    agent = BareAgent(Machine(engine_host, tmp_path))
    agent.write(COMPOSE, {"app.conf": "a = 1\n"})
    agent.start()
    agent.machine.until_good()
    yield agent
    agent.kill()


def test_every_answer_is_as_the_agent_describes_it(agent: BareAgent) -> None:
    machine, described = agent.machine, Described(agent.ask("GET", "/v1/openapi.json"))
    assert described.routes == ROUTES.keys()

    def check(status: int, method: str, target: str, body: Any = None, *, is_endless: bool = False) -> None:
        answer = api.ask(machine.host.path(SOCKET), method, target, body, is_endless=is_endless)
        assert answer.status == status, (method, target, answer.body)
        described.check(method, target, answer, body)

    get, post, refused = partial(check, 200, "GET"), partial(check, 200, "POST"), partial(check, 400)
    agent.write(COMPOSE.replace("version: one", "version: two"))
    post("/v1/up", {"force": False})
    machine.until_good(2)
    machine.host.path("/var/lib/dom0/project/app.conf").write_text("a = 2\n")
    machine.until(lambda: [one for one in agent.ask("GET", "/v1/ambassadors") if one.get("state")])
    for target in (
        *("/v1/status", "/v1/history", "/v1/openapi.json", "/v1/events", "/v1/events?tail=3&since=1"),
        *("/v1/generations/2/differences", "/v1/generations/1/plan", "/v1/logs?container=box-web-1&tail=5"),
        *("/v1/files", "/v1/files/diff?path=app.conf", "/v1/ambassadors", "/v1/ambassadors/front/history"),
        *("/v1/ambassadors/front/flows?listener=80/tcp", "/v1/storage", "/v1/usage", "/v1/boots"),
        *("/v1/scopes", "/v1/logs?container=box-web-1&find=one&since=1&until=9"),
        "/v1/generations/2/differences?before=1",
    ):
        get(target)
    for target in ("/v1/watch?repeat=5", "/v1/events?follow=1", "/v1/logs?container=box-web-1&follow=1"):
        get(target, is_endless=True)
    for target in (
        *("/v1/watch?repeat=0", "/v1/events?since=99999", "/v1/generations/99/differences", "/v1/generations/99/plan"),
        *(
            "/v1/logs",
            "/v1/logs?container=box-web-1&find=one&follow=1",
            "/v1/files/diff",
            "/v1/ambassadors/nobody/history",
            "/v1/ambassadors/nobody/flows",
        ),
    ):
        refused("GET", target)
    web = machine.container("box-web-1")["NetworkSettings"]["Networks"]["box_default"]["IPAddress"]
    post("/v1/ambassadors/front/rewire", {"to": [f"{web}:80"], "plan": True})
    post("/v1/ambassadors/front/rewire", {"to": [f"{web}:80"], "existing": "drain=1s"})
    get("/v1/ambassadors/front/history")
    post("/v1/ambassadors/front/undo", {})
    post("/v1/ambassadors/front/lead", {"service": "web", "plan": True})
    for verb in ("stop", "start", "restart"):
        post(f"/v1/services/web/{verb}")
    post("/v1/files/plan", {"files": {"app.conf": {"content": "link /etc/hosts"}}})
    post("/v1/files/keep", {"paths": ["app.conf"]})
    post("/v1/files/take", {"paths": ["app.conf"]})
    machine.until(lambda: agent.ask("GET", "/v1/devices")["address"])
    get("/v1/devices")
    post("/v1/devices/pair", {"name": "phone"})
    post("/v1/devices/phone/revoke")
    post("/v1/rollback", {"generation": 1})
    node = {"name": "pi1", "role": "web", "revision": 1, "state": "good", "os": "", "last_seen": 1.0, "why": ""}
    farm = {"farm": "attic", "directory": "/srv/attic", "revision": 1, "os": "", "paused": [], "remarks": []}
    check(204, "POST", "/v1/farms/served", {**farm, "nodes": [node]})
    get("/v1/farms")
    check(204, "POST", "/v1/done", {"command": "dom0 ssh add", "text": "dom0 ssh add: SHA256:a me@laptop"})
    check(204, "POST", "/v1/try", {"dom0_image": f"sha256:{'a' * 64}", "seconds": 60})
    for route in ROUTES:
        method, path = route.replace("{service}", "nobody").replace("{name}", "nobody").split()
        if method == "POST":
            refused(method, path, {"nothing": "such"})
    trial = {"dom0_image": "", "seconds": 600, "announced": time.time()}  # an agent that no image has brought has no ID
    machine.host.path("/var/lib/dom0/trial.json").write_text(json.dumps(trial))
    agent.write(COMPOSE.replace("version: one", "version: three"))
    post("/v1/up", {"force": False})
    post("/v1/confirm", {})
    agent.write(COMPOSE.replace("version: one", "version: four").replace("monitor: 100ms", "monitor: 50s"))
    before = machine.status()["generation"]["number"]
    post("/v1/up", {}, is_endless=True)

    def waits_to_be_good() -> bool:
        current = machine.status()["generation"]
        return bool(current["number"] > before and current["watched_until"])

    machine.until(waits_to_be_good)
    post("/v1/abort", {"generation": before + 1})
    assert {route for route, is_refused in described.seen if not is_refused} == ROUTES.keys()
    assert {route for route, is_refused in described.seen if is_refused} == ROUTES.keys() - UNREFUSED
