"""Packages for the images are fetched by pip, which not every installation of dom0 has."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from dom0.errors import Dom0Error
from dom0.images import chain, fetched
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine


def test_where_pip_was_left_out_a_fresh_one_is_made(tmp_path: Path) -> None:
    """As `uv tool install` leaves it: all packages but pip."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("pip"):
            (packages / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "tool"], check=True)
    script = (
        "import asyncio, pathlib; from dom0.images import fetched; from dom0.run import capture\n"
        "assert not fetched.lacks_pip()\n"
        f"pip = asyncio.run(fetched._pip(pathlib.Path({str(tmp_path / 'scratch')!r})))\n"
        "print(asyncio.run(capture([*pip, '--version'])).stdout)\n"
    )
    path = os.pathsep.join([str(Path(fetched.__file__).parents[2]), str(packages)])
    argv = [str(tmp_path / "tool" / "bin" / "python"), "-c", script]
    said = subprocess.run(argv, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert said.stdout.startswith("pip "), said.stderr


@pytest.mark.parametrize("build", [chain.build_base, chain.build_ambassador])
def test_without_any_pip_nothing_is_begun(build: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pip", "ensurepip"):
        monkeypatch.setitem(sys.modules, name, None)
    begun: list[str] = []
    with pytest.raises(Dom0Error, match="has no pip") as refusal:
        asyncio.run(build(FakeEngine(FakeDocker()), begun.append))  # type: ignore[operator] # either of them
    assert "uv tool install --with pip dom0" in refusal.value.hint
    assert begun == []
