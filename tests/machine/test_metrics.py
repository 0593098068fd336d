"""The numbers of a real machine, from when the project asks for them until it does so no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from dom0.testing.bare_agent import BareAgent
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {rollout: {monitor: 100ms, timeout: 60s}, metrics: }
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        volumes: ["data:/data"]
    volumes: {data: {}}
    """
ASK = "import urllib.request as it; print(it.urlopen('http://127.0.0.1:9180/metrics').read().decode(), end='')"


@pytest.fixture
def agent(engine_host: Host, tmp_path: Path) -> Iterator[BareAgent]:
    agent = BareAgent(Machine(engine_host, tmp_path))
    agent.write(COMPOSE)
    agent.start()
    agent.machine.until_good()
    yield agent
    agent.kill()


def numbers(machine: Machine) -> dict[str, list[Sample]]:
    """By name; nothing where nobody answers."""
    said = machine.host.run(["python3", "-c", ASK], check=False).stdout
    families = text_string_to_metric_families(said) if said else ()  # type: ignore[no-untyped-call]
    return {sample.name: [*family.samples] for family in families for sample in family.samples}


def test_what_the_machine_does_can_be_read_as_long_as_the_project_asks_for_it(agent: BareAgent) -> None:
    machine = agent.machine
    found = machine.until(lambda: numbers(machine))
    (service,) = found["dom0_service_phase"]
    assert service.labels == {"service": "web", "number": "1", "container": "box-web-1", "phase": "ready"}
    events = {one.labels["kind"]: one.value for one in found["dom0_journal_events_total"]}
    assert (events["generation-good"], events["generation-back"]) == (1, 0)
    assert [one.labels for one in found["dom0_volume_backed_up"]] == [{"volume": "box_data"}]
    (used,) = found["dom0_service_cpu_seconds_total"]
    assert used.labels["service"] == "web"
    assert found["dom0_machine_memory_bytes"][0].value > 1 << 26
    assert "/var/lib/dom0" in {one.labels["path"] for one in found["dom0_machine_filesystem_size_bytes"]}
    agent.kill()
    assert not numbers(machine)
    agent.start()
    machine.until(lambda: numbers(machine))
    agent.write(COMPOSE.replace("metrics:", ""))
    agent.ask("POST", "/v1/up")
    machine.until_good(2)
    machine.until(lambda: not numbers(machine))
