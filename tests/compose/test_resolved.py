"""What different versions of Docker Compose print is read as the same project."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.compose import resolved
from dom0.compose.findings import Locations
from dom0.compose.model import FileReference


@pytest.mark.parametrize("mode", [0o440, "0440", "440"])
def test_a_mode_is_a_number_or_octal_text(mode: Any) -> None:
    use = {"source": "a", "mode": mode}
    service = {"image": "i", "configs": [use], "secrets": [use], "build": {"context": "/", "secrets": [use]}}
    found = resolved.project_of({"services": {"web": service}}, Locations({})).services["web"]
    assert found.build is not None
    assert found.configs == found.secrets == found.build.secrets == (FileReference(source="a", mode=0o440),)


def test_block_devices_are_known_by_composes_names() -> None:
    text = '{"services": {"a": {"blkio_config": {"weight": 9, "weight_device": [{"Path": "/dev/x", "Weight": 5}]}}}}'
    found = resolved.parse(text)["services"]["a"]["blkio_config"]
    assert found == {"weight": 9, "weight_device": [{"path": "/dev/x", "weight": 5}]}


def test_a_limit_of_zero_is_one() -> None:
    text = '{"services": {"a": {"ulimits": {"core": {}, "nofile": {"hard": 5}, "nproc": 7}}}}'
    found = resolved.parse(text)["services"]["a"]["ulimits"]
    assert found == {"core": {"soft": 0, "hard": 0}, "nofile": {"soft": 0, "hard": 5}, "nproc": 7}
