"""Files are there whole, or as they were before."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.durable import Unwritable, write_atomic


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_written_with_its_directories_and_replaced_with_its_mode(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "in" / "file"
    write_atomic(path, b"old", mode=0o644, durable=durable)
    write_atomic(path, b"new", durable=durable)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(path.parent) == ["file"]


def test_what_cannot_be_written_is_as_before_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken" / "in").mkdir(parents=True)
    with pytest.raises(Unwritable, match="taken: cannot be written: Is a directory"):
        write_atomic(tmp_path / "taken", b"new")
    assert names(tmp_path) == ["taken"]
    assert names(tmp_path / "taken") == ["in"]
