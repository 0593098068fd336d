"""`dom0 image save`: one file with all that a machine needs."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from dom0.run import CommandFailed
from dom0.testing.hosts import Host
from dom0.testing.machines import Machine

PROJECT = """
services:
  web: {image: "busybox:test", command: [sleep, "9"]}
  job: {image: "nobody/has-it:1"}
"""


@pytest.fixture
def machine(engine_host: Host, chain_images: None, tmp_path: Path) -> Machine:
    return Machine(engine_host, tmp_path)


def test_the_file_holds_the_machine_its_login_and_its_services(machine: Machine, tmp_path: Path) -> None:
    machine.write(f"{PROJECT}x-dom0:\n  home: {{}}\n")
    machine.dom0("build")
    said = machine.dom0("image", "save", "dom0.tar", "--json")
    saved = json.loads(said.stdout)
    assert (saved["file"], saved["size"]) == ("dom0.tar", (tmp_path / "dom0.tar").stat().st_size)
    assert set(saved["images"]) == {"dom0:latest", "dom0-base", "dom0-rootfs", "busybox:test", "dom0-restic"}
    assert "nobody/has-it:1: not on this host" in said.stderr
    with tarfile.open(tmp_path / "dom0.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert {tag for image in manifest for tag in image["RepoTags"]} == {
        "dom0:latest",
        "dom0-base:latest",
        "dom0-rootfs:latest",
        "busybox:test",
        "dom0-restic:latest",
    }
    assert not list(tmp_path.glob(".*"))


def test_without_a_home_there_is_nothing_to_back_up(machine: Machine, tmp_path: Path) -> None:
    machine.write(PROJECT)
    machine.dom0("build")
    said = machine.dom0("image", "save", "dom0.tar").stdout
    assert ("dom0-restic" in said, "dom0-rootfs" in said) == (False, True)


def test_a_rootfs_that_shares_nothing_with_the_machine_stays_here(machine: Machine) -> None:
    machine.write(PROJECT)
    machine.dom0("build")
    own = machine.image_id("dom0-rootfs")
    machine.docker("tag", "busybox:test", "dom0-rootfs")
    try:
        assert "dom0-rootfs" not in machine.dom0("image", "save", "dom0.tar").stdout
    finally:
        machine.docker("tag", own, "dom0-rootfs")


def test_without_a_machine_it_says_how_to_make_one_and_writes_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.docker("tag", "busybox:test", "dom0:latest")
    with pytest.raises(CommandFailed, match="is not the image of a machine"):
        machine.dom0("image", "save", "dom0.tar")
    assert not (tmp_path / "dom0.tar").exists()


def test_what_another_machine_has_is_left_out(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    stick = tmp_path_factory.mktemp("stick")
    there, update = stick / "dom0.tar", stick / "update.tar"
    machine.write(PROJECT)
    machine.dom0("build")
    machine.dom0("image", "save", str(there))
    machine.write(PROJECT.replace('"9"', '"10"'))
    machine.dom0("build")
    said = machine.dom0("image", "save", "--without-layers-of", str(there), str(update), "--json")
    saved = json.loads(said.stdout)
    whole = there.stat().st_size
    assert saved["left_out"] > 0.99 * whole
    assert saved["size"] == update.stat().st_size < 0.01 * whole
    loaded = json.loads(machine.dom0("image", "load", str(update), "--json").stdout)
    assert {name for image in loaded for name in image["names"]} == {
        "dom0:latest",
        "dom0-base:latest",
        "dom0-rootfs:latest",
        "busybox:test",
    }
    with pytest.raises(CommandFailed, match="is neither an archive of images nor a list of layers"):
        machine.dom0(
            "image", "save", "--without-layers-of", str(machine.project / "compose.yaml"), str(stick / "other.tar")
        )
    assert sorted(path.name for path in stick.iterdir()) == ["dom0.tar", "update.tar"]
