"""What other versions wrote and say is understood, and what is written and said now is what they understand.

An ambassador of an older image runs on while a newer agent follows it, and the other way round; a state file outlives
the image that wrote it. The files in `format` are what the first release made.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from dom0.ambassador.declaration import declare
from dom0.ambassador.messages import State
from dom0.ambassador.settings import Settings
from dom0.ambassador.state import Stored

FILES = Path(__file__).parent / "format"
SETTINGS = {
    "listen": {
        "6379": {
            "to": ["redis:6379", {"target": "10.0.0.1:1", "weight": 2}],
            "existing": "drain=30s",
            "udp": "keep",
            "down": "hold=5s",
            "health": {},
        },
        "53/udp": {"to": ["service:dns:53"], "existing": "cut"},
    }
}


@pytest.mark.parametrize(("name", "kind"), [("state.json", Stored), ("told.json", State)])
def test_state_reads_and_is_written_as_ever(name: str, kind: type[Stored | State]) -> None:
    text = FILES.joinpath(name).read_bytes()
    read = msgspec.json.decode(text, type=kind)
    assert read.drains[0].cut_at == 130.0
    assert json.loads(msgspec.json.encode(read)) == json.loads(text)


def test_the_same_settings_have_the_digest_that_they_always_had() -> None:
    """Another one would make a new image forget the rewires of before."""
    declared = declare(msgspec.convert(SETTINGS, Settings))
    assert declared.digest == "af51c7aac2cc3cda6a724976304fd640f02fa8a85d884bf6d06461ddc4f1c59c"
