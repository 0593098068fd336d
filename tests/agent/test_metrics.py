"""The machine's numbers: their text against the official parser, their names against page and dashboard, and where they
are told, on real sockets and in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from dom0.agent import listener, vitals
from dom0.agent.ambassador_status import AmbassadorStatus
from dom0.agent.metrics import render
from dom0.agent.metrics_server import CONTENT_TYPE, MetricsServer
from dom0.agent.progress import Changes
from dom0.agent.status import BackupStatus, Phase, PullStatus, Status
from dom0.agent.vitals import FileSystem, Vitals
from dom0.ambassador.messages import ListenerState
from dom0.engine.values import Usage
from dom0.plan.desired import Metrics
from dom0.testing.fake_agent import make_service, make_status
from dom0.testing.fake_talk import make_state
from dom0.testing.pages import CHECKOUT, page, section

LISTENER = ListenerState(
    listener="80/tcp", generation=1, sources=(), targets=("10.0.0.1:80",), unhealthy=("10.0.0.2:80",), flows=3
)
AMBASSADORS = (
    AmbassadorStatus(
        service="front",
        container="box-front-1",
        container_id="f" * 64,
        running=True,
        state=make_state(listeners=(LISTENER,), receipts=2),
    ),
    AmbassadorStatus(service="silent", container="box-silent-1", container_id="e" * 64, running=False),
)
VITALS = Vitals(
    memory=8 << 30,
    memory_available=5 << 30,
    load=0.25,
    booted=1000.0,
    processors={"user": 12.5, "idle": 100.0},
    file_systems=(FileSystem("/var/lib/dom0", 1 << 40, 1 << 39),),
    own_memory=40 << 20,
    own_processor=1.5,
)
STATUS = make_status(
    backups=(
        BackupStatus(volume="box_data", key="data", service="dom0-backup-data", to="/srv", last=1700000000.5, size=7),
        BackupStatus(volume="box_cache"),
    ),
    pulls=(PullStatus(image="nginx", size=100, have=40, rate=0.0, left=None, drops=0),),
)
EVENTS = {"command": 3, "container-exited": 1}
USAGES = {"c" * 64: Usage(memory=9 << 20, processor=2.5, received=300, sent=200)}


def read(text: bytes) -> dict[str, list[Sample]]:
    """By the names that a query has."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text.decode()):  # type: ignore[no-untyped-call]
        found.setdefault(queried(family.name, family.type), [])
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def queried(name: str, kind: str) -> str:
    return name + {"counter": "_total", "info": "_info"}.get(kind, "")


def value(found: dict[str, list[Sample]], name: str, **labels: str) -> float:
    (sample,) = (one for one in found[name] if labels.items() <= one.labels.items())
    return sample.value


def test_the_official_parser_reads_what_the_machine_is() -> None:
    found = read(render(STATUS, AMBASSADORS, EVENTS, VITALS, USAGES))
    assert value(found, "dom0_machine_info", project="box", version="0.1.0") == 1
    assert value(found, "dom0_service_memory_bytes", service="redis") == 9 << 20
    assert value(found, "dom0_service_network_receive_bytes_total", service="redis") == 300
    assert value(found, "dom0_converged") == 1
    assert value(found, "dom0_generation") == value(found, "dom0_generation_last_good") == 3
    assert value(found, "dom0_problems", code="crash-loop", subject="web", severity="error") == 1
    assert value(found, "dom0_service_phase", service="redis", container="box-redis-1", phase="ready") == 1
    assert value(found, "dom0_service_phase", service="web", phase="crash-loop") == 1
    assert value(found, "dom0_ambassador_up", ambassador="front") == 1
    assert value(found, "dom0_ambassador_up", ambassador="silent") == 0
    assert value(found, "dom0_ambassador_connections", ambassador="front", listener="80/tcp") == 3
    assert value(found, "dom0_ambassador_target_up", target="10.0.0.2:80") == 0
    assert value(found, "dom0_volume_backed_up", volume="box_cache") == 0
    assert value(found, "dom0_backup_last_success_timestamp_seconds", volume="box_data") == 1700000000.5
    assert value(found, "dom0_pull_received_bytes", image="nginx") == 40
    assert value(found, "dom0_machine_cpu_seconds_total", mode="user") == 12.5
    assert value(found, "dom0_machine_filesystem_available_bytes", path="/var/lib/dom0") == 1 << 39
    assert value(found, "dom0_journal_events_total", kind="command") == 3


def test_a_machine_without_anything_has_all_names() -> None:
    nothing = Status(
        project="",
        version="0.1.0",
        dom0_image="",
        generation=None,
        last_good=None,
        converged=False,
        services=(),
        steps=(),
        problems=(),
    )
    assert (
        read(render(nothing, (), {}, Vitals())).keys()
        == read(render(STATUS, AMBASSADORS, EVENTS, VITALS, USAGES)).keys()
    )


@given(st.text(max_size=80))
def test_no_name_ends_a_label_or_a_line(name: str) -> None:
    service = make_service(name, Phase.FAILED, number=2, container=name)
    problem = replace(STATUS.problems[0], subject=name)
    status = replace(STATUS, project=name, services=(service, replace(service, number=3)), problems=(problem, problem))
    text = render(status, (replace(AMBASSADORS[0], service=name),), {name: 1}, VITALS)
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text)
    found = read(text)
    assert len(found["dom0_service_phase"]) == 2
    assert value(found, "dom0_problems") == 2
    if name.isprintable():
        assert {one.labels.get("service", "") for one in found["dom0_service_phase"]} == {name}


def rows() -> dict[str, set[str]]:
    table = section(page("docs/metrics.md"), "The metrics")
    found = re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in found}


def test_every_metric_is_documented_with_its_labels() -> None:
    found = read(render(STATUS, AMBASSADORS, EVENTS, VITALS, USAGES))
    assert rows() == {name: {label for one in samples for label in one.labels} for name, samples in found.items()}


def test_the_dashboard_asks_for_nothing_that_there_is_not() -> None:
    dashboard = json.loads((CHECKOUT / "docs" / "dashboard.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [target["expr"] for target in targets]
    assert len(queries) > 10
    known = rows()
    for query in (*queries, section(page("docs/metrics.md"), "Worth an alert")):
        names = re.findall(r"\bdom0_\w+", query)
        assert names, query
        labels = {label for name in names for label in known[name]} | {"instance"}
        used = re.findall(r"(\w+)(?:=~|!=|=)\"", query)
        used += [label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")]
        assert set(used) <= labels, query
    shown = {label for target in targets for label in re.findall(r"{{(\w+)}}", target["legendFormat"])}
    assert shown <= {label for labels in known.values() for label in labels} | {"instance"}


def test_what_the_kernel_says_of_this_machine_is_read(tmp_path: Path) -> None:
    found = vitals.look((tmp_path, tmp_path, tmp_path / "none"))
    assert 0 < found.memory_available < found.memory
    assert found.booted > 0
    assert found.processors["user"] + found.processors["idle"] > 0
    assert [one.path for one in found.file_systems] == [str(tmp_path)]
    assert found.own_memory > 1 << 20
    assert vitals.look((), proc=tmp_path).memory == 0


# where they are told


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "FIRST_PAUSE", 0.01)


class Served:
    def __init__(self, metrics: Metrics | None) -> None:
        self.metrics = metrics
        self.changed = Changes()
        self.rendered = 0
        self.server = MetricsServer(self.changed, lambda: self.metrics, self.render)

    async def render(self) -> bytes:
        self.rendered += 1
        return render(STATUS, AMBASSADORS, EVENTS, VITALS, USAGES)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.server.run())
        try:
            async with asyncio.timeout(60):
                yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def change(self, metrics: Metrics | None) -> None:
        self.metrics = metrics
        self.changed.tell()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(port: int, target: str, own: str, host: str) -> tuple[int, str, bytes]:
    """0: the connection was refused or closed."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, source_address=(own, 0))) as connection:
        try:
            connection.request("GET", target, headers={"Host": host} if host else {})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        except (ConnectionError, http.client.BadStatusLine):
            return 0, "", b""


async def get(port: int, target: str = "/metrics", own: str = "127.0.0.1", host: str = "") -> tuple[int, str, bytes]:
    return await asyncio.to_thread(ask, port, target, own, host)


async def until(question: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    while not await question():  # noqa: ASYNC110 -- nobody tells of a socket
        await asyncio.sleep(0.01)


def in_real_time(talk: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(talk())


def test_they_are_told_where_it_is_asked_for_and_made_for_nobody_else() -> None:
    async def talk() -> None:
        port, other = free_port(), free_port()
        served = Served(None)
        async with served.running():
            assert (await get(port))[0] == 0
            served.change(Metrics(listen=f"127.0.0.1:{port}"))
            await until(lambda: answers(port))
            made = served.rendered
            status, kind, body = await get(port)
            assert (status, kind, served.rendered) == (200, CONTENT_TYPE, made + 1)
            assert "dom0_converged" in read(body)
            assert [(await get(port, target))[0] for target in ("/", "/metrics/x", "/v1/status")] == [404] * 3
            served.change(Metrics(listen=f"127.0.0.1:{other}"))
            await until(lambda: answers(other))
            assert (await get(port))[0] == 0
            served.change(None)
            await until(lambda: is_silent(other))
        assert served.rendered == made + 2

    async def answers(port: int) -> bool:
        return (await get(port))[0] == 200

    async def is_silent(port: int) -> bool:
        return (await get(port, "/"))[0] == 0

    in_real_time(talk)


def test_a_web_page_on_the_machine_does_not_read_along() -> None:
    async def talk() -> None:
        port = free_port()
        served = Served(Metrics(listen=f"127.0.0.1:{port}"))
        async with served.running():
            await until(lambda: answers(port))
            made = served.rendered
            assert (await get(port, host=f"attacker.example:{port}"))[0] == 403
            assert served.rendered == made

    async def answers(port: int) -> bool:
        return (await get(port, host=f"localhost:{port}"))[0] == 200

    in_real_time(talk)


def test_who_was_not_named_is_cut_off() -> None:
    async def talk() -> None:
        port = free_port()
        served = Served(Metrics(listen=f"0.0.0.0:{port}", allow=("127.0.0.3",)))
        async with served.running():
            await until(lambda: answers(port))
            assert (await get(port, own="127.0.0.2"))[0] == 0
            assert (await get(port, own="127.0.0.3", host="box.lan:9180"))[0] == 200

    async def answers(port: int) -> bool:
        return (await get(port, own="127.0.0.3"))[0] == 200

    in_real_time(talk)


def test_a_port_that_is_taken_is_a_problem_until_it_is_free() -> None:
    async def talk() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            served = Served(Metrics(listen=f"127.0.0.1:{port}"))
            async with served.running():
                await served.changed.until(lambda: bool(served.server.problems))
                (problem,) = served.server.problems
                assert problem.code == "metrics-unserved"
                assert f"127.0.0.1:{port}" in problem.title
                taken.close()
                await served.changed.until(lambda: not served.server.problems)

    in_real_time(talk)


def test_a_port_that_is_taken_is_no_problem_where_nobody_asks_for_it_any_more() -> None:
    async def talk() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            served = Served(Metrics(listen=f"127.0.0.1:{taken.getsockname()[1]}"))
            async with served.running(), asyncio.timeout(60):
                await served.changed.until(lambda: bool(served.server.problems))
                served.change(None)
                await served.changed.until(lambda: not served.server.problems)

    in_real_time(talk)
