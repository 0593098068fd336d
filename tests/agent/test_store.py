"""A file that is not what we wrote is damaged; one that cannot be read just now is not."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.agent.state_files import StateFiles
from dom0.agent.store import Damaged, Unreadable, read_json
from dom0.plan.memory import Memory


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("content", [b"3{", b'{"crashes": {"\xff": []}}', b'{"more": ' + b"[" * 50_000])
def test_what_is_not_json_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "current").write_bytes(content)
    with pytest.raises(Damaged, match="is damaged") as raised:
        read_json(tmp_path / "current", Memory)
    assert not isinstance(raised.value, Unreadable)


def test_a_file_that_cannot_be_read_just_now_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="current: cannot be read: Too many open files"), no_descriptor_left():
        read_json(tmp_path / "current", int)


def test_a_memory_that_cannot_be_read_just_now_is_set_aside_before_an_empty_one_is_written(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text('{"crashes": {}}')
    with no_descriptor_left():
        memory, error = StateFiles(tmp_path).load_memory()
    StateFiles(tmp_path).save_memory(memory)
    assert isinstance(error, Unreadable)
    assert (tmp_path / "memory.json.unread").read_text() == '{"crashes": {}}'


def test_a_damaged_memory_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text("{")
    _, error = StateFiles(tmp_path).load_memory()
    assert error is not None
    assert error.message.startswith(f"{tmp_path}/memory.json: is damaged")
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json.damaged"]
