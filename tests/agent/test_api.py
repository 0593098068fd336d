"""The API as a hostile or careless client meets it, on a real socket and in real time."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import resource
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import msgspec
import pytest
from msgspec.structs import replace

from dom0.agent import vitals
from dom0.agent.ambassadors import Ambassadors
from dom0.agent.api import PAGE, ROUTES, WATCH_AT_ONCE, WATCH_EVERY, _Api, serve
from dom0.agent.machine import Machine
from dom0.agent.route import LARGEST_BODY
from dom0.agent.state_files import Trial
from dom0.agent.status import LARGEST_PROJECT, GenerationInfo, WatchRequest
from dom0.errors import NotFound
from dom0.http import server
from dom0.http.client import Answer, Client
from dom0.http.server import Request
from dom0.names import Access
from dom0.plan.desired import Rollout
from dom0.testing.builders import asking, desired, slot
from dom0.testing.fake_engine import Call
from dom0.testing.rig import OLD, Rig

JSON = {"Content-Type": "application/json"}
Talk = Callable[[Client, Machine], Awaitable[None]]


def generations(machine: Machine) -> list[GenerationInfo]:
    """Until when one is watched is left out: that begins meanwhile."""
    return [replace(generation, watched_until=0.0) for generation in machine.history()]


def converse(rig: Rig, talk: Talk) -> None:
    """Serve a machine and let `talk` ask it."""

    async def main() -> None:
        socket = rig.path / "run" / "dom0.sock"
        client = Client(lambda: asyncio.open_unix_connection(socket), "dom0")
        async with asyncio.timeout(300), rig.running() as machine:
            ambassadors = Ambassadors(rig.engine, rig.readiness, machine.changed)
            async with serve(machine, ambassadors, socket, gid=0):
                await talk(client, machine)
            await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/up", b"{"),
        ("/v1/up", b"[]"),
        ("/v1/up", b"\xff\xfe"),
        ("/v1/up", b'{"dom0_image": "\xff"}'),
        ("/v1/up", b'{"project": ' + b"[" * 50_000),
        ("/v1/up", b'{"forse": true}'),
        ("/v1/up", b'{"force": "yes"}'),
        ("/v1/up", b'{"dom0_image": "../../etc"}'),
        ("/v1/up", b'{"dom0_image": "dom0:latest"}'),
        ("/v1/rollback", b'{"generation": "1"}'),
        ("/v1/rollback", b'{"generation": -1}'),
        ("/v1/rollback", b'{"generation": 99}'),
        ("/v1/rollback", b'{"generation": 1e400}'),
        ("/v1/try", b"{}"),
        ("/v1/try", b'{"dom0_image": "dom0:latest", "seconds": 60}'),
        *(
            ("/v1/try", f'{{"dom0_image": "{OLD}", "seconds": {n}}}'.encode())
            for n in ("-1", "0", "NaN", "1e308", "1e9")
        ),
        ("/v1/try", f'{{"dom0_image": "{OLD}\\n", "seconds": 60}}'.encode()),
        ("/v1/confirm", b""),
        ("/v1/files/take", b"{}"),
        ("/v1/files/take", b'{"paths": []}'),
        ("/v1/files/take", b'{"paths": ["../../etc/passwd"]}'),
        ("/v1/files/keep", b'{"paths": ["/etc/passwd"]}'),
        ("/v1/files/keep", b'{"paths": ["web.conf/"], "force": true}'),
        ("/v1/files/plan", b'{"files": {"a": "b"}}'),
        ("/v1/ambassadors/nobody/rewire", b'{"to": ["10.0.0.1:80"]}'),
        ("/v1/ambassadors/nobody/rewire", b"{}"),
        ("/v1/ambassadors/nobody/rewire", b'{"to": "10.0.0.1:80"}'),
        ("/v1/ambassadors/nobody/rewire", b'{"do": "undo", "to": ["10.0.0.1:80"]}'),
        ("/v1/ambassadors/%2e%2e%2fetc/rewire", b'{"to": ["10.0.0.1:80"]}'),
        ("/v1/ambassadors/nobody/lead", b"{}"),
        ("/v1/ambassadors/nobody/lead", b'{"service": "web", "to": ["10.0.0.1:80"]}'),
        ("/v1/ambassadors/nobody/lead", b'{"service": "web", "existing": "cut"}'),
        ("/v1/ambassadors/nobody/undo", b'{"everything": true}'),
        ("/v1/ambassadors/nobody/undo", b'{"receipt": -1}'),
    ],
)
def test_what_is_asked_wrongly_is_refused_with_words_and_changes_nothing(rig: Rig, path: str, body: bytes) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("POST", path, body=body, headers=JSON) as answer:
            refusal = await document(answer)
            assert answer.status == 400, refusal
        assert refusal["message"]
        assert refusal["hint"]
        assert not (rig.path / "state" / "trial.json").exists()
        assert len(machine.history()) <= 1

    converse(rig, talk)


@pytest.mark.parametrize("target", ["/v1/files/diff", "/v1/files/diff?file=web.conf", "/v1/files/diff?path="])
def test_a_difference_is_of_a_file_that_was_named(rig: Rig, target: str) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("GET", target) as answer:
            refusal = await document(answer)
            assert answer.status == 400
            assert refusal["message"].startswith("/v1/files/diff: "), refusal

    converse(rig, talk)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "attacker.example"}, 403),
        ({"Host": "attacker.example:8000"}, 403),
        ({"Host": "localhost.attacker.example"}, 403),
        ({"Host": "localhost@attacker.example"}, 403),
        ({"Host": "127.0.0.1.nip.io:8000"}, 403),
        ({"Host": "192.168.1.5:8000"}, 403),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://127.0.0.1:8000"}, 403),
        ({"Host": "attacker.example", "Origin": "http://attacker.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Host": "localhost:8000"}, 403),
        ({"Sec-Fetch-Site": "Cross-Site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=application/json"}, 415),
        ({"Content-Type": "text/plain; application/json"}, 415),
        ({"Content-Type": ""}, 415),
    ],
)
@pytest.mark.parametrize("method", ["POST /v1/up", "GET /v1/status", "GET /v1/nothing"])
def test_what_a_web_page_could_send_is_refused(rig: Rig, method: str, headers: dict[str, str], status: int) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: bool(machine.history()))  # the first one begins meanwhile
        before = generations(machine)
        verb, path = method.split()
        async with client.ask(verb, path, body=b'{"force": true}', headers=JSON | headers) as answer:
            assert answer.status == status
            assert "machine" not in (await body_of(answer)).decode()
        assert generations(machine) == before

    converse(rig, talk)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost"},
        {"Host": "LOCALHOST:8000"},
        {"Host": "127.0.0.1:65535"},
        {"Host": "[::1]:8000"},
        {"Host": "localhost:8000", "Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost:8000", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Content-Type": "application/json; charset=utf-8"},
    ],
)
def test_what_programs_send_is_answered(rig: Rig, headers: dict[str, str]) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("GET", "/v1/status", headers=headers) as answer:
            assert answer.status == 200
        async with client.ask("POST", "/v1/rollback", body=b'{"generation": 99}', headers=JSON | headers) as answer:
            assert answer.status == 400, "it was read"

    converse(rig, talk)


def test_paths_methods_and_sizes_that_are_none_are_refused_as_documents_too(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        for method, path, body, status in (
            ("GET", "/v1/nothing", b"", 404),
            ("GET", "/v1/up", b"", 405),
            ("POST", "/v1/rollback", b" " * (LARGEST_BODY + 1), 413),
            ("POST", "/v1/up", b" " * (LARGEST_PROJECT + 1), 413),
        ):
            async with client.ask(method, path, body=io.BytesIO(body), headers=JSON) as answer:
                assert answer.status == status
                assert path in (await document(answer))["message"]

    converse(rig, talk)


def test_a_client_that_hangs_up_leaves_the_machine_to_others(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.project = desired(slot("web"), rollout=Rollout(monitor=0.2))

    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("POST", "/v1/up") as answer:
            await read_line(answer)
        async with client.ask("GET", "/v1/watch") as answer:
            assert await read_line(answer)
        last = await outcome_of_up(client)
        assert last["outcome"] == "good"

    converse(rig, talk)
    assert "Traceback" not in caplog.text


def test_an_engine_that_does_not_answer_holds_up_no_answer_and_nothing_of_who_has_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GONE_WITHIN", 0.01)
    of_container = {"read", "memory", "processor", "received", "sent"}

    def conversations() -> int:
        return sum(task.get_coro().__name__ == "_converse" for task in asyncio.all_tasks())  # type: ignore[union-attr]

    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: any(one.phase == "ready" for one in machine.status().services))
        monkeypatch.setattr(rig.engine, "latency", lambda call: 3600.0 if call.name == "usage" else 0.0)
        async with client.ask("GET", "/v1/usage") as answer:
            told = await document(answer)
        assert (told["containers"], told["machine"]["memory"] > 0) == ({}, True)
        monkeypatch.setattr(vitals, "ANSWERED_WITHIN", 3600.0)
        before = conversations()
        async with contextlib.AsyncExitStack() as asked:
            for _ in range(5):
                _, writer = await asyncio.open_unix_connection(rig.path / "run" / "dom0.sock")
                asked.callback(writer.close)
                writer.write(b"GET /v1/usage HTTP/1.1\r\nHost: dom0\r\n\r\n")
            while conversations() < before + 5:  # noqa: ASYNC110 -- nobody tells of that
                await asyncio.sleep(0.01)
        while conversations() > before:  # noqa: ASYNC110 -- nor of that
            await asyncio.sleep(0.01)
        monkeypatch.setattr(rig.engine, "latency", lambda call: 0.0)
        async with client.ask("GET", "/v1/usage") as answer:
            [used] = (await document(answer))["containers"].values()
        assert set(used) == of_container

    converse(rig, talk)


def test_a_watcher_sees_the_last_change(rig: Rig) -> None:
    rig.project = desired(slot("web"), rollout=Rollout(monitor=0.2))

    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("GET", "/v1/watch") as answer:
            while (status := await read_line(answer))["last_good"] is None or not status["converged"]:
                pass

    converse(rig, talk)


def test_a_watcher_that_asks_for_it_is_told_the_same_again(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: machine.status().converged)
        async with client.ask("GET", "/v1/watch?repeat=1") as answer:
            seen = [await read_line(answer) for _ in range(3)]
        assert len({json.dumps(one | {"now": 0}) for one in seen[1:]}) == 1
        for query in ("repeat=0", "repeat=x", "repeat=1e9", "every=1"):
            async with client.ask("GET", f"/v1/watch?{query}") as answer:
                assert answer.status == 400, query

    converse(rig, talk)


def test_a_watcher_of_differences_knows_as_much_as_one_who_is_told_all(rig: Rig) -> None:
    rig.project = desired(slot("web"), slot("other"), rollout=Rollout(monitor=0.1))

    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: machine.status().last_good is not None and machine.status().converged)
        before = machine.status().services
        async with client.ask("GET", "/v1/watch?differences=1&repeat=1") as answer:
            known = await read_line(answer)
            rig.box.docker.exit("box-web-1", 1)
            await machine.changed.until(lambda: machine.status().services != before and machine.status().converged)
            while (known | {"now": 0}) != json.loads(msgspec.json.encode(replace(machine.status(), now=0))):
                said = await read_line(answer)
                assert "project" not in said
                assert [one["service"] for one in said.get("services", [])] in ([], ["web"])
                fresh = {one["service"]: one for one in said.get("services", [])}
                services = [fresh.get(one["service"], one) for one in known["services"]]
                known |= said | {"services": services}

    converse(rig, talk)


async def events(client: Client, query: str = "") -> list[Any]:
    async with client.ask("GET", f"/v1/events{query}") as answer:
        assert answer.status == 200
        return [json.loads(line) for line in (await body_of(answer)).splitlines()]


def test_events_are_told_in_pages_that_end(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        for number in range(PAGE):
            machine.journal.note("start-container", f"box-{number}", "start")
        first = await events(client)
        assert len(first) == PAGE
        rest = await events(client, f"?since={first[-1]['seq']}")
        numbers = [one["seq"] for one in (*first, *rest)]
        assert numbers == sorted(set(numbers))
        assert rest
        assert len(rest) < PAGE

    converse(rig, talk)


def test_events_are_followed_as_they_come(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        since = (await events(client))[-1]["seq"]
        async with client.ask("GET", f"/v1/events?since={since}&follow=1") as answer:
            for name in ("one", "two"):
                machine.journal.note("start-container", name, f"start {name}")
                told: list[Any] = []
                while name not in [one["subject"] for one in told]:
                    told += map(json.loads, (await anext(answer.chunks())).splitlines())
                numbers = [one["seq"] for one in told]
                assert numbers == [*range(since + 1, since + 1 + len(told))]
                since = numbers[-1]

    converse(rig, talk)


def test_the_last_events_are_told_alone_and_followed(rig: Rig) -> None:
    rig.project = desired(slot("web"), rollout=Rollout(monitor=0.1))

    async def talk(client: Client, machine: Machine) -> None:
        await outcome_of_up(client)
        for number in range(9):
            machine.journal.note("start-container", f"box-{number}", "start")
        assert [one["subject"] for one in await events(client, "?tail=2")] == ["box-7", "box-8"]
        assert await events(client, f"?tail=2&since={machine.journal.last - 1}") == (await events(client))[-1:]
        async with client.ask("GET", "/v1/events?tail=1&follow=1") as answer:
            assert (await read_line(answer))["subject"] == "box-8"
            machine.journal.note("start-container", "next", "start")
            assert (await read_line(answer))["subject"] == "next"

    converse(rig, talk)


@pytest.mark.parametrize(
    "query",
    ["since=-1", "since=x", "since=", "since=99999", "follow=maybe", "from=3", "since=1e9", "tail=-1", "tail=1001"],
)
def test_events_are_asked_for_strictly(rig: Rig, query: str) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("GET", f"/v1/events?{query}") as answer:
            assert answer.status == 400
            assert (await document(answer))["hint"]

    converse(rig, talk)


def test_a_journal_that_cannot_be_read_is_named(rig: Rig) -> None:
    (rig.path / "state").mkdir()
    directory = rig.path / "state" / "events"
    directory.write_text("in the way")

    async def talk(client: Client, machine: Machine) -> None:
        async with client.ask("GET", "/v1/events") as answer:
            assert answer.status == 500
            assert (await document(answer))["message"] == f"{directory}: cannot be read: Not a directory"
        directory.unlink()
        async with client.ask("GET", "/v1/events") as answer:  # the loop may have noted something by now
            assert answer.status == 200

    converse(rig, talk)


async def test_a_watcher_is_told_at_once_after_a_quiet_time_and_then_five_times_a_second(rig: Rig) -> None:
    """In virtual time."""
    async with rig.running() as machine:
        await machine.changed.until(lambda: machine.status().converged)
        api, clock = _Api(machine, Ambassadors(rig.engine, rig.readiness, machine.changed)), asyncio.get_running_loop()
        watcher = await api.watch(cast("Request", SimpleNamespace(is_gone=False)), WatchRequest())
        assert isinstance(watcher.documents, AsyncGenerator)
        waits = []
        for pause in (0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 2 * WATCH_EVERY, 0.0, 0.0):
            await asyncio.sleep(pause)
            machine.changed.tell()
            before = clock.time()
            await anext(watcher.documents)
            waits.append(round(clock.time() - before, 6))
        first, then = [0.0, *([0.0] * WATCH_AT_ONCE)], [WATCH_EVERY, WATCH_EVERY]
        assert waits == [*first, *then, 0.0, 0.0, WATCH_EVERY]
        await watcher.documents.aclose()


def test_who_asked_is_the_actor_of_what_became_of_it(rig: Rig) -> None:
    rig.project = desired(asking(slot("web"), stop_timeout=0))

    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: bool(machine.history()))
        rig.project = desired(slot("web", hash="h2"), rollout=Rollout(monitor=0.1))
        await outcome_of_up(client)
        async with client.ask("POST", "/v1/rollback", body=b'{"generation": 99}', headers=JSON) as answer:
            assert answer.status == 400
        told = [one for one in await events(client) if one.get("actor", "").startswith("uid ")]
        assert {one["actor"].split(" in ")[0] for one in told} == {f"uid {os.getuid()}"}
        assert [(one["kind"], one["subject"]) for one in told if one["subject"] != "generation 1"] == [
            ("command", "dom0 up"),
            ("generation-begun", "generation 2"),
            ("command", "dom0 rollback"),
            ("refused", "dom0 rollback"),
        ]
        assert told[-1]["reason"] == "generation 99: does not exist"

    converse(rig, talk)


def test_a_socket_answers_the_requests_of_its_access_and_of_no_other(rig: Rig) -> None:
    """Each route, on each socket, as a program asks and as a page of another site would."""
    foreign = ({"Origin": "http://attacker.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "attacker.example"})

    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: bool(machine.history()))
        before = generations(machine)
        for access in (Access.VIEW, Access.OPERATE):
            socket = rig.path / "run" / access.socket
            assert socket.stat().st_mode & 0o777 == 0o660
            limited = Client(partial(asyncio.open_unix_connection, socket), "dom0")
            for route, allowed in ROUTES.items():
                method, path = re.sub(r"\{\w+\}", "1", route).split()
                query = {"/v1/logs": "?container=box-web-1", "/v1/watch": "?repeat=1"}.get(path, "")
                body = b'{"generation": 99}' if method == "POST" else None  # which is refused, also where it is none
                async with limited.ask(method, f"{path}{query}", body=body, headers=JSON) as answer:
                    assert (answer.status == 404) == (allowed.access > access), (access, route)
                for headers in foreign:
                    async with limited.ask(method, f"{path}{query}", body=body, headers=JSON | headers) as answer:
                        assert answer.status == 403, (access, route, headers)
            async with limited.ask("POST", "/v1/status", body=b"") as answer:
                assert answer.status == 405
            await limited.close()
        assert generations(machine) == before

    converse(rig, talk)


def test_the_socket_for_looking_has_nothing_that_changes_the_machine() -> None:
    assert all(route.startswith("GET ") for route, about in ROUTES.items() if about.access is Access.VIEW)
    assert {route for route, about in ROUTES.items() if about.access is Access.OPERATE} == {
        "POST /v1/rollback",
        "POST /v1/confirm",
        "POST /v1/abort",
        "POST /v1/services/{service}/start",
        "POST /v1/services/{service}/stop",
        "POST /v1/services/{service}/restart",
        "POST /v1/ambassadors/{name}/lead",
        "POST /v1/ambassadors/{name}/undo",
    }


@pytest.mark.parametrize("name", ["10.0.0.1:80", "web:80", "[::1]:80", "container:other", "label:a=b", "", "web "])
def test_an_ambassador_is_led_to_a_service_of_the_project_and_to_nothing_else(rig: Rig, name: str) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: bool(machine.status().services))
        for service, said in ((name, f"{name}: no service here has this name"), ("web", "nobody: is no ambassador")):
            body = msgspec.json.encode({"service": service})
            async with client.ask("POST", "/v1/ambassadors/nobody/lead", body=body, headers=JSON) as answer:
                assert answer.status == 400
                assert (await document(answer))["message"].startswith(said)

    converse(rig, talk)


def test_a_service_is_stopped_started_and_restarted_as_by_a_person(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        def phase() -> str:
            return next((one.phase for one in machine.status().services), "")

        async def ask(verb: str, service: str = "web") -> tuple[int, Any]:
            path = f"/v1/services/{quote(service, safe='')}/{verb}"
            async with operate.ask("POST", path, body=b"{}", headers=JSON) as answer:
                return answer.status, await document(answer)

        operate = Client(lambda: asyncio.open_unix_connection(rig.path / "run" / Access.OPERATE.socket), "dom0")
        await machine.changed.until(lambda: phase() == "ready")
        container = rig.box.docker.containers[machine.container_ids["box-web-1"]]
        acted = [{"service": "web", "container": "box-web-1"}]
        assert await ask("stop") == (200, acted)
        await machine.changed.until(lambda: phase() == "stopped")
        assert await ask("start") == (200, acted)
        await machine.changed.until(lambda: phase() == "ready")
        before = container.started
        assert await ask("restart") == (200, acted)
        await machine.changed.until(lambda: phase() == "ready" and machine.status().services[0].started > before)
        assert rig.box.docker.containers[machine.container_ids["box-web-1"]] is container
        rig.box.docker.pause(container)
        await machine.changed.until(lambda: phase() == "stopped")
        assert await ask("start") == (200, acted)
        await machine.changed.until(lambda: phase() == "ready")
        for service in ("", "other", "../web", "home-volume"):
            status, said = await ask("stop", service)
            assert status in (400, 404), said
        told = [one for one in await events(client) if one.get("actor", "").endswith(" on the page")]
        assert [(one["kind"], one["subject"], one["text"]) for one in told[:3]] == [
            ("command", f"dom0 {verb} web", f"dom0 {verb} web") for verb in ("stop", "start", "restart")
        ]
        assert (told[-1]["kind"], told[-1]["subject"]) == ("refused", "dom0 stop")  # of no name that was made up
        await operate.close()

    converse(rig, talk)


def test_what_is_refused_for_one_container_is_answered_when_the_others_are_done(rig: Rig) -> None:
    quick, slow = asking(slot("web"), stop_timeout=0), asking(slot("web", number=2), stop_timeout=1)
    rig.project = desired(quick, slow)

    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: [one.phase for one in machine.status().services] == ["ready", "ready"])
        rig.box.docker.refuse_start("box-web-1", "no space left on device")
        container = rig.box.docker.container("box-web-2")
        before = container.started
        async with client.ask("POST", "/v1/services/web/restart", body=b"{}", headers=JSON) as answer:
            assert (answer.status, (await document(answer))["message"]) == (
                500,
                "container box-web-1: no space left on device",
            )
        assert container.runs
        assert container.started > before

    converse(rig, talk)


def test_what_is_kept_or_ended_is_the_generation_that_was_named(rig: Rig) -> None:
    rig.project = desired(asking(slot("web"), stop_timeout=0), rollout=Rollout(monitor=0.1))

    async def talk(client: Client, machine: Machine) -> None:
        async def ask(path: str, body: bytes) -> int:
            async with client.ask("POST", path, body=body, headers=JSON) as answer:
                await body_of(answer)
                return answer.status

        def outcomes() -> list[str]:
            return [one.outcome for one in machine.history()]

        await outcome_of_up(client)
        rig.project = desired(asking(slot("web", hash="h2"), stop_timeout=0), rollout=Rollout(monitor=0.1))
        machine.try_next(Trial(dom0_image=OLD, seconds=600.0))
        await outcome_of_up(client)
        for path in ("/v1/confirm", "/v1/abort"):
            assert await ask(path, b'{"generation": 1}') == 409
        rig.pause, read = 600.0, len(rig.given)
        change = asyncio.create_task(rig.up())
        await rig.box.until(lambda: len(rig.given) > read)
        assert await ask("/v1/abort", b'{"generation": 2}') == 409  # which would end what is prepared
        assert outcomes() == ["trial", "good"]
        assert await ask("/v1/abort", b"{}") == 200
        assert (await change).outcome == "aborted"
        assert outcomes() == ["trial", "good"]
        assert await ask("/v1/abort", b'{"generation": 2}') == 200
        assert outcomes() == ["aborted", "good"]

    converse(rig, talk)


def test_what_a_container_has_printed_is_told_line_by_line(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: machine.status().converged)
        rig.box.docker.containers[machine.container_ids["box-web-1"]].log[:] = [(0.0, "one\n\ntwo\x1b\n", "")]
        async with client.ask("GET", "/v1/logs?container=box-web-1") as answer:
            told = [json.loads(line) for line in (await body_of(answer)).splitlines()]
        assert [(one["service"], one["container"], one["text"]) for one in told] == [
            ("web", "box-web-1", text) for text in ("one", "", "two\x1b")
        ]
        assert told[0]["time"] == "1970-01-01T00:00:00.000000000Z"
        for query in ("", "?container=", "?container=other", "?container=box-web-1&tail=-1", "?container=a&lines=3"):
            async with client.ask("GET", f"/v1/logs{query}") as answer:
                assert answer.status == 400, query

    converse(rig, talk)


def test_lines_of_a_log_are_searched_for_by_words_and_time(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: machine.status().converged)
        printed = [(float(at), f"line {at}\nStra\x1b[1mße {at}\x1b[0m\n", "") for at in range(1, 10)]
        rig.box.docker.containers[machine.container_ids["box-web-1"]].log[:] = printed
        for query, told, left_out in (
            ("find=strasse&tail=2", ["8", "9"], 7),
            ("find=LINE 3", ["3"], 0),
            ("find=line&since=4&until=6", ["4", "5", "6"], 0),
            ("since=9&tail=1", ["9"], 1),
            ("until=1", ["1", "1"], 0),
            ("find=l.ne", [], 0),
            ("find=line&tail=0", [], 0),
            (f"find={'€' * 1000}", [], 0),
        ):
            async with client.ask("GET", f"/v1/logs?container=box-web-1&{quote(query, safe='&=')}") as answer:
                lines = [json.loads(line) for line in (await body_of(answer)).splitlines()]
            assert [re.sub(r"\x1b\[\dm|\D", "", one["text"]) for one in lines] == told, query
            assert sum(one.get("left_out", 0) for one in lines) == left_out, query
        for query in (
            "find=x&follow=1",
            "since=1&follow=1",
            "since=nan",
            "until=-1",
            "since=1e12",
            f"find={'x' * 1001}",
        ):
            async with client.ask("GET", f"/v1/logs?container=box-web-1&{query}") as answer:
                assert answer.status == 400, query

    converse(rig, talk)


def test_a_search_that_the_engine_does_not_end_is_cut_off_and_never_taken_for_all_there_is(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        await machine.changed.until(lambda: machine.status().converged)
        rig.box.docker.containers[machine.container_ids["box-web-1"]].log[:] = [(1.0, "one\n", "")]

        def go_away(call: Call) -> None:
            if call.name == "follow_logs":
                raise NotFound("container box-web-1: it was removed")

        rig.engine.before = go_away
        async with client.ask("GET", "/v1/logs?container=box-web-1") as answer:
            assert await body_of(answer) == b""
        async with client.ask("GET", "/v1/logs?container=box-web-1&find=one") as answer:
            with pytest.raises(ConnectionResetError):
                await body_of(answer)

    converse(rig, talk)


def test_a_generation_tells_what_it_changed_and_what_going_back_to_it_would_do(rig: Rig) -> None:
    rig.project = desired(asking(slot("web"), stop_timeout=0), rollout=Rollout(monitor=0.1))

    async def talk(client: Client, machine: Machine) -> None:
        await outcome_of_up(client)
        second = asking(slot("web", hash="h2", image="app2"), stop_timeout=0)
        rig.project = desired(second, rollout=Rollout(monitor=0.1))
        await outcome_of_up(client)
        number = machine.history()[0].number
        async with client.ask("GET", f"/v1/generations/{number}/differences") as answer:
            assert [(one["subject"], one["key"]) for one in await document(answer)] == [("service web", "image")]
        for query, changed in ((f"?before={number - 1}", ["image"]), (f"?before={number}", [])):
            async with client.ask("GET", f"/v1/generations/{number}/differences{query}") as answer:
                assert [one["key"] for one in await document(answer)] == changed
        async with client.ask("GET", f"/v1/generations/{number - 1}/differences?before={number}") as answer:
            [change] = await document(answer)
            assert (change["before"].split()[0], change["after"].split()[0]) == ("app2", "app")
        async with client.ask("GET", f"/v1/generations/{number - 1}/plan") as answer:
            changes = await document(answer)
        assert [(one["action"], one["name"]) for one in changes] == [("replace", "box-web-1")]
        before = generations(machine)
        for path in (
            "99/plan",
            f"{number}/plan",
            "0/plan",
            "x/plan",
            "-1/differences",
            "99/differences",
            "²/differences",
            f"{number}/differences?before=99",
            f"{number}/differences?before=0",
            f"{number}/differences?before=x",
            f"{number}/differences?after=1",
        ):
            async with client.ask("GET", f"/v1/generations/{quote(path, safe='/?=')}") as answer:
                assert answer.status == 400, path
        assert generations(machine) == before
        shutil.rmtree(rig.path / "state" / "generations" / str(number - 1))
        async with client.ask("GET", f"/v1/generations/{number}/differences") as answer:
            assert answer.status == 400
            assert "the one before it is not kept any more" in (await document(answer))["message"]

    converse(rig, talk)


async def outcome_of_up(client: Client) -> Any:
    """Of the first `up` that is not told to wait: the one of the client that went away may still be under way."""
    while True:
        async with client.ask("POST", "/v1/up") as answer:
            lines = (await body_of(answer)).splitlines()
            if answer.status != 409:
                return json.loads(lines[-1])


async def read_line(answer: Answer) -> Any:
    """Each is a chunk of its own."""
    return json.loads(await anext(answer.chunks()))


async def body_of(answer: Answer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks()])


async def document(answer: Answer) -> Any:
    return json.loads(await body_of(answer))


WATCHERS = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
watchers = []
for _ in range(int(sys.argv[2])):
    watcher = socket.socket(socket.AF_UNIX)
    watcher.connect(sys.argv[1])
    watcher.send(b"GET /v1/watch HTTP/1.1\\r\\nHost: dom0\\r\\n\\r\\n")
    watchers.append(watcher)
for watcher in watchers[:int(sys.argv[3])]:
    watcher.recv(1)
print("there", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def crowd(rig: Rig, watchers: int, *, answered: int = 0) -> AsyncIterator[None]:
    """So many in a process of their own; the first ones have their `answered` when the block begins."""
    argv = [sys.executable, "-c", WATCHERS, str(rig.path / "run" / "dom0.sock"), str(watchers), str(answered)]
    process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"there\n"
    yield
    await process.communicate(b"")  # its input ends


async def until_answered(client: Client) -> None:
    while True:
        async with client.ask("GET", "/v1/status") as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(WATCH_EVERY)


@pytest.fixture
def descriptors(request: pytest.FixtureRequest) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (request.param, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("descriptors", [200], indirect=True)
def test_half_of_the_descriptors_are_for_the_machine_whatever_watchers_have(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        async with crowd(rig, 100, answered=100), client.ask("GET", "/v1/status") as answer:
            assert answer.status == 409
            assert "too many requests at once" in (await document(answer))["message"]
        await until_answered(client)

    converse(rig, talk)


@pytest.mark.usefixtures("descriptors")
@pytest.mark.parametrize("descriptors", [64], indirect=True)
def test_more_watchers_than_descriptors_leave_few_lines_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        async with crowd(rig, 120):
            for _ in range(20):
                await rig.up()  # every watcher is told
                await asyncio.sleep(WATCH_EVERY)
        await until_answered(client)

    converse(rig, talk)
    assert "Traceback" not in caplog.text
    assert len(caplog.records) < 20


def test_the_socket_is_for_root_and_its_group(rig: Rig) -> None:
    async def talk(client: Client, machine: Machine) -> None:
        modes.append((rig.path / "run" / "dom0.sock").stat().st_mode & 0o777)

    modes: list[int] = []
    converse(rig, talk)
    assert modes == [0o660]
