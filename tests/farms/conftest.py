"""A farm on the disk, with a server's key that is made once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.farms import pin
from dom0.farms.directory import FarmDirectory


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
