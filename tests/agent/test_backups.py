"""What the status says of the backups of volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.agent.backups import backups
from dom0.backup import record
from dom0.compose.model import Project, Service, Volume
from dom0.compose.x_dom0 import BackupSettings, MachineSettings
from dom0.engine.values import Image
from dom0.plan.backups import backup_slots
from dom0.plan.desired import Desired
from dom0.plan.facts import Facts

MADE = record.BackupRecord(repository="r", to="/srv/a", snapshot="997f", time=7.0, files=4, size=8, complete=True)


def desired(to: str) -> Desired:
    machine = MachineSettings(backup={"data": BackupSettings(to=to, env_file="./backup.env")})
    volumes = {"data": Volume(name="box_data")}
    project = Project(name="box", services={"db": Service()}, volumes=volumes, machine=machine, working_dir="/project")
    base = Image(id="sha256:base", tags=("dom0-base:latest",))
    return Desired(project="box", slots=backup_slots(project, Facts(images={}, base=base)))


def test_a_backup_counts_in_the_place_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOM0_STATE", str(tmp_path))
    (tmp_path / "backups").mkdir()
    record.write("data", MADE)
    [there], [elsewhere] = backups(desired("/srv/a")), backups(desired("/srv/b"))
    assert (there.last, there.snapshot, there.size) == (7.0, "997f", 8)
    assert (elsewhere.last, elsewhere.snapshot, elsewhere.to) == (0.0, "", "/srv/b")
