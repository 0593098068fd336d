"""A farm on the disk, with a server's key that is made once."""

from __future__ import annotations

import asyncio
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
    made.make("attic", pem, "web", b"name: web\n")
    return made
