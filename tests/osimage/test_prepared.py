"""Images that a first boot only unpacks, beside what an Engine makes of them when it loads them."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.host import uki
from dom0.osimage import disk_image, media, prepared
from dom0.osimage.boot_contract import BootContract
from dom0.package_data import os_recipe
from dom0.run import CommandFailed
from dom0.testing import busybox
from dom0.testing.fake_uki import make_uki
from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.namespaces import Child

PROGRAM = os_recipe() / "tree/usr/lib/dom0/prepared"
# Gone, replaced, two names of one file, other owners and modes, an attribute, a device: what a layer can hold.
CHANGES = """
rm /etc/group /tmp/gone; rm -r /root; mkdir -m 750 /root; echo new >/root/new; ln /root/new /root/same
echo mine >/etc/mine; chown 7:8 /etc/mine; chmod 4751 /etc/mine; ln -s nowhere /etc/link; mknod /etc/device c 1 7
"""
LOOKED_AT = (
    "ls -lan /root /bin/busybox; ls -ln /tmp /etc/mine /etc/device | sed 's/ -> .*//'; ls /etc; readlink /etc/link; "
    "cat /root/same; stat -c '%n %h %Y' /root /root/new"
)


@pytest.fixture(scope="module")
def medium(session_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `dom0/image.tar` and what was prepared of it; large enough to be cut off. A layer is compressed."""
    place = tmp_path_factory.mktemp("medium")
    layer = place / "layer.tar"
    layer.write_bytes(busybox.layer())
    with tarfile.open(layer, "a") as files:
        for name, size in (("root/old", 3), ("tmp/gone", 3), ("var/large", 64 << 20)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = size, 1_700_000_000
            files.addfile(entry, io.BytesIO(b"x" * size))
    session_host.docker("import", str(layer), "prepared:below")
    session_host.docker("run", "--name", "prepared", "prepared:below", "sh", "-c", CHANGES)
    session_host.docker("commit", "prepared", "dom0:latest")
    (place / "dom0").mkdir()
    session_host.docker("save", "--output", str(layer), "dom0:latest", "prepared:below")
    session_host.docker("rm", "prepared")
    session_host.docker("image", "rm", "dom0:latest", "prepared:below")
    with Host(config=CONTAINERD_STORE) as compressing:
        compressing.docker("load", "--input", str(layer))
        compressing.docker("run", "--name", "prepared", "dom0:latest", "sh", "-c", "echo more >/etc/more")
        compressing.docker("commit", "prepared", "dom0:latest")
        compressing.docker("save", "--output", str(place / "dom0/image.tar"), "dom0:latest", "prepared:below")
    (place / "scratch").mkdir()
    asyncio.run(prepared.prepare(place / "dom0/image.tar", place / "scratch")).rename(place / "dom0/image.store")
    return place


class Machine:
    """The base OS's programs where an Engine's store is empty, before that Engine starts."""

    def __init__(self, host: Host, medium: Path) -> None:
        self.host, self.medium = host, medium
        self.programs = host.root / "programs"
        self.programs.mkdir()
        subprocess.run(["busybox", "--install", "-s", str(self.programs)], check=True)
        for program in ("/usr/bin/containerd", "/usr/bin/setfattr"):
            (self.programs / Path(program).name).unlink(missing_ok=True)
            (self.programs / Path(program).name).symlink_to(program)
        self.docker = host.path("/var/lib/docker")
        self.empty()

    def empty(self) -> None:
        if self.host.engine_is_running:
            self.host.stop_engine()
        self.host.run(["sh", "-c", "rm -rf /var/lib/docker/* /var/lib/docker/.prepared; mkdir -p /run/dom0/os"])
        self.host.path("/run/dom0/os/contract").write_text("image=dom0/image.tar\n")

    def start(self) -> Child:
        env = {"DOM0_MEDIUM": str(self.medium), "DOM0_PATH": str(self.programs)}
        return self.host.popen(["busybox", "sh", str(PROGRAM)], env=env)

    def boot(self) -> None:
        assert self.start().wait(120) == 0

    def marks(self, stage: str) -> list[str]:
        """Their texts, in the record of this boot."""
        record = self.host.path("/run/dom0/boot.record")
        marks = [line.split("\t") for line in record.read_text().splitlines()] if record.exists() else []
        return [text for _, marked, text in marks if marked == stage]

    def last_words(self) -> str:
        """Of a boot that is made now, on a console that keeps only them."""
        console = "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; : >/dev/console"
        self.host.run(["sh", "-c", console])
        self.boot()
        return self.host.path("/dev/console").read_text()

    def told(self) -> str:
        """IDs of the images, and files as a container sees them."""
        self.host.start_engine()
        ids = self.host.docker("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").stdout
        files = self.host.docker("run", "--rm", "--network", "none", "dom0:latest", "sh", "-c", LOOKED_AT).stdout
        return f"{sorted(line for line in ids.splitlines() if 'busybox' not in line)}\n{files}"


@pytest.fixture
def machine(fresh_host: Callable[..., Host], medium: Path) -> Machine:
    return Machine(fresh_host(config=CONTAINERD_STORE), medium)


def test_the_engine_finds_what_it_would_have_loaded(machine: Machine, medium: Path) -> None:
    machine.host.start_engine()
    machine.host.docker("load", "--input", str(medium / "dom0/image.tar"))
    machine.host.stop_engine()
    loaded = machine.told()
    machine.empty()
    machine.boot()
    assert machine.told() == loaded
    assert machine.marks("images") == ["unpacked"]
    assert machine.marks("problem") == []
    archive = medium / "dom0/image.tar"
    stamp = f"{archive.stat().st_size} {int(archive.stat().st_mtime)} "
    assert machine.host.path("/var/lib/dom0/launcher/medium").read_text().startswith(stamp)
    saved = machine.host.run(["sh", "-c", "docker save dom0:latest | docker load"]).stdout  # all layers are there
    assert "dom0:latest" in saved
    machine.host.docker("image", "rm", "dom0:latest", "prepared:below")


@pytest.mark.parametrize("file", ["image.tar", "image.store"])
def test_damage_leaves_the_store_empty_and_is_said(file: str, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "dom0").mkdir()
    for name in ("image.tar", "image.store"):
        content = bytearray((machine.medium / "dom0" / name).read_bytes())
        if name == file:
            at = content.index(b"xxxxxxxx" if name == "image.tar" else b"moby")  # in a layer, or what containerd wrote
            content[at] ^= 1
        (tmp_path / "dom0" / name).write_bytes(content)
    machine.medium = tmp_path
    machine.boot()
    assert list(machine.docker.iterdir()) == []
    assert len(machine.marks("problem")) == 1


def test_one_that_was_cut_off_begins_anew(machine: Machine) -> None:
    process = machine.start()
    half = machine.docker / ".prepared/daemon"
    deadline = time.monotonic() + 60
    while not half.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # with its tar
    process.wait(30)
    assert not (machine.docker / "containerd").exists()
    machine.boot()
    assert "dom0:latest" in machine.told()
    assert machine.marks("problem") == []


def test_one_that_was_cut_off_at_its_last_step_begins_anew(machine: Machine) -> None:
    (machine.docker / ".prepared").mkdir()
    (machine.docker / "containerd").mkdir()
    machine.boot()
    assert (machine.docker / "containerd/daemon").is_dir()
    assert not (machine.docker / ".prepared").exists()


def test_too_little_space_is_seen_before(machine: Machine) -> None:
    archive, store = (machine.medium / "dom0" / name for name in ("image.tar", "image.store"))
    size = archive.stat().st_size * 5 // 2 + store.stat().st_size  # room for all, were nothing of it there twice
    source = "a-device-with-a-name-that-takes-a-line-of-its-own"
    machine.host.run(["mount", "-t", "tmpfs", "-o", f"size={size}", source, "/var/lib/docker"])
    try:
        assert "is loaded by the Engine: there is too little space to unpack it before" in machine.last_words()
    finally:
        machine.host.run(["umount", "/var/lib/docker"])


def test_what_cannot_be_put_in_its_place_is_not_called_so(machine: Machine) -> None:
    machine.host.run(["sh", "-c", "mkdir -p /var/lib/dom0; touch /var/lib/dom0/launcher"])
    assert "cannot be put in its place" in machine.last_words()
    assert not (machine.docker / "containerd/daemon").exists()
    assert machine.marks("images") == []


def test_a_store_that_is_used_is_left_alone(machine: Machine) -> None:
    (machine.docker / "volumes").mkdir()
    machine.boot()
    assert [path.name for path in machine.docker.iterdir()] == ["volumes"]


def test_another_containerd_loads_the_archive_itself(machine: Machine) -> None:
    other = machine.programs / "containerd"
    other.unlink()
    other.write_text("#!/bin/sh\necho containerd of tomorrow\n")
    other.chmod(0o755)
    machine.boot()
    assert list(machine.docker.iterdir()) == []
    assert machine.marks("problem") == []


@pytest.mark.skipif(not shutil.which("grub-mkimage"), reason="needs grub-mkimage")
def test_a_disk_has_room_for_an_archive_and_none_for_what_was_prepared(medium: Path) -> None:
    work = medium / "work"
    work.mkdir()
    file = work / "dom0-os.efi"
    archive = medium / "dom0/image.tar"
    initrd = 64 << 20  # more than fits on the smallest disk, three times
    for _ in range(2):
        file.write_bytes(make_uki(initrd=bytes(initrd)))
        files = asyncio.run(media.disk_files(uki.read(file), BootContract(image=archive)))
        taken = sum(one.size * (3 if one.name.startswith("dom0/a/") else 1) for one in files)
        initrd += -taken % (1 << 20) // 3  # then nothing of the last MiB is left
    least = disk_image.least_size(files) >> 20
    given = (
        sys.executable,
        "-m",
        "dom0",
        "os",
        "write",
        str(work / "disk"),
        "--os",
        str(file),
        "--image",
        str(archive),
        "--yes",
    )
    written = subprocess.run([*given, "--size", f"{least}M"], check=True, capture_output=True, text=True)
    assert "there is no room for that" in written.stdout
    listed = ["mdir", "-b", "-i", f"{work / 'disk'}@@2M", "::dom0"]
    assert "image.store" not in subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    subprocess.run(given, check=True, capture_output=True)
    assert "image.store" in subprocess.run(listed, check=True, capture_output=True, text=True).stdout


def test_an_archive_without_a_dom0_is_not_prepared(session_host: Host, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    session_host.docker("save", "--output", str(archive), busybox.IMAGE)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(CommandFailed, match="dom0:latest"):
        asyncio.run(prepared.prepare(archive, tmp_path / "scratch"))


def test_layers_with_the_same_names_of_files_are_told_apart(session_host: Host, tmp_path: Path) -> None:
    session_host.docker("tag", busybox.IMAGE, "dom0:latest")
    for text in ("one", "two", "three"):
        session_host.docker("run", "--name", "prepared", "dom0:latest", "sh", "-c", f"echo {text} >/täxt")
        session_host.docker("commit", "prepared", "dom0:latest")
        session_host.docker("rm", "prepared")
    archive = tmp_path / "image.tar"
    session_host.docker("save", "--output", str(archive), "dom0:latest")
    session_host.docker("image", "rm", "dom0:latest")
    (tmp_path / "scratch").mkdir()
    with tarfile.open(asyncio.run(prepared.prepare(archive, tmp_path / "scratch"))) as store:
        snapshots = store.extractfile("snapshots")
        assert snapshots is not None
        layers = [line.split()[1] for line in snapshots.read().decode().splitlines()]
    assert len({*layers} - {"-"}) == 4
