"""What different versions of Docker Compose print is read as the same project."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.compose import resolved
from dom0.compose.model import FileReference
from dom0.compose.places import Places


@pytest.mark.parametrize("mode", [0o440, "0440", "440"])
def test_a_mode_is_a_number_or_octal_text(mode: Any) -> None:
    use = {"source": "a", "mode": mode}
    service = {"image": "i", "configs": [use], "secrets": [use], "build": {"context": "/", "secrets": [use]}}
    found = resolved.project_of({"services": {"web": service}}, Places({})).services["web"]
    assert found.build is not None
    assert found.configs == found.secrets == found.build.secrets == (FileReference(source="a", mode=0o440),)
