"""Coroutines in this folder run in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.testing.rig import Rig
from dom0.testing.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, type[VirtualTimeLoop]]:
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)
