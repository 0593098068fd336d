"""What `x-dom0.backup` asks for becomes: a job for each volume."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.compose.model import Project, Service, Volume
from dom0.compose.x_dom0 import BackupHook, BackupSettings, HomeSettings, KeepSettings, MachineSettings
from dom0.engine.bodies import Mount
from dom0.engine.values import Image
from dom0.errors import ProjectError
from dom0.plan.backups import backup_slots, jobs_of, volumes_without
from dom0.plan.desired import Desired, Role, Slot, VolumeSpec
from dom0.plan.facts import Facts

BASE = Image(id="sha256:base", tags=("dom0-base:latest",))
DATA: dict[str, Any] = {"to": "/srv/backup", "env_file": "./backup.env"}


def slots(backup: dict[str, BackupSettings], **fields: Any) -> tuple[Slot, ...]:
    machine = MachineSettings(backup=backup, home=HomeSettings(), timezone="Europe/Berlin")
    given: dict[str, Any] = {"services": {"db": Service()}, "volumes": {"data": Volume(name="box_data")}} | fields
    project = Project(name="box", machine=machine, working_dir="/var/lib/dom0/project", **given)
    return backup_slots(project, Facts(images={}, base=BASE))


def test_each_volume_has_a_job_that_sees_the_engine_and_the_secret_files_alone() -> None:
    hook = BackupHook(service="db", command=("dump",), user="postgres")
    settings = BackupSettings(**DATA, keep=KeepSettings(daily=7), before=(hook,), schedule="@hourly")
    [job] = slots({"data": settings})
    assert (job.service, job.name, job.role) == ("dom0-backup-data", "dom0-backup-data", Role.BACKUP)
    assert (job.schedule, job.timezone, job.restart_policy) == ("@hourly", "Europe/Berlin", "no")
    path = "/var/lib/dom0/project/backup.env"
    host = job.create.host_config
    assert host.mounts == (Mount(type="bind", source=path, target=path, read_only=True),)
    assert host.binds == ("/var/run/docker.sock:/run/docker.sock", "/var/lib/dom0/backups:/var/lib/dom0/backups")
    assert host.network_mode == "none"
    [said] = jobs_of(Desired(project="box", slots=(job,)))
    assert (said.volume, said.path, said.keep, said.env_file) == ("box_data", "/volume/data", {"daily": 7}, path)


def test_the_home_is_where_its_own_backups_have_it() -> None:
    [job] = slots({"home-volume": BackupSettings(**DATA, stop=("db",))})
    [said] = jobs_of(Desired(project="box", slots=(job,)))
    assert (said.volume, said.path, job.stops) == ("home-volume", "/home-volume", ("db",))


def test_only_the_schedule_makes_no_other_container() -> None:
    one, other = (slots({"data": BackupSettings(**DATA, schedule=when)})[0] for when in ("@daily", "@hourly"))
    moved = slots({"data": BackupSettings(to="/srv/other", env_file="backup.env")})[0]
    assert (one.hash == other.hash, one.hash == moved.hash) == (True, False)


@pytest.mark.parametrize(
    ("backup", "said"),
    [
        ({"dat": BackupSettings(**DATA)}, "no service mounts a volume dat"),
        ({"data": BackupSettings(**DATA, stop=("dbb",))}, "there is no service dbb"),
        (
            {"data": BackupSettings(**DATA, stop=("db",), after=(BackupHook(service="db", command=("x",)),))},
            "db is stopped meanwhile",
        ),
    ],
)
def test_what_is_not_there_is_refused(backup: dict[str, BackupSettings], said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        slots(backup)


def test_volumes_that_are_in_no_backup_are_known() -> None:
    volumes = tuple(VolumeSpec(key=name, name=f"box_{name}") for name in ("data", "more"))
    jobs = slots({"data": BackupSettings(**DATA)})
    assert volumes_without(Desired(project="box", volumes=volumes, slots=jobs)) == ["box_more"]
