"""restic, in a container beside a volume; docker carries the bytes.

Theory of operation. Only a container on the Engine's host sees a volume: whoever backs one up starts a worker container
with the volume and runs restic in it. The worker reads its standard input and ends when that closes, so it
cannot outlive us however we end; its fixed name lets one of us at a time work on a volume. Its host name is always the
same for that volume of that Engine: so restic knows a lock in a repository whose process has been killed.

A repository is a directory of the Engine's host, one file, which is a tar of a repository with one snapshot (`tar x`
and restic read it without dom0), or elsewhere. What a restore brings is checked in its repository and
verified file by file in a new volume; only then the two volumes' directories change places, in one step of the
kernel. The old content stays, in the volume that the new one came in.

Touches only the volume it is told of and those it made. Nothing here prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from dom0 import temporary
from dom0.engine.bodies import VolumeBody
from dom0.engine.protocol import Engine, find_container, find_image
from dom0.errors import Busy, Dom0Error, EngineError, NotFound
from dom0.images import docker_cli
from dom0.images.contents import digest, file_entry
from dom0.names import BASE_IMAGE, ROOTFS_IMAGE
from dom0.plan import labels
from dom0.plan.desired import Role
from dom0.run import Output, capture, transfer, while_listening

IMAGE = "dom0-restic"

_REPOSITORY = "/repository"
_VOLUMES = "/volumes"
_LABELS = ("--label", f"{labels.ROLE}={Role.HOME_WORKER}", "--label", f"{labels.PROJECT}=")
_STDIN = "/dev/stdin"  # restic reads the password there: it is no argument and no variable that others can see
_SSH = """Host *
BatchMode yes
ConnectTimeout 60
ServerAliveInterval 60
IdentitiesOnly yes
IdentityFile /root/.ssh/key
"""
_SSH_LOG = "/root/.ssh/log"  # of ssh(1): restic may end before it has passed on what that said
_WAIT = "30m"  # for who holds a lock of the repository: as long as restic takes to call one stale
_FOUND_WITHIN = 90.0  # seconds
_RETRIES = re.compile(r"(.*) returned error, retrying after [^:]*: (.*)")
_GIVEN_UP = re.compile(r"(.*) failed: (.*)")
_BY_HAND = "restore by hand: restic restore, of a file after tar x"
# Exit codes of restic 0.17 and later. Source: restic's manual, "Scripting".
_INCOMPLETE, _NO_REPOSITORY, _WRONG_PASSWORD = 3, 10, 12
_TIMED_OUT = 124  # of timeout(1)
_PART = re.compile(
    r"repository(/(config|(keys|locks|snapshots|index)(/[0-9a-f]{64})?|data(/[0-9a-f]{2}(/[0-9a-f]{64})?)?))?"
)


Document = TypeVar("Document")


class VolumeSource(msgspec.Struct, frozen=True):
    volume: str
    mountpoint: str  # on the Engine's host
    project: str
    path: str  # where it is in a worker, and so in every snapshot
    worker: str  # name of that


class Ssh(msgspec.Struct, frozen=True):
    key: bytes
    known_hosts: bytes


class Repository(msgspec.Struct, frozen=True):
    """`at`: a path of the Engine's host, of a directory unless it `is_file`, or what restic calls one elsewhere.

    No password: it is not encrypted. `variables` and `ssh`: what restic needs to get there.
    """

    at: str
    password: str | None
    is_file: bool = False
    variables: Mapping[str, str] = {}
    ssh: Ssh | None = None

    @property
    def file(self) -> Path:
        return Path(self.at)

    @property
    def is_remote(self) -> bool:
        return not self.at.startswith("/")

    def mounts(self, *, writable: bool) -> list[str]:
        if self.is_file or self.is_remote:
            return []
        return ["--mount", f"type=bind,source={self.at},target={_REPOSITORY}{'' if writable else ',readonly'}"]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
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
    volume: str  # has the restored content now
    kept: str  # volume that has the content from before
    users: tuple[str, ...]  # containers that still see what was before, until they are restarted


class _Summary(msgspec.Struct):
    message_type: str
    snapshot_id: str = ""
    total_files_processed: int = 0
    total_bytes_processed: int = 0
    data_added: int = 0


class _Config(msgspec.Struct):
    id: str


async def kept_volumes(engine: Engine, volume: str) -> tuple[str, ...]:
    """What restores of `volume` left."""
    return tuple(sorted(one.name for one in await engine.volumes() if one.labels.get(labels.HOME) == volume))


async def mountpoint_of(engine: Engine, volume: str) -> str:
    """Raises NotFound."""
    for one in await engine.volumes():
        if one.name == volume:
            return one.mountpoint
    raise NotFound(f"{volume}: there is no such volume", hint="dom0 up makes those of the project")


async def back_up(
    engine: Engine,
    source: VolumeSource,
    repository: Repository,
    *,
    known: str = "",
    keep: Mapping[str, int] = {},
    require_whole: Callable[[], Awaitable[None]] | None = None,
) -> tuple[Backup, str]:
    """Add a snapshot to `repository`, check it, and write it where it belongs. Returns the repository's ID too.

    `known`: the file that has it that there is a repository; then an empty directory is a disk that is not mounted. Of
    the snapshots of this volume and machine so many are kept as `keep` says, by restic's words, and all if
    `require_whole` raises, which is called before any is removed. Raises Dom0Error.
    """
    await prepare_image(engine)
    host = (await engine.info()).name
    mounts = ["--mount", f"type=volume,source={source.volume},target={source.path},readonly"]
    async with _worker(engine, source.worker, repository, [*mounts, *repository.mounts(writable=True)]) as restic:
        looked = await restic.look(accept=[_NO_REPOSITORY])
        if looked.code == _NO_REPOSITORY:  # that of a file is always made anew
            if known:
                hint = f"mount it; to begin another one there: rm {known}"
                raise Dom0Error(f"{repository.at}: the backups that were there are gone", hint=hint)
            await restic.run("init")
            looked = await restic.look()
        elif not repository.is_file:
            # Removes locks of killed processes, but none with a PID that it has itself; the next one has other PIDs.
            for _ in range(2):
                await restic.run("unlock")
        options = ["--json", "--quiet", "--host", host]  # quiet: else it tells its progress 60 times a second
        made = await restic.run("backup", *options, source.path, accept=[_INCOMPLETE])
        summary = _decode(made.stdout.strip().splitlines()[-1], _Summary)
        if require_whole is not None:
            await require_whole()
        if keep and made.code != _INCOMPLETE:  # else a disk that dies would take the whole ones away
            rules = [word for name, number in keep.items() for word in (f"--keep-{name}", str(number))]
            await restic.run("forget", "--prune", "--host", host, "--path", source.path, *rules)
        if repository.is_file:
            await restic.run("check", "--read-data")
            await _write_file(repository.file, source.worker)
        else:
            await restic.run("check")
    backup = Backup(
        snapshot=summary.snapshot_id,
        files=summary.total_files_processed,
        size=summary.total_bytes_processed,
        added=summary.data_added,
        complete=made.code != _INCOMPLETE,
    )
    return backup, _decode(looked.stdout, _Config).id


async def snapshots(engine: Engine, repository: Repository, path: str, worker: str) -> tuple[Snapshot, ...]:
    """Newest first, of all machines. Raises Dom0Error."""
    await prepare_image(engine)
    async with _worker(engine, worker, repository, repository.mounts(writable=False)) as restic:
        await _bring_file(repository, worker)
        if repository.is_remote:
            await restic.look()
        found = await restic.snapshots(path)
    return tuple(sorted(found, key=lambda snapshot: snapshot.time, reverse=True))


async def restore(
    engine: Engine, source: VolumeSource, repository: Repository, snapshot: str, *, kept: str
) -> Restored:
    """Put `snapshot` in the place of what the volume has; that is then in the volume `kept`. Raises Dom0Error.

    Until the moment of exchange the volume is not touched, and a failure removes what was brought. From then on both
    volumes stay, whatever happens: which of them has what was there before may not be known.
    """
    await prepare_image(engine)
    for one in await engine.volumes():
        if one.name == source.volume and one.options.get("device"):
            what = f"what is in it is kept in {one.options['device']}, which is mounted there while it is in use"
            raise Dom0Error(f"{source.volume}: {what}: it cannot be replaced at once", hint=_BY_HAND)
    volume = await engine.create_volume(
        kept, VolumeBody(labels={labels.HOME: source.volume, labels.PROJECT: source.project})
    )
    mounts = ["--mount", f"type=volume,source={volume.name},target={source.path}"]
    try:
        async with _worker(engine, source.worker, repository, [*mounts, *repository.mounts(writable=False)]) as restic:
            await _bring_file(repository, source.worker)
            if repository.is_remote:
                await restic.look()
            await restic.run("check", "--no-lock", *(["--read-data"] if repository.is_file else []))
            await restic.restore(snapshot, source)
        exchange = _exchange(source, volume.name, volume.mountpoint)
    except BaseException:
        await asyncio.shield(engine.remove_volume(volume.name))
        raise
    try:
        await capture(exchange)
    except Dom0Error as error:
        hint = f"one has what was there, the other what was restored: look, and restart who has {source.volume}"
        what = f"may or may not have changed places with {kept}"
        raise Dom0Error(f"{source.volume}: {what}: {error.message}", hint=hint) from error
    listed = await engine.containers()
    found = await asyncio.gather(*(engine.container(one.id) for one in listed), return_exceptions=True)
    running = [one for one in found if not isinstance(one, BaseException) and one.running]
    users = sorted(one.name for one in running if any(mount.name == source.volume for mount in one.mounts))
    return Restored(volume=source.volume, kept=volume.name, users=tuple(users))


async def restart_users(engine: Engine, source: VolumeSource, restored: Restored) -> Restored:
    """Restart this machine's own containers that have the volume; those that are not, or cannot be, stay in `users`."""
    containers = [one for name in restored.users if (one := await find_container(engine, name))]
    ours = [one for one in containers if source.project and one.labels.get(labels.PROJECT) == source.project]
    for container in sorted(
        ours, key=lambda one: one.labels.get(labels.ROLE) == Role.SSHD
    ):  # we may be a login in there
        argv = ["docker", "restart", container.id]  # one call of the Engine: it ends even if we do
        if (await capture(argv, check=False)).code != 0:
            ours.remove(container)
    others = tuple(one.name for one in containers if one not in ours)
    return msgspec.structs.replace(restored, users=others)


async def prepare_image(engine: Engine) -> None:
    """The worker's image: this host's restic on dom0-base, which has ssh. Made without a network, and anew when one of
    the two is another one; where there is no restic, as in a job's container, or it cannot be made anew, it is taken as
    it is.
    """
    present, restic = await find_image(engine, IMAGE), shutil.which("restic")
    bases = [(name, found) for name in (BASE_IMAGE, ROOTFS_IMAGE) if (found := await find_image(engine, name))]
    if present and not (restic and bases):
        return
    if restic is None:
        what = "there is no such image, and restic, of which it is made, is not installed here"
        hint = "on the machine's host: apt-get install restic, then: dom0 backup now"
        raise Dom0Error(f"{IMAGE}: {what}", hint=hint)
    if not bases:
        raise Dom0Error(f"{ROOTFS_IMAGE}: there is no such image", hint="make it: dom0 image build")
    name, base = bases[0]
    inputs = await asyncio.to_thread(digest, [file_entry("restic", Path(restic))], text=base.id)
    if present and present.labels.get(labels.INPUTS) == inputs:
        return
    try:
        with temporary.directory("home") as context:
            await asyncio.to_thread(shutil.copy, restic, context / "restic")
            plain = f"LABEL {labels.ROLE}= {labels.INPUTS}={inputs}\nENTRYPOINT []\nCMD []\nHEALTHCHECK NONE\n"
            (context / "Dockerfile").write_text(f"FROM {name}\nCOPY restic /usr/bin/restic\n{plain}")
            await docker_cli.build(docker_cli.DockerBuild(IMAGE, context, IMAGE), docker_cli.silent)
    except (Dom0Error, OSError):
        if present is None:
            raise
    before = await find_image(engine, present.id) if present else None
    if before and not before.tags:
        with contextlib.suppress(EngineError):  # a backup is under way with it
            await engine.remove_image(before.id)


class _Restic:
    """In the worker of that name."""

    def __init__(self, repository: Repository, worker: str) -> None:
        self._repository = repository
        self._worker = worker

    async def look(self, *, accept: Sequence[int] = ()) -> Output:
        """Its config. Raises Dom0Error also for a place elsewhere that cannot be had, which restic would try to reach,
        with a wrong key too, for a quarter of an hour and each time anew. A directory of this host may be slow.
        """
        within = _FOUND_WITHIN if self._repository.is_remote else 0.0
        output = await self.run("cat", "config", "--no-lock", accept=[*accept, _TIMED_OUT], within=within)
        if output.code != _TIMED_OUT:
            return output
        said = [why for _, why in _RETRIES.findall(output.stderr)] or ["nothing came from there"]
        hint = "is it there, and are the keys in the env_file right?"
        raise Dom0Error(f"{self._repository.at}: cannot be had for {_FOUND_WITHIN:g} s: {said[-1]}", hint=hint)

    async def run(self, *arguments: str, accept: Sequence[int] = (), within: float = 0.0) -> Output:
        """`within`: seconds after which it is ended, 0: never. Raises Dom0Error with restic's own words."""
        repository = self._repository
        secret = ["--insecure-no-password"] if repository.password is None else ["--password-file", _STDIN]
        limit = ["timeout", str(within)] if within else []
        variables = [word for name in repository.variables for word in ("--env", name)]  # their values are no argument
        argv = ["docker", "exec", "--interactive", *variables, self._worker, *limit]
        argv += ["restic", *secret, "--retry-lock", _WAIT]
        argv += ["--option", f"sftp.args=-E {_SSH_LOG}"] if repository.ssh else []
        argv += ["--repo", repository.at] if repository.is_remote else ["--repo", _REPOSITORY, "--no-cache"]
        password = (repository.password or "").encode() + b"\n"
        env = {**os.environ, **repository.variables}
        hear = self._end_when_gone() if repository.is_remote else None
        output = await capture([*argv, *arguments], stdin=password, env=env, check=False, hear=hear)
        if output.code == _WRONG_PASSWORD:
            raise Dom0Error(f"{repository.at}: the password is wrong", hint="it is the one the backup was made with")
        if output.code == _NO_REPOSITORY and _NO_REPOSITORY not in accept:
            raise Dom0Error(f"{repository.at}: is no backup", hint="dom0 backup now and dom0 home backup make one")
        if output.code != 0 and output.code not in accept:
            said = "\n".join([*output.stderr.strip().splitlines()[-5:], *await self._said_by_ssh()])
            raise Dom0Error(f"{repository.at}: restic {arguments[0]} failed with exit code {output.code}\n{said}")
        return output

    async def _said_by_ssh(self) -> list[str]:
        if self._repository.ssh is None:
            return []
        output = await capture(["docker", "exec", self._worker, "tail", "-n", "2", _SSH_LOG], check=False)
        return output.stdout.splitlines()

    def _end_when_gone(self) -> Callable[[str], None]:
        """Hears what restic says of its errors. It tries for a quarter of an hour, and then as long for each thing that
        is left to do, though nobody is there. Raises Dom0Error after the first of them.
        """
        tried = set[str]()

        def hear(line: str) -> None:
            if found := _RETRIES.match(line):
                tried.add(found[1])
            elif (found := _GIVEN_UP.match(line)) and found[1] in tried:
                hint = "look whether it is there; the next run goes on: dom0 backup now"
                raise Dom0Error(f"{self._repository.at}: has gone away: {found[2]}", hint=hint)

        return hear

    async def snapshots(self, path: str) -> list[Snapshot]:
        """Those of `path`. Raises Dom0Error."""
        output = await self.run("snapshots", "--json", "--no-lock", "--path", path)
        return _decode(output.stdout, list[Snapshot])

    async def restore(self, snapshot: str, source: VolumeSource) -> None:
        """Raises Dom0Error, also for one of another path: of that restic would restore nothing, and succeed."""
        taken = await self.snapshots(source.path)
        if not any(snapshot == "latest" or one.id.startswith(snapshot) for one in taken):
            hint = "which there are: dom0 backup ls and dom0 home ls"
            raise NotFound(f"{self._repository.at}: has no snapshot {snapshot} of {source.volume}", hint=hint)
        options = ["--no-lock", "--path", source.path, "--include", source.path, "--target", "/", "--verify"]
        await self.run("restore", *options, snapshot)


@asynccontextmanager
async def _worker(engine: Engine, name: str, repository: Repository, mounts: Sequence[str]) -> AsyncIterator[_Restic]:
    """The container in which restic runs during the block. Raises Busy if there is one."""
    if await find_container(engine, name):
        raise Busy(f"{name}: another backup or restore is at work", hint=f"wait for it, or: docker rm -f {name}")
    host = hashlib.sha256(f"{(await engine.info()).id} {name}".encode()).hexdigest()[:32]
    argv = ["docker", "run", "--pull", "never", "--rm", "--interactive", "--name", name, "--hostname", host]
    argv += ["--network", "bridge" if repository.is_remote else "none"]
    argv += [*_LABELS, *mounts, IMAGE, "cat"]
    async with while_listening(argv):
        if repository.ssh is not None:
            await capture(["docker", "cp", "-", f"{name}:/root"], stdin=_home_for_ssh(repository.ssh))
        yield _Restic(repository, name)


def _home_for_ssh(ssh: Ssh) -> bytes:
    """A tar of root's `.ssh`."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        directory = tarfile.TarInfo(".ssh")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(directory)
        for name, content in (("key", ssh.key), ("known_hosts", ssh.known_hosts), ("config", _SSH.encode())):
            entry = tarfile.TarInfo(f".ssh/{name}")
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


async def _write_file(path: Path, worker: str) -> None:
    """The repository as a tar. The file has its name only when all of it is on disk."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            await transfer(["docker", "cp", f"{worker}:{_REPOSITORY}", "-"], stdout=file)
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


async def _bring_file(repository: Repository, worker: str) -> None:
    if not repository.is_file:
        return
    await asyncio.to_thread(check_file, repository.file)
    with repository.file.open("rb") as file:
        await transfer(["docker", "cp", "-", f"{worker}:/"], stdin=file)


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


def _exchange(source: VolumeSource, volume: str, mountpoint: str) -> list[str]:
    """Lets the directories of two volumes change places, at once. Running containers keep the one they have."""
    ours, theirs = Path(source.mountpoint), Path(mountpoint)
    root = ours.parent.parent
    if ours != root / source.volume / ours.name or theirs != root / volume / ours.name:
        raise Dom0Error(
            f"{source.volume}: is kept at {ours}, not beside other volumes: it cannot be replaced at once",
            hint=_BY_HAND,
        )
    argv = ["docker", "run", "--pull", "never", "--rm", "--network", "none", *_LABELS]
    argv += ["--mount", f"type=bind,source={root},target={_VOLUMES}", IMAGE]
    argv += ["mv", "--exchange", "--no-target-directory"]
    return [*argv, f"{_VOLUMES}/{source.volume}/{ours.name}", f"{_VOLUMES}/{volume}/{ours.name}"]


def _decode(text: str, document: type[Document]) -> Document:
    try:
        return msgspec.json.decode(text, type=document)
    except msgspec.DecodeError as error:
        raise Dom0Error(f"restic: its answer is not understood: {error}", hint=f"its image is {IMAGE}") from error
