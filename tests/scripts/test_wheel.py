"""The wheel: installed as the README says, with pip, pipx and uv, it brings up a machine from nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0 import __version__
from dom0.images import recipe
from dom0.names import BASE_IMAGE
from dom0.testing.chain import CACHE
from dom0.testing.hosts import Host

CHECKOUT = Path(__file__).parents[2]
COMPOSE = """
name: box
x-dom0: {rollout: {monitor: 1s}}
services:
  web: {image: busybox:test, init: true, command: ["sleep", "100000"]}
"""

pytestmark = [pytest.mark.engine, pytest.mark.chain, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory))
    (found,) = directory.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs pipx and uv are."""
    return environment(tmp_path_factory.mktemp("tools"), "pipx", "uv")


@pytest.fixture(scope="module")
def host(engines_possible: None) -> Iterator[Host]:
    with Host(outside=True) as host:
        yield host


def run(*argv: str, **variables: str) -> str:
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=os.environ | variables, check=False, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def environment(directory: Path, *packages: str) -> Path:
    """A fresh one with these; returns where its programs are."""
    run(sys.executable, "-m", "venv", str(directory))
    run(str(directory / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", *packages)
    return directory / "bin"


def with_pip(wheel: Path, directory: Path, _tools: Path) -> Path:
    return environment(directory, str(wheel))


def with_pipx(wheel: Path, directory: Path, tools: Path) -> Path:
    places = {name: str(directory / name) for name in ("PIPX_HOME", "PIPX_BIN_DIR", "PIPX_MAN_DIR")}
    run(str(tools / "pipx"), "install", str(wheel), **places)
    return directory / "PIPX_BIN_DIR"


def with_uv(wheel: Path, directory: Path, tools: Path) -> Path:
    """Where pip is told to get packages, which uv does not read."""
    places = {name: str(directory / name) for name in ("UV_TOOL_DIR", "UV_TOOL_BIN_DIR", "UV_CACHE_DIR")}
    asked = [str(tools / "pip"), "config", "get", "global.index-url"]
    said = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
    found = os.environ.get("PIP_INDEX_URL") or said
    index = {"UV_DEFAULT_INDEX": found} if found else {}
    run(str(tools / "uv"), "tool", "install", "--with", "pip", str(wheel), UV_NATIVE_TLS="true", **places, **index)
    return directory / "UV_TOOL_BIN_DIR"


@pytest.mark.parametrize("install", [with_pip, with_pipx, with_uv])
def test_installed_it_makes_its_images_and_runs_a_project(
    wheel: Path, tools: Path, host: Host, tmp_path: Path, install: Callable[[Path, Path, Path], Path]
) -> None:
    dom0 = str(install(wheel, tmp_path / "installed", tools) / "dom0")
    project = tmp_path / "box"
    project.mkdir()
    (project / "compose.yaml").write_text(COMPOSE)

    def typed(*arguments: str) -> str:
        kept = {"XDG_CACHE_HOME": str(CACHE), "PYTHONPATH": ""}
        return host.run([dom0, *arguments], cwd=project, timeout=900, env=kept).stdout

    assert typed("--version") == f"dom0 {__version__}\n"
    findings = {one["check"]: one for one in json.loads(typed("doctor", "--json"))}
    assert str(tmp_path) in findings["dom0 command"]["found"]
    assert [one for one in findings.values() if one["verdict"] == "missing"] == []
    typed("up", "--wait")
    made_of = host.docker("image", "inspect", "--format", '{{index .Config.Labels "dom0.inputs"}}', BASE_IMAGE)
    assert made_of.stdout.strip() == recipe.base_inputs()  # all that the checkout has
    running = host.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert sorted(running) == ["box-web-1", "dom0"]
    typed("status", "--exit-code")
    typed("down")
    assert host.docker("ps", "--quiet").stdout == ""
