"""Backups of the home volume. restic does the work, in a container beside the volume; docker carries the bytes.

Theory of operation. The home is a Docker volume, so only a container on the Engine's host sees it: every command here
starts one worker container with the volume and runs restic in it. The worker reads its standard input and
ends when that closes, so it cannot outlive us however we end; its fixed name lets one home command run at a time.

A backup is a restic repository: a directory of the Engine's host that grows by what changed, or one file, which is a
tar of a repository with one snapshot (`tar x` and restic read it without dom0). What a restore brings is checked in its
repository and verified file by file in a new volume; only then the two volumes' directories change places, in one
step of the kernel. The old home stays, in the volume that the new one came in.

Touches only the volume it is told of and those it made. Nothing here prints.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0 import temporary
from dom0.engine.bodies import VolumeBody
from dom0.engine.protocol import Engine, find_container
from dom0.errors import Busy, Dom0Error, NotFound
from dom0.images import docker_cli
from dom0.images.names import find
from dom0.names import HOME, ROOTFS_IMAGE
from dom0.plan import labels
from dom0.plan.desired import Role
from dom0.run import Output, capture, transfer, while_listening

WORKER = "dom0-home-worker"
IMAGE = "dom0-restic"

_HOME = "/home-volume"  # in the worker, and so in every snapshot
_REPOSITORY = "/repository"
_VOLUMES = "/volumes"
_LABELS = ("--label", f"{labels.ROLE}={Role.HOME_WORKER}", "--label", f"{labels.PROJECT}=")
_STDIN = "/dev/stdin"  # restic reads the password there: it is no argument and no variable that others can see
# Exit codes of restic 0.17 and later. Source: restic's manual, "Scripting".
_INCOMPLETE, _NO_REPOSITORY, _WRONG_PASSWORD = 3, 10, 12
_PART = re.compile(
    r"repository(/(config|(keys|locks|snapshots|index)(/[0-9a-f]{64})?|data(/[0-9a-f]{2}(/[0-9a-f]{64})?)?))?"
)


Document = TypeVar("Document")


class HomeVolume(msgspec.Struct, frozen=True):
    volume: str
    mountpoint: str  # on the Engine's host
    project: str


class Repository(msgspec.Struct, frozen=True):
    """`path` is a file, or with `directory` a directory of the Engine's host. No password: it is not encrypted."""

    path: Path
    directory: bool
    password: str | None

    def mounts(self, *, writable: bool) -> list[str]:
        if not self.directory:
            return []
        return ["--mount", f"type=bind,source={self.path},target={_REPOSITORY}{'' if writable else ',readonly'}"]


class HomeSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    time: str
    hostname: str = ""


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup made. `complete` is false if files could not be read, as those that vanished meanwhile."""

    snapshot: str
    files: int
    size: int  # bytes of all files
    added: int  # bytes that the repository grew by
    complete: bool


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    volume: str  # has the restored home now
    kept: str  # volume that has the home from before
    users: tuple[str, ...]  # containers that still see the home from before, until they are restarted


class Homes(msgspec.Struct, frozen=True, kw_only=True):
    home: str  # volume
    kept: tuple[str, ...]  # volumes that restores left: a home from before, or what an interrupted restore had brought
    snapshots: tuple[HomeSnapshot, ...]  # on this machine, newest first


class _Summary(msgspec.Struct):
    message_type: str
    snapshot_id: str = ""
    total_files_processed: int = 0
    total_bytes_processed: int = 0
    data_added: int = 0


async def find_home(engine: Engine) -> HomeVolume:
    """The machine's home. Raises NotFound."""
    hint = "it comes with dom0 up, where compose.yaml says `home: {}` below x-dom0"
    try:
        container = await engine.container(HOME)
    except NotFound as error:
        raise NotFound(f"home: there is no container {HOME}", hint=hint) from error
    volumes = [mount for mount in container.mounts if mount.type == "volume"]
    if not volumes:
        raise NotFound(f"{HOME}: mounts no volume", hint=hint)
    return HomeVolume(volumes[0].name, volumes[0].source, container.labels.get(labels.PROJECT, ""))


async def kept_homes(engine: Engine, home: HomeVolume) -> tuple[str, ...]:
    return tuple(
        sorted(volume.name for volume in await engine.volumes() if volume.labels.get(labels.HOME) == home.volume)
    )


async def back_up(engine: Engine, home: HomeVolume, repository: Repository) -> Backup:
    """Add a snapshot of the home to `repository`, check it, and write it where it belongs. Raises Dom0Error."""
    await prepare_image(engine)
    hostname = (await engine.info()).name
    mounts = ["--mount", f"type=volume,source={home.volume},target={_HOME},readonly"]
    async with _worker(engine, [*mounts, *repository.mounts(writable=True)]):
        looked = await _restic(repository, "cat", "config", "--no-lock", accept=[_NO_REPOSITORY])
        if looked.code == _NO_REPOSITORY:  # that of a file is always made anew
            await _restic(repository, "init")
        made = await _restic(repository, "backup", "--json", "--host", hostname, _HOME, accept=[_INCOMPLETE])
        summary = _decode(made.stdout.strip().splitlines()[-1], _Summary)
        if repository.directory:
            await _restic(repository, "check")
        else:
            await _restic(repository, "check", "--read-data")
            await _write_file(repository.path)
    return Backup(
        snapshot=summary.snapshot_id,
        files=summary.total_files_processed,
        size=summary.total_bytes_processed,
        added=summary.data_added,
        complete=made.code != _INCOMPLETE,
    )


async def snapshots(engine: Engine, repository: Repository) -> tuple[HomeSnapshot, ...]:
    """Newest first. Raises Dom0Error."""
    await prepare_image(engine)
    async with _worker(engine, repository.mounts(writable=False)):
        await _bring_file(repository)
        output = await _restic(repository, "snapshots", "--json", "--no-lock", "--path", _HOME)
    found = _decode(output.stdout, list[HomeSnapshot])
    return tuple(sorted(found, key=lambda snapshot: snapshot.time, reverse=True))


async def restore(engine: Engine, home: HomeVolume, repository: Repository, snapshot: str, *, kept: str) -> Restored:
    """Put `snapshot` in the place of the home; what was there is then in the volume `kept`. Raises Dom0Error.

    Until the moment of exchange the home is not touched, and a failure removes what was brought.
    """
    await prepare_image(engine)
    volume = await engine.create_volume(
        kept, VolumeBody(labels={labels.HOME: home.volume, labels.PROJECT: home.project})
    )
    mounts = ["--mount", f"type=volume,source={volume.name},target={_HOME}"]
    try:
        async with _worker(engine, [*mounts, *repository.mounts(writable=False)]):
            await _bring_file(repository)
            await _restic(repository, "check", "--no-lock", *([] if repository.directory else ["--read-data"]))
            options = ["--no-lock", "--path", _HOME, "--include", _HOME, "--target", "/", "--verify"]
            await _restic(repository, "restore", *options, snapshot)
        await _exchange(home, volume.name, volume.mountpoint)
    except BaseException:
        await asyncio.shield(engine.remove_volume(volume.name))
        raise
    listed = await engine.containers()
    found = await asyncio.gather(*(engine.container(one.id) for one in listed), return_exceptions=True)
    running = [one for one in found if not isinstance(one, BaseException) and one.running]
    users = sorted(one.name for one in running if any(mount.name == home.volume for mount in one.mounts))
    return Restored(volume=home.volume, kept=volume.name, users=tuple(users))


async def restart_users(engine: Engine, home: HomeVolume, restored: Restored) -> Restored:
    """Restart this machine's own containers that have the home; the others stay in `users`."""
    containers = [await engine.container(name) for name in restored.users]
    ours = [one for one in containers if home.project and one.labels.get(labels.PROJECT) == home.project]
    for container in sorted(
        ours, key=lambda one: one.labels.get(labels.ROLE) == Role.SSHD
    ):  # we may be a login in there
        await capture(["docker", "restart", container.id])  # one call of the Engine: it ends even if we do
    others = tuple(one.name for one in containers if one not in ours)
    return msgspec.structs.replace(restored, users=others)


async def prepare_image(engine: Engine) -> None:
    """The worker's image: this host's Debian and this host's restic. Made once, without a network."""
    if await find(engine, IMAGE):
        return
    restic = shutil.which("restic")
    if restic is None:
        raise Dom0Error("restic: is not installed on this host", hint="apt-get install restic")
    if not await find(engine, ROOTFS_IMAGE):
        raise Dom0Error(f"{ROOTFS_IMAGE}: there is no such image", hint="make it: dom0 image build")
    with temporary.directory("home") as context:
        await asyncio.to_thread(shutil.copy, restic, context / "restic")
        (context / "Dockerfile").write_text(f"FROM {ROOTFS_IMAGE}\nCOPY restic /usr/bin/restic\n")
        await docker_cli.build(docker_cli.DockerBuild(IMAGE, context, IMAGE), docker_cli.silent)


@asynccontextmanager
async def _worker(engine: Engine, mounts: Sequence[str]) -> AsyncIterator[None]:
    """The container in which restic runs during the block. Raises Busy if there is one."""
    if await find_container(engine, WORKER):
        raise Busy("home: another dom0 home command is at work", hint=f"wait for it, or: docker rm -f {WORKER}")
    argv = ["docker", "run", "--rm", "--interactive", "--name", WORKER, "--network", "none"]
    argv += [*_LABELS, *mounts, IMAGE, "cat"]
    async with while_listening(argv):
        yield


async def _restic(repository: Repository, *arguments: str, accept: Sequence[int] = ()) -> Output:
    """Run restic in the worker. Raises Dom0Error with restic's own words."""
    secret = ["--insecure-no-password"] if repository.password is None else ["--password-file", _STDIN]
    argv = ["docker", "exec", "--interactive", WORKER, "restic", "--repo", _REPOSITORY, "--no-cache", *secret]
    password = (repository.password or "").encode() + b"\n"
    output = await capture([*argv, *arguments], stdin=password, check=False)
    if output.code == _WRONG_PASSWORD:
        raise Dom0Error(f"{repository.path}: the password is wrong", hint="it is the one the backup was made with")
    if output.code == _NO_REPOSITORY and _NO_REPOSITORY not in accept:
        raise Dom0Error(f"{repository.path}: is no backup", hint="dom0 home backup makes one")
    if output.code != 0 and output.code not in accept:
        said = "\n".join(output.stderr.strip().splitlines()[-5:])
        raise Dom0Error(f"{repository.path}: restic {arguments[0]} failed with exit code {output.code}\n{said}")
    return output


async def _write_file(path: Path) -> None:
    """The repository as a tar. The file has its name only when all of it is on disk."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            await transfer(["docker", "cp", f"{WORKER}:{_REPOSITORY}", "-"], stdout=file)
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


async def _bring_file(repository: Repository) -> None:
    if repository.directory:
        return
    await asyncio.to_thread(check_file, repository.path)
    with repository.path.open("rb") as file:
        await transfer(["docker", "cp", "-", f"{WORKER}:/"], stdin=file)


def check_file(path: Path) -> None:
    """Raises Dom0Error unless the file is a tar of exactly the files that a repository has: it is unpacked at `/`."""
    hint = "give a file that dom0 home backup made"
    try:
        with tarfile.open(path, "r:") as tar:
            for part in tar:
                if not (part.isfile() or part.isdir()) or not _PART.fullmatch(part.name):
                    raise Dom0Error(f"{path}: holds {part.name!r}, which is no part of a backup", hint=hint)
    except (tarfile.TarError, EOFError) as error:
        raise Dom0Error(f"{path}: is no backup: {error}", hint=hint) from error


async def _exchange(home: HomeVolume, volume: str, mountpoint: str) -> None:
    """Let the directories of two volumes change places, at once. Running containers keep the one they have."""
    ours, theirs = Path(home.mountpoint), Path(mountpoint)
    root = ours.parent.parent
    if ours != root / home.volume / ours.name or theirs != root / volume / ours.name:
        raise Dom0Error(
            f"{home.volume}: is kept at {ours}, not beside other volumes: it cannot be replaced at once",
            hint="restore by hand: tar x the file, then restic restore",
        )
    argv = ["docker", "run", "--rm", "--network", "none", *_LABELS]
    argv += ["--mount", f"type=bind,source={root},target={_VOLUMES}", IMAGE]
    argv += ["mv", "--exchange", "--no-target-directory"]
    argv += [f"{_VOLUMES}/{home.volume}/{ours.name}", f"{_VOLUMES}/{volume}/{ours.name}"]
    await capture(argv)


def _decode(text: str, document: type[Document]) -> Document:
    try:
        return msgspec.json.decode(text, type=document)
    except msgspec.DecodeError as error:
        raise Dom0Error(f"restic: its answer is not understood: {error}", hint=f"its image is {IMAGE}") from error
