"""A farm on the disk, with a server's key that is made once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.agent import alerts, notify
from dom0.farms import lost, orders, pin
from dom0.farms.directory import FarmDirectory
from dom0.testing.receiver import Receiver


@pytest.fixture(scope="session")
def pem() -> bytes:
    return asyncio.run(pin.make_certificate("attic"))


@pytest.fixture
def farm(tmp_path: Path, pem: bytes) -> FarmDirectory:
    made = FarmDirectory(tmp_path / "attic")
    made.make("attic", pem, {"roles/web/compose.yaml": b"name: web\n"})
    return made


@pytest.fixture
def port() -> Iterator[int]:
    """Nobody answers there but `serving`, and nobody else can take it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds in the place of minutes until people are told."""
    times = {"SILENT": 6.0, "TOGETHER": 3.0, "HOLD": 0.2, "BETWEEN": 0.1, "CALM": 1.0, "EVERY": 0.05, "WAIT": 0.1}
    for module in (lost, alerts, notify, orders):
        for name, seconds in times.items():
            monkeypatch.setattr(module, name, seconds, raising=False)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
