"""What `x-dom0.backup` means: for each volume a job on a schedule, in a container of the image dom0-base. Pure.

The job has the Engine's socket and the secret files, not the volume: it lets restic run in a container beside it (see
dom0/backup). What it is to do is in a label, from which commands read it too.
"""

from __future__ import annotations

import msgspec

from dom0.compose.model import Project
from dom0.compose.x_dom0 import BackupHook, BackupSettings
from dom0.durations import seconds
from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, LogConfig, Mount
from dom0.engine.values import Image
from dom0.names import BACKUP_JOB, BACKUPS, ENGINE_SOCKET, ENGINE_SOCKET_INSIDE, PROGRAM
from dom0.plan import labels
from dom0.plan.builtins import builtin_slot
from dom0.plan.desired import Desired, Hook, Role, Slot
from dom0.plan.facts import Facts
from dom0.plan.refusal import refusal

LOG = LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"})
HOME_PATH = "/home-volume"  # of the home in its snapshots


class HookOf(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    hook: Hook
    timeout: float = 3600.0  # seconds


class BackupJob(msgspec.Struct, frozen=True, kw_only=True):
    """Files are absolute paths, the same on the host and in the job's container."""

    project: str
    key: str  # of the volume in the project
    volume: str  # the Engine's name of it
    path: str  # where its files are in snapshots
    to: str
    env_file: str
    ssh_key: str
    known_hosts: tuple[str, ...]
    keep: dict[str, int]  # restic's words
    stop: tuple[str, ...]  # services
    before: tuple[HookOf, ...]
    after: tuple[HookOf, ...]


def job_name(key: str) -> str:
    """Of the job for the volume with that key: its service and its container."""
    return f"{BACKUP_JOB}{key}"


def backup_slots(project: Project, facts: Facts) -> tuple[Slot, ...]:
    """None without an image for them. Raises ProjectError for volumes and services that are not there."""
    machine = project.machine
    if machine is None or facts.base is None:
        return ()
    return tuple(_slot(project, key, machine.backup[key], facts.base) for key in sorted(machine.backup))


def _slot(project: Project, key: str, backup: BackupSettings, base: Image) -> Slot:
    where, name = ("x-dom0", "backup", key), job_name(key)
    home = project.machine.home if project.machine else None
    is_home = home is not None and key == home.volume
    if not is_home and key not in project.volumes:
        there = ", ".join(sorted({*project.volumes, *([home.volume] if home else [])})) or "none"
        raise refusal(project, where, f"no service mounts a volume {key}", f"volumes that are there: {there}")
    if name in project.services:
        raise refusal(project, ("services", name), "is the name of a container that x-dom0 asks for", "give it another")
    named = [("stop", service) for service in backup.stop]
    named += [(part, hook.service) for part in ("before", "after") for hook in getattr(backup, part)]
    for part, service in named:
        if service not in project.services:
            raise refusal(project, (*where, part), f"there is no service {service}", "take it out, or name another one")
        if part != "stop" and service in backup.stop:
            what = f"{service} is stopped meanwhile: nothing can be run in it"
            raise refusal(project, (*where, part), what, "take it out of stop, or out of this")
    secrets = (backup.env_file, backup.ssh_key)
    files = [f"{project.working_dir}/{path.removeprefix('./')}" for path in secrets if path]
    job = BackupJob(
        project=project.name,
        key=key,
        volume=key if is_home else project.volumes[key].name,
        path=HOME_PATH if is_home else f"/volume/{key}",
        to=backup.to,
        env_file=files[0],
        ssh_key=files[1] if backup.ssh_key else "",
        known_hosts=backup.known_hosts,
        keep={word: number for word, number in msgspec.structs.asdict(backup.keep).items() if number}
        if backup.keep
        else {},
        stop=backup.stop,
        before=tuple(map(_hook, backup.before)),
        after=tuple(map(_hook, backup.after)),
    )
    create = ContainerBody(
        entrypoint=(PROGRAM, "backup-job"),
        cmd=(key,),
        env=(f"DOCKER_HOST=unix://{ENGINE_SOCKET_INSIDE}",),
        healthcheck=HealthConfig(test=("NONE",)),
        labels={labels.BACKUP: msgspec.json.encode(job).decode()},
        host_config=HostConfig(
            binds=(f"{ENGINE_SOCKET}:{ENGINE_SOCKET_INSIDE}", f"{BACKUPS}:{BACKUPS}"),
            mounts=tuple(Mount(type="bind", source=path, target=path, read_only=True) for path in files),
            log_config=LOG,
            network_mode="none",
        ),
    )
    zone = project.machine.timezone if project.machine else ""
    schedule = {"schedule": backup.schedule, "timezone": zone, "stops": backup.stop}
    return builtin_slot(project.name, name, Role.BACKUP, base, create, **schedule)


def _hook(written: BackupHook) -> HookOf:
    hook = Hook(argv=written.command, user=written.user)
    return HookOf(service=written.service, hook=hook, timeout=seconds(written.timeout))


def jobs_of(desired: Desired) -> list[BackupJob]:
    found = (slot.create.labels[labels.BACKUP] for slot in desired.slots if slot.role is Role.BACKUP)
    return [msgspec.json.decode(text, type=BackupJob) for text in found]


def volumes_without(desired: Desired) -> list[str]:
    """Names of the volumes of the project that are in no backup; without what ambassadors keep, which is no data."""
    own = {name for slot in desired.slots if labels.AMBASSADOR in slot.create.labels for name in slot.volumes}
    return sorted({spec.name for spec in desired.volumes} - own - {job.volume for job in jobs_of(desired)})
