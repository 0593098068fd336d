"""Which volumes are backed up, and when that was done last, for the status. Reads what the jobs have written."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.agent.status import BackupStatus
from dom0.backup import record
from dom0.plan.backups import job_name, jobs_of, volumes_without
from dom0.plan.desired import Desired


def backups(desired: Desired) -> tuple[BackupStatus, ...]:
    """Those that are in no backup come last."""
    found = []
    for job in jobs_of(desired):
        last = record.read(job.key)
        one = BackupStatus(volume=job.volume, key=job.key, service=job_name(job.key), to=job.to)
        if last is not None and last.to == job.to:  # else it is somewhere else
            one = replace(one, last=last.time, snapshot=last.snapshot, size=last.size, complete=last.complete)
        found.append(one)
    return (*found, *(BackupStatus(volume=name) for name in volumes_without(desired)))
