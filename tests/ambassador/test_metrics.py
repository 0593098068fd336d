"""What Prometheus gets, and that nobody gets anything unless the settings say so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dom0.testing.control_plane import ControlPlane, run_once
from dom0.testing.wires import Wires

PORT = 9180


def declared(wires: Wires, **more: object) -> dict[str, str]:
    to = [f"{wires.providers[0].v4}:6379"]
    return {"DOM0_AMBASSADOR": json.dumps({"listen": {"6379": {"to": to}}, **more})}


@pytest.fixture
def amb(wires: Wires) -> Iterator[ControlPlane]:
    with ControlPlane(wires.ambassador, declared(wires, metrics=str(PORT))) as made:
        yield made


def get(wires: Wires, request: bytes = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") -> tuple[int, str]:
    with wires.consumer.socket() as made:
        made.settimeout(30)
        made.connect((wires.ambassador.v4, PORT))
        made.sendall(request)
        answer = b"".join(iter(lambda: made.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def samples(wires: Wires) -> dict[str, float]:
    """By `NAME LABEL=VALUE …`, labels in alphabetical order."""
    status, body = get(wires)
    assert status == 200
    return {
        " ".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def test_connections_are_told_by_listener_target_and_generation(wires: Wires, amb: ControlPlane) -> None:
    a, b = (f"{provider.v4}:6379" for provider in wires.providers)
    clients = [wires.consumer.connect(wires.ambassador.v4, 6379) for _ in range(2)]
    amb.rewire(b)
    clients.append(wires.consumer.connect(wires.ambassador.v4, 6379))
    found = samples(wires)
    assert found[f"dom0_ambassador_connections generation=1 listener=6379/tcp target={a}"] == 2
    assert found[f"dom0_ambassador_connections generation=2 listener=6379/tcp target={b}"] == 1
    assert found["dom0_ambassador_generation listener=6379/tcp"] == 2
    assert found[f"dom0_ambassador_target_up listener=6379/tcp target={b}"] == 1
    assert found["dom0_ambassador_rewires_total cause=rewire"] == 1
    assert found["dom0_ambassador_conntrack_max"] >= found["dom0_ambassador_conntrack_entries"] > 0


def test_bytes_are_told_where_the_kernel_counts_them(wires: Wires, amb: ControlPlane) -> None:
    wires.ambassador.sysctl("net.netfilter.nf_conntrack_acct", 1)
    wires.consumer.connect(wires.ambassador.v4, 6379).ask("x" * 1000)
    labels = f"generation=1 listener=6379/tcp target={wires.providers[0].v4}:6379"
    found = samples(wires)
    assert found[f"dom0_ambassador_sent_bytes {labels}"] > 1000
    assert found[f"dom0_ambassador_received_bytes {labels}"] > 1000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 405),
        (b"\xff\xfe\r\n\r\n", 405),
    ],
)
def test_any_other_question_gets_an_error(wires: Wires, amb: ControlPlane, request_: bytes, status: int) -> None:
    assert get(wires, request_)[0] == status


def test_a_question_without_end_is_hung_up_on_and_the_next_one_answered(wires: Wires, amb: ControlPlane) -> None:
    with wires.consumer.socket() as made:
        made.settimeout(30)
        made.connect((wires.ambassador.v4, PORT))
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # perhaps before all of it is sent
            made.sendall(b"GET /" + b"x" * 100_000)
            assert made.recv(1) == b""
    assert get(wires)[0] == 200


def test_without_a_word_in_the_settings_nobody_may_ask(wires: Wires) -> None:
    with ControlPlane(wires.ambassador, declared(wires)), pytest.raises(ConnectionRefusedError):
        wires.consumer.connect(wires.ambassador.v4, PORT)


def test_a_port_that_is_taken_is_named(wires: Wires) -> None:
    taken = wires.ambassador.socket()
    taken.bind((wires.ambassador.v4, PORT))
    taken.listen()
    code, _, errors = run_once(wires.ambassador, declared(wires, metrics=f"{wires.ambassador.v4}:{PORT}"), "run")
    assert (code, f"metrics: {wires.ambassador.v4}:{PORT}" in errors) == (1, True)
