"""`dom0-ambassador` as a person types it: what it prints, how it ends, what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dom0.ambassador.command import cli
from dom0.testing.control_plane import ControlPlane, run_once
from dom0.testing.wires import Wires


@pytest.fixture
def amb(wires: Wires) -> Iterator[ControlPlane]:
    environ = {"REDIS_PORT_6379_TCP": f"tcp://{wires.providers[0].v4}:6379"}
    with ControlPlane(wires.ambassador, environ) as made:
        yield made


def test_a_rewire_prints_its_receipt_and_history_keeps_it(wires: Wires, amb: ControlPlane) -> None:
    wires.consumer.connect(wires.ambassador.v4, 6379)
    code, output, errors = amb.command("rewire", "--to", f"{wires.providers[1].v4}:6379", "--existing", "cut")
    assert (code, errors) == (0, "")
    assert output.startswith("6379/tcp: 10.77.0.4:6379 → 10.77.0.5:6379\n  receipt 1, generation 2, switched in ")
    assert "old connections: 1 cut" in output
    lines = amb.command("history")[1].splitlines()
    assert lines[0].split() == ["NUMBER", "AT", "CAUSE", "LISTENERS", "TARGETS", "OLD", "CONNECTIONS"]
    assert "10.77.0.4:6379 → 10.77.0.5:6379  1 cut" in lines[1]


def test_show_ls_and_flows_say_where_connections_go(wires: Wires, amb: ControlPlane) -> None:
    client = wires.consumer.connect(wires.ambassador.v4, 6379)
    shown = amb.command("show")[1]
    assert "forwards by: kernel" in shown
    assert "6379/tcp  generation 1, 1 flows, existing: keep" in shown
    assert amb.command("ls")[1].splitlines()[1].split() == ["6379/tcp", "10.77.0.4:6379", "1", "1"]
    assert f"{wires.consumer.v4}:{client.port}" in amb.command("flows", "--listener", "6379")[1]
    assert amb.command("flows", "--generation", "7")[1].count("\n") == 1


def test_a_plan_lists_the_connections_and_undo_goes_back(wires: Wires, amb: ControlPlane) -> None:
    client = wires.consumer.connect(wires.ambassador.v4, 6379)
    planned = amb.command("rewire", "--to", wires.providers[1].v4, "--plan")[1]
    assert "would be: 1 kept" in planned
    assert str(client.port) in planned
    assert amb.command("undo")[0] == 2
    amb.command("rewire", "--to", wires.providers[1].v4)
    assert "10.77.0.5:6379 → 10.77.0.4:6379" in amb.command("undo")[1]


@pytest.mark.parametrize("words", ["show", "ls", "history", "flows", "rewire --to 10.77.0.5", "undo"])
def test_every_answer_can_be_had_as_json(wires: Wires, amb: ControlPlane, words: str) -> None:
    if words == "undo":
        amb.rewire(wires.providers[1].v4)
    code, output, _ = amb.command(*words.split(), "--json")
    assert code == 0
    json.loads(output)


def test_check_reads_the_variables_and_changes_nothing(wires: Wires, amb: ControlPlane) -> None:
    assert amb.command("check")[:2] == (0, f"6379/tcp → {wires.providers[0].v4}:6379\n")
    amb.environ["REDIS_PORT_6379_TCP"] = "tcp://h"
    code, output, errors = amb.command("check")
    assert (code, output) == (3, "")
    assert "dom0-ambassador: REDIS_PORT_6379_TCP: 'h' names no port" in errors


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("rewire", 2, "Missing option '--to'"),
        ("rewire --to 10.77.0.5 --udp away", 2, "'away' is not one of"),
        ("rewire --to 10.77.0.5 --hold --hold-timeout soon", 2, "--hold-timeout: 'soon' is not a duration"),
        ("rewire --to 10.77.0.2:6379", 2, "a loop"),
        ("rewire --to no-such-name.invalid:1", 2, "is not found"),
        ("rewrie", 2, "No such command 'rewrie'"),
        ("flows --listener 80", 2, "is not one of this ambassador's"),
    ],
)
def test_what_cannot_be_done_ends_with_its_exit_code_and_a_reason(
    amb: ControlPlane, words: str, code: int, said: str
) -> None:
    ended, output, errors = amb.command(*words.split())
    assert (ended, output) == (code, "")
    assert said in errors
    assert "Traceback" not in errors


def test_without_any_listener_run_says_which_variables_it_looks_for(wires: Wires) -> None:
    code, _, errors = run_once(wires.ambassador, {}, "run")
    assert code == 3
    assert "ALIAS_PORT_<n>_TCP=tcp://HOST:PORT" in errors


def test_without_an_ambassador_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOM0_RUN", str(tmp_path))
    result = CliRunner().invoke(cli, ["ls"])
    assert "no ambassador answers" in str(result.exception)


def loaded_by(module: str) -> set[str]:
    program = f"import sys, {module}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def test_a_command_loads_little_and_the_control_plane_no_more_than_it_uses() -> None:
    assert not {"asyncio", "dns", "prometheus_client"} & loaded_by("dom0.ambassador.command")
    assert not {"dns", "prometheus_client", "h11", "rich", "yaml"} & loaded_by("dom0.ambassador.serve")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_a_help_that_says_what_it_does(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()[2].split()) > 2
