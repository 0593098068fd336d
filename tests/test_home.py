"""Backups of the home on a real Engine, with a real restic."""

from __future__ import annotations

import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dom0 import home
from dom0.backup import restic
from dom0.engine.docker import DockerEngine
from dom0.errors import Busy, Dom0Error, NotFound
from dom0.names import ROOTFS_IMAGE
from dom0.run import while_listening
from dom0.testing import api, busybox
from dom0.testing.debian_like import debian_like
from dom0.testing.hosts import Host


@pytest.fixture(scope="module")
def debian_layer() -> bytes:
    return debian_like()


@pytest.fixture
def debian_host(engine_host: Host, debian_layer: bytes) -> Host:
    """The stand-in takes the name of the real image; `engine_host` gives it back afterwards."""
    api.import_image(engine_host.socket, ROOTFS_IMAGE, debian_layer)
    return engine_host


@pytest.fixture
async def engine(debian_host: Host, engine_host: Host, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DockerEngine]:
    monkeypatch.setenv("DOCKER_HOST", engine_host.docker_host)
    engine = await DockerEngine.connect()
    yield engine
    await engine.close()


@pytest.fixture
def machine_home(engine: DockerEngine, engine_host: Host) -> Host:
    """A home volume with a file of user 1000, and its container."""
    labels = ["--label", "dom0.project=box", "--label", "dom0.role=home"]
    engine_host.docker(
        "create", "--name", "home-volume", *labels, "-v", "home-volume:/home/dom0", busybox.IMAGE, "true"
    )
    write(engine_host, "note", "before")
    run_in_home(engine_host, "chown -R 1000:1000 /home/dom0 && chmod 750 /home/dom0")
    return engine_host


def run_in_home(host: Host, script: str) -> str:
    return host.docker("run", "--rm", "--volumes-from", "home-volume", busybox.IMAGE, "sh", "-c", script).stdout


def write(host: Host, name: str, text: str) -> None:
    run_in_home(host, f"printf %s {text} > /home/dom0/{name}")


def read(host: Host, name: str) -> str:
    return run_in_home(host, f"cat /home/dom0/{name}")


def file_at(path: Path, password: str = "secret") -> restic.Repository:  # noqa: S107 -- nobody's password
    return restic.Repository(str(path), is_file=True, password=password)


def directory_at(path: Path) -> restic.Repository:
    path.mkdir()
    return restic.Repository(str(path), password=None)


async def test_a_restored_file_brings_content_owner_and_mode_back(
    engine: DockerEngine, machine_home: Host, tmp_path: Path
) -> None:
    here = await home.find_home(engine)
    made, _ = await restic.back_up(engine, here, file_at(tmp_path / "home.backup"))
    write(machine_home, "note", "after")
    restored = await restic.restore(engine, here, file_at(tmp_path / "home.backup"), "latest", kept="kept")
    assert (made.files, made.complete) == (1, True)
    assert read(machine_home, "note") == "before"
    assert run_in_home(machine_home, "stat -c %u:%a /home/dom0 /home/dom0/note") == "1000:750\n1000:644\n"
    assert restored == restic.Restored(volume="home-volume", kept="kept", users=())
    kept = machine_home.docker("run", "--rm", "-v", "kept:/kept", busybox.IMAGE, "cat", "/kept/note").stdout
    assert kept == "after"
    assert await restic.kept_volumes(engine, here.volume) == ("kept",)


async def test_a_directory_takes_several_snapshots_and_gives_each_back(
    engine: DockerEngine, machine_home: Host, tmp_path: Path
) -> None:
    here, repository = await home.find_home(engine), directory_at(tmp_path / "repository")
    first, _ = await restic.back_up(engine, here, repository)
    write(machine_home, "note", "after")
    second, _ = await restic.back_up(engine, here, repository)
    assert [one.id for one in await restic.snapshots(engine, repository, here.path, here.worker)] == [
        second.snapshot,
        first.snapshot,
    ]
    await restic.restore(engine, here, repository, first.snapshot, kept="kept")
    assert read(machine_home, "note") == "before"


async def test_a_wrong_password_changes_nothing_and_leaves_nothing(
    engine: DockerEngine, machine_home: Host, tmp_path: Path
) -> None:
    here = await home.find_home(engine)
    await restic.back_up(engine, here, file_at(tmp_path / "home.backup"))
    with pytest.raises(Dom0Error, match="the password is wrong"):
        await restic.restore(engine, here, file_at(tmp_path / "home.backup", "guess"), "latest", kept="kept")
    assert [volume.name for volume in await engine.volumes()] == ["home-volume"]
    assert read(machine_home, "note") == "before"


async def test_a_damaged_backup_is_noticed_before_anything_is_replaced(
    engine: DockerEngine, machine_home: Host, tmp_path: Path
) -> None:
    here, path = await home.find_home(engine), tmp_path / "home.backup"
    await restic.back_up(engine, here, file_at(path))
    with tarfile.open(path) as tar:
        pack = next(part for part in tar if part.isfile() and "/data/" in part.name)
    damaged = bytearray(path.read_bytes())
    damaged[pack.offset_data + pack.size // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(Dom0Error, match="restic check failed"):
        await restic.restore(engine, here, file_at(path), "latest", kept="kept")
    assert [volume.name for volume in await engine.volumes()] == ["home-volume"]


async def test_only_running_containers_with_the_home_are_named_as_its_users(
    engine: DockerEngine, machine_home: Host, tmp_path: Path
) -> None:
    machine_home.docker("run", "-d", "--name", "other", busybox.IMAGE, "sleep", "600")
    machine_home.docker("run", "-d", "--name", "guest", "--volumes-from", "home-volume", busybox.IMAGE, "sleep", "600")
    labels = ["--label", "dom0.project=box"]
    machine_home.docker(
        "run", "-d", "--name", "ours", "--stop-timeout", "0", *labels, "--volumes-from", "home-volume", busybox.IMAGE,
        "sleep", "600",
    )  # fmt: skip
    here, repository = await home.find_home(engine), directory_at(tmp_path / "repository")
    await restic.back_up(engine, here, repository)
    write(machine_home, "note", "after")
    restored = await restic.restore(engine, here, repository, "latest", kept="kept")
    assert restored.users == ("guest", "ours")
    assert (await restic.restart_users(engine, here, restored)).users == ("guest",)
    seen = {name: machine_home.docker("exec", name, "cat", "/home/dom0/note").stdout for name in ("guest", "ours")}
    assert seen == {"guest": "after", "ours": "before"}


async def test_one_home_command_runs_at_a_time(engine: DockerEngine, machine_home: Host, tmp_path: Path) -> None:
    here = await home.find_home(engine)
    worker = ["docker", "run", "--rm", "-i", "--name", home.WORKER, busybox.IMAGE, "cat"]
    async with while_listening(worker):
        with pytest.raises(Busy):
            await restic.back_up(engine, here, file_at(tmp_path / "home.backup"))
    assert not (tmp_path / "home.backup").exists()


async def test_a_machine_without_a_home_says_how_to_get_one(engine: DockerEngine) -> None:
    with pytest.raises(NotFound, match="no container home-volume") as refused:
        await home.find_home(engine)
    assert "x-dom0" in refused.value.hint


def tar_with(path: Path, part: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.addfile(part)
    return path


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    part = tarfile.TarInfo(name)
    part.type, part.linkname = kind, "/usr/bin/restic"
    return part


@pytest.mark.parametrize(
    "part",
    [
        tarfile.TarInfo("usr/bin/restic"),
        tarfile.TarInfo("repository/../usr/bin/restic"),
        tarfile.TarInfo("/repository/config"),
        tarfile.TarInfo("repository/data/00/short"),
        link("repository/config", tarfile.SYMTYPE),
        link("repository/config", tarfile.LNKTYPE),
        link("repository/config", tarfile.FIFOTYPE),
    ],
    ids=["another file", "upwards", "absolute", "not restic's", "symlink", "hard link", "pipe"],
)
def test_a_file_with_anything_but_a_repository_is_refused_before_it_is_unpacked(
    tmp_path: Path, part: tarfile.TarInfo
) -> None:
    with pytest.raises(Dom0Error, match="no part of a backup"):
        restic.check_file(tar_with(tmp_path / "hostile", part))


@pytest.mark.parametrize("content", [b"", b"no tar at all", b"\0" * 100])
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Dom0Error, match="is no backup"):
        restic.check_file(path)
