"""What is said of volumes, of snapshots of the home, and of disks."""

from __future__ import annotations

import os
from pathlib import Path

from dom0.agent.storage import DiskSpace, VolumeUser, storage
from dom0.engine.values import ContainerSummary, Mount, State, Volume
from dom0.names import HOME, HOME_SNAPSHOTS
from dom0.plan import labels
from dom0.plan.desired import VolumeSpec
from dom0.testing.builders import actual, container, desired, slot


def volume(name: str, **labelled: str) -> Volume:
    return Volume(name=name, driver="local", labels=labelled)


def mount(name: str, path: str, *, writable: bool = True) -> Mount:
    return Mount(type="volume", name=name, target=path, writable=writable)


def test_volumes_are_shown_that_the_project_names_or_has_mounted_or_once_had(tmp_path: Path) -> None:
    bound = Mount(type="bind", source="/srv", target="/srv")
    web = container(slot("web"), mounts=(mount("box_data", "/data"), mount("f00d", "/cache"), bound))
    home = container(slot("home-volume"), name=HOME, mounts=(mount("home-volume", "/home/dom0"),))
    other = ContainerSummary(
        id="x", name="x", image_id="", state=State.RUNNING, labels={}, mounts=(mount("box_data", "/d", writable=False),)
    )
    kept = {labels.HOME: "home-volume"}
    names = ("f00d", "box_data", "home-volume", "idle", "foreign")
    found = storage(
        desired(volumes=(VolumeSpec(key="data", name="box_data"), VolumeSpec(key="idle", name="idle"))),
        actual(web, home, others=(other,), volumes=(*map(volume, names), volume("before", **kept))),
        state=tmp_path,
        places=(),
    )
    assert [(one.name, one.declared, one.is_home, one.kept_of) for one in found.volumes] == [
        ("before", False, False, "home-volume"),
        ("box_data", True, False, ""),
        ("f00d", False, False, ""),
        ("home-volume", False, True, ""),
        ("idle", True, False, ""),
    ]
    assert found.others == 1
    assert found.volumes[1].users == (
        VolumeUser(container="box-web-1", path="/data", writable=True),
        VolumeUser(container="x", path="/d", writable=False),
    )
    assert found.volumes[4].users == ()


def test_snapshots_of_the_home_are_counted_without_restic(tmp_path: Path) -> None:
    nothing = storage(desired(), actual(), state=tmp_path, places=())
    assert (nothing.home_snapshots, nothing.last_home_snapshot) == (0, 0.0)
    directory = tmp_path / HOME_SNAPSHOTS / "snapshots"
    directory.mkdir(parents=True)
    for number in (1, 2):
        (directory / str(number)).touch()
        os.utime(directory / str(number), (number, number))
    found = storage(desired(), actual(), state=tmp_path, places=())
    assert (found.home_snapshots, found.last_home_snapshot) == (2, 2.0)


def test_each_disk_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    [disk] = storage(
        desired(), actual(), state=tmp_path, places=(tmp_path, tmp_path / "beside", tmp_path / "none")
    ).disks
    assert disk.path == str(tmp_path)
    assert 0 <= disk.free <= disk.size
    assert isinstance(disk, DiskSpace)
