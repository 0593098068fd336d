"""Images to another machine by a stick, which takes only what is missing there."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dom0.images.layer_list import read_there
from dom0.images.save import save_without
from dom0.registry.manifest import Platform
from dom0.run import CommandFailed
from dom0.testing.hosts import CONTAINERD_STORE, OWN_STORE, Host

HERE = Platform("linux", "amd64", "v1")
STORES = {"own": OWN_STORE, "containerd": CONTAINERD_STORE}
LARGE = 1 << 20  # bytes of a layer


def dom0(host: Host, *arguments: str) -> Any:
    """What `dom0 image` says there."""
    return json.loads(host.run([sys.executable, "-m", "dom0", "image", *arguments, "--json"]).stdout)


def build(host: Host, directory: Path, name: str, *, base: str = "busybox:test") -> None:
    """An image with one layer more, which nothing makes smaller."""
    directory.mkdir(exist_ok=True)
    (directory / "large").write_bytes(os.urandom(LARGE))
    (directory / "Dockerfile").write_text(f"FROM {base}\nCOPY large /{name.replace(':', '-')}\n")
    host.docker("build", "--quiet", "--provenance=false", f"--tag={name}", str(directory))


def id_of(host: Host, name: str) -> str:
    return host.docker("image", "inspect", "--format={{.Id}}", name).stdout.strip()


def names(host: Host) -> list[str]:
    return sorted(host.docker("image", "ls", "--all", "--format={{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines())


@pytest.fixture(params=STORES)
def other(request: pytest.FixtureRequest, fresh_host: Callable[..., Host]) -> Host:
    """The machine without a network, with either store."""
    return fresh_host(config=STORES[request.param])


async def saved(monkeypatch: pytest.MonkeyPatch, host: Host, references: list[str], file: Path, there: Path) -> int:
    monkeypatch.setenv("DOCKER_HOST", host.docker_host)
    return await save_without(references, file, await read_there(there, HERE), HERE)


async def test_only_what_is_missing_goes_by_stick(
    engine_host: Host, other: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick, listed = tmp_path / "images.tar", tmp_path / "there.json"
    build(engine_host, tmp_path / "context", "base:1")
    build(engine_host, tmp_path / "context", "app:1", base="base:1")
    engine_host.docker("save", f"--output={stick}", "base:1")
    other.docker("load", f"--input={stick}")
    listed.write_text(json.dumps(dom0(other, "ls", "--layers")))
    for there in (stick, listed):
        update = tmp_path / f"{there.name}.update.tar"
        left_out = await saved(monkeypatch, engine_host, ["app:1", "base:1"], update, there)
        assert left_out > LARGE
        assert stat.S_IMODE(update.stat().st_mode) == 0o600
        assert LARGE < update.stat().st_size < LARGE + (100 << 10)
        loaded = dom0(other, "load", str(update))
        app, base = sorted(loaded, key=lambda image: image["names"])
        assert (app["names"], app["layers_here"], app["layers"]) == (["app:1"], 2, 3)
        assert (base["names"], base["layers_here"]) == (["base:1"], 2)
        assert other.docker("run", "--rm", "--network=none", "app:1", "wc", "-c", "/app-1").stdout.split()[0] == str(
            LARGE
        )
        assert not any("dom0-loaded" in name for name in names(other))
        other.docker("image", "rm", "app:1")


async def test_a_layer_that_is_missing_is_named_and_no_name_moves(
    engine_host: Host, other: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, update = tmp_path / "base.tar", tmp_path / "update.tar"
    build(engine_host, tmp_path / "context", "base:1")
    build(engine_host, tmp_path / "context", "alone:1")
    build(engine_host, tmp_path / "context", "app:1", base="base:1")
    engine_host.docker("save", f"--output={whole}", "base:1")
    await saved(monkeypatch, engine_host, ["alone:1", "app:1"], update, whole)
    other.docker("tag", "busybox:test", "app:1")
    before = names(other)
    lacking = {layer["digest"] for layer in _layers(await read_there(whole, HERE))}
    with pytest.raises(CommandFailed, match="neither in it nor here; nothing is loaded") as refused:
        dom0(other, "load", str(update))
    assert any(digest in refused.value.stderr for digest in lacking)
    assert "dom0 image ls --layers --json" in refused.value.stderr
    assert names(other) == before
    other.docker("load", f"--input={whole}")  # a complete archive, which docker alone takes
    assert len(dom0(other, "load", str(update))) == 2
    assert id_of(other, "app:1") not in {line.split()[1] for line in before}


def _layers(images: Any) -> list[dict[str, str]]:
    return [{"digest": layer.digest} for image in images for layer in image.layers]


async def test_a_complete_archive_loads_and_a_name_moves(engine_host: Host, other: Host, tmp_path: Path) -> None:
    file = tmp_path / "images.tar"
    build(engine_host, tmp_path / "context", "app:1")
    engine_host.docker("tag", "app:1", "registry.example:5000/team/app:2")
    engine_host.docker("save", f"--output={file}", "app:1", "registry.example:5000/team/app:2")
    other.docker("tag", "busybox:test", "app:1")
    (loaded,) = dom0(other, "load", str(file))
    assert loaded["names"] == ["app:1", "registry.example:5000/team/app:2"]
    assert id_of(other, "app:1") == id_of(other, "registry.example:5000/team/app:2") == loaded["id"]
    killed = f"dom0-loaded:{loaded['id'].removeprefix('sha256:')[:12]}"
    other.docker("tag", loaded["id"], killed)  # as a kill leaves it
    dom0(other, "load", str(file))
    assert not any("dom0-loaded" in name for name in names(other))
    (again,) = dom0(other, "load", str(file))
    assert (again["id"], again["layers_here"]) == (loaded["id"], loaded["layers"])


def test_a_damaged_archive_changes_nothing(engine_host: Host, tmp_path: Path) -> None:
    file = tmp_path / "images.tar"
    engine_host.docker("save", f"--output={file}", "busybox:test")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    before = names(engine_host)
    with pytest.raises(CommandFailed, match="is damaged"):
        dom0(engine_host, "load", str(file))
    assert names(engine_host) == before
