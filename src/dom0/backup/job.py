"""The job that backs up one volume: what `x-dom0.backup` says of it, once. Runs in its own container, by its schedule.

Services that are to be stopped meanwhile the agent stops as long as the job's container runs, and starts when it does
not, however it ended; the job only waits until it is so. A record of what was made is written last.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

import msgspec

from dom0 import secret_file
from dom0.backup import record, restic
from dom0.engine.protocol import Engine
from dom0.engine.values import ContainerSummary, Health
from dom0.errors import Dom0Error, NotFound
from dom0.plan import labels
from dom0.plan.backups import BackupJob, HookOf, job_name
from dom0.plan.desired import Role

STOPPED_WITHIN = 120.0  # seconds, besides their own grace
RUNNING_WITHIN = 300.0
PAUSE = 0.2  # seconds between two looks
SETTLED = 2.0  # seconds for a start that was under way when the job began; a later one is noticed
VARIABLES = "RESTIC_PASSWORD|RESTIC_REST_USERNAME|RESTIC_REST_PASSWORD|AWS_[A-Z_]+"

Say = Callable[[str], None]


async def find(engine: Engine, volumes: Sequence[str] = ()) -> list[BackupJob]:
    """For each of these volumes, by its key in the project or its name; for all that have one. Raises NotFound."""
    rows = await engine.containers(labels=[labels.BACKUP, f"{labels.ROLE}={Role.BACKUP}"])
    named = {row.name: row.labels[labels.BACKUP] for row in sorted(rows, key=lambda row: row.name)}
    by_key: dict[str, BackupJob] = {}
    for name, text in named.items():
        with contextlib.suppress(msgspec.DecodeError):  # of another version of dom0, which is about to be replaced
            job = msgspec.json.decode(text, type=BackupJob)
            if name == job_name(job.key):  # and not one whose replacement is on the way
                by_key[job.key] = job
    found = {job.volume: job for job in by_key.values()} | by_key  # a volume may be called as another one's key
    for volume in volumes:
        if volume not in found:
            there = ", ".join(sorted(by_key)) or "none; name them below x-dom0.backup"
            raise NotFound(f"{volume}: is no volume with backups", hint=f"volumes that have: {there}")
    chosen = [found[volume] for volume in volumes] if volumes else list(by_key.values())
    return list({job.key: job for job in chosen}.values())


async def source_of(engine: Engine, job: BackupJob) -> restic.VolumeSource:
    """Raises NotFound."""
    mountpoint = await restic.mountpoint_of(engine, job.volume)
    return restic.VolumeSource(job.volume, mountpoint, job.project, job.path, worker_of(job))


def worker_of(job: BackupJob) -> str:
    return f"dom0-backup-worker-{job.key}"


def repository_of(job: BackupJob) -> restic.Repository:
    """Raises Dom0Error for files that lack something."""
    variables = secret_file.variables(job.env_file, VARIABLES)
    password = variables.pop("RESTIC_PASSWORD", "")
    if not password:
        hint = "write it into the file: RESTIC_PASSWORD=…; without it a backup cannot be read again, so keep a copy"
        raise Dom0Error(f"{job.env_file}: has no RESTIC_PASSWORD", hint=hint)
    ssh = None
    if job.ssh_key:
        ssh = restic.Ssh(secret_file.read(job.ssh_key), "".join(f"{line}\n" for line in job.known_hosts).encode())
    return restic.Repository(job.to, password, variables=variables, ssh=ssh)


async def run(engine: Engine, job: BackupJob, say: Say) -> restic.Backup:
    """Raises Dom0Error. What stands in `after` is done in any case."""
    source, repository = await source_of(engine, job), repository_of(job)
    await _await_rest(engine, job, say)
    rested = await _starts(engine, job)

    async def require_rest() -> None:
        if started := await _starts(engine, job) - rested:
            names = ", ".join(sorted(name for name, _ in started))
            raise Dom0Error(f"{names}: ran meanwhile, so the snapshot may not be whole", hint="dom0 backup now")

    await _await_services(engine, job)
    try:
        await _run_hooks(engine, job, job.before, say)
        file = record.file_of(job.key)
        before = record.read(job.key)
        known = str(file) if before is not None and before.to == job.to else ""
        say(f"backing up {job.volume} to {job.to}")
        made, repository_id = await restic.back_up(
            engine, source, repository, known=known, keep=job.keep, require_whole=require_rest
        )
    except Dom0Error as error:
        if job.after:
            say(error.message)  # what comes after may be another error
        raise
    finally:
        await _run_after(engine, job, say)
    record.write(
        job.key,
        record.BackupRecord(
            repository=repository_id,
            to=job.to,
            snapshot=made.snapshot,
            time=time.time(),
            files=made.files,
            size=made.size,
            complete=made.complete,
        ),
    )
    return made


async def _await_rest(engine: Engine, job: BackupJob, say: Say) -> None:
    """Raises Dom0Error when the agent does not stop them."""
    clock = asyncio.get_running_loop().time
    grace = 0.0
    begun = clock()
    said: list[str] = []
    while running := [one for service in job.stop for one in await _containers(engine, job, service)]:
        names = [one.name for one in running]
        if names != said:
            say(f"waits until dom0 has stopped {', '.join(names)}")
            said = names
            grace = max([grace, *[(await engine.container(name)).stop_grace for name in names]])
        if clock() - begun > STOPPED_WITHIN + grace:
            raise Dom0Error(f"{', '.join(names)}: still runs", hint="is the agent there? dom0 status")
        await asyncio.sleep(PAUSE)
    if job.stop:
        await asyncio.sleep(SETTLED)


async def _starts(engine: Engine, job: BackupJob) -> frozenset[tuple[str, float]]:
    """When the containers that are to rest were started last."""
    rows = [one for service in job.stop for one in await _containers(engine, job, service, running=False)]
    return frozenset((one.name, one.started) for one in [await engine.container(row.id) for row in rows])


async def _await_services(engine: Engine, job: BackupJob) -> None:
    """After a boot they come up beside the job. Raises Dom0Error."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + RUNNING_WITHIN
    for one in job.before:
        while not await _ready(engine, job, one.service):
            if clock() > deadline:
                raise Dom0Error(f"{one.service}: is not ready, so nothing can be run in it", hint="dom0 status")
            await asyncio.sleep(PAUSE)


async def _ready(engine: Engine, job: BackupJob, service: str) -> bool:
    try:
        found = [await engine.container(one.id) for one in await _containers(engine, job, service)]
    except NotFound:  # just replaced
        return False
    return any(one.health in (Health.NONE, Health.HEALTHY) for one in found)


async def _containers(engine: Engine, job: BackupJob, service: str, *, running: bool = True) -> list[ContainerSummary]:
    """`running` False: and those that do not."""
    wanted = [f"{labels.PROJECT}={job.project}", f"{labels.SERVICE}={service}", f"{labels.ROLE}=service"]
    return [one for one in await engine.containers(labels=wanted) if one.running or not running]


async def _run_after(engine: Engine, job: BackupJob, say: Say) -> None:
    """All of them: one may begin again what a service was told to end. Raises the first Dom0Error."""
    failed: Dom0Error | None = None
    for one in job.after:
        try:
            await _run_hooks(engine, job, [one], say)
        except Dom0Error as error:
            if failed is not None:
                say(error.message)
            failed = failed or error
    if failed is not None:
        raise failed


async def _run_hooks(engine: Engine, job: BackupJob, hooks: Sequence[HookOf], say: Say) -> None:
    """One after the other, until one fails. Raises Dom0Error."""
    for one in hooks:
        running = await _containers(engine, job, one.service)
        if not running:
            raise Dom0Error(f"{one.service}: does not run, so nothing can be run in it", hint="dom0 status")
        words = " ".join(one.hook.argv)
        say(f"{one.service}: {words}")
        try:
            result = await engine.exec(running[0].id, one.hook.argv, user=one.hook.user, timeout=one.timeout)
        except TimeoutError as error:
            what = f"{one.service}: {words}: did not end within {one.timeout:g} s"
            hint = f"it may run on: docker top {running[0].name}; give it more time as its timeout"
            raise Dom0Error(what, hint=hint) from error
        if result.exit_code != 0:
            raise Dom0Error(f"{one.service}: {words}: exit code {result.exit_code}\n{result.output[-1000:]}")
