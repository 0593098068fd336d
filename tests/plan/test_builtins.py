"""The containers that `x-dom0` asks for: their mounts, names, and what makes another one necessary."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.compose.model import Project, Service
from dom0.compose.x_dom0 import DevSettings, HomeSettings, MachineSettings, SshSettings
from dom0.engine.bodies import HealthConfig, Mount
from dom0.engine.values import Image, PublishedPort
from dom0.errors import ProjectError
from dom0.names import HOME, SSHD
from dom0.plan import labels
from dom0.plan.builtins import builtin_slots, with_home_volume
from dom0.plan.desired import Role, Slot, VolumeSpec
from dom0.plan.facts import Facts

BASE = Image(id="sha256:base", tags=("dom0-base:latest",))
KEY = "ssh-ed25519 AAAA me@there"


def slots(**machine: Any) -> dict[str, Slot]:
    project = Project(name="box", machine=MachineSettings(**machine))
    return {slot.service: slot for slot in builtin_slots(project, Facts(images={}, base=BASE))}


def volumes(home: HomeSettings | None, *given: VolumeSpec) -> list[tuple[str, bool]]:
    project = Project(name="box", machine=MachineSettings(home=home))
    return [(spec.name, spec.external) for spec in with_home_volume(project, given)]


def test_what_is_not_asked_for_is_not_there() -> None:
    assert slots() == {}
    assert slots(ssh=SshSettings()).keys() == {SSHD}
    assert slots(home=HomeSettings()).keys() == {HOME}
    assert volumes(None) == []


def test_they_are_of_the_base_image_so_that_a_change_of_the_project_leaves_them_alone() -> None:
    for slot in slots(ssh=SshSettings(), home=HomeSettings()).values():
        assert slot.image_id == BASE.id
        assert slot.name == slot.service
        assert slot.create.labels[labels.PROJECT] == "box"
        assert slot.create.healthcheck == HealthConfig(test=("NONE",))


def test_the_home_volume_is_created_and_never_started() -> None:
    home = slots(home=HomeSettings(), dev=DevSettings(image="tools", command=("make", "x")))[HOME]
    assert (home.role, home.runs, home.restart_policy) == (Role.HOME, False, "no")
    assert home.create.host_config.mounts == (Mount(type="volume", source=HOME, target="/home/dom0"),)
    assert home.create.user == "1000:1000"
    assert home.create.labels[labels.DEV_IMAGE] == "tools"
    assert home.create.labels[labels.DEV_COMMAND] == '["make","x"]'


def test_the_login_has_the_home_the_engine_and_the_keys() -> None:
    sshd = slots(
        ssh=SshSettings(user="ada", uid=2000, port=22, authorized_keys=(KEY,)), home=HomeSettings(volume="data")
    )[SSHD]
    assert sshd.create.host_config.mounts == (Mount(type="volume", source="data", target="/home/ada"),)
    assert sshd.create.host_config.binds == (
        "/var/run/docker.sock:/run/docker.sock",
        "/run/dom0:/run/dom0",
        "/var/lib/dom0/ssh:/var/lib/dom0/ssh",
    )
    assert sshd.create.host_config.log_config is not None
    assert sshd.create.host_config.log_config.config["max-size"] == "5m"  # who is refused writes to it
    assert sshd.ports == (PublishedPort("tcp", 22),)
    assert sshd.volumes == ("data",)
    assert [(file.path, file.content) for file in sshd.files] == [
        ("/etc/ssh/authorized_keys.d/ada", f"{KEY}\n".encode())
    ]
    assert sshd.defer_while == ("sshd-session: ada@", "sshd: ada@")


def test_the_login_shows_the_machines_name() -> None:
    assert slots(ssh=SshSettings())[SSHD].create.hostname == "box"
    assert slots(ssh=SshSettings(), hostname="tower")[SSHD].create.hostname == "tower"
    assert len(slots(ssh=SshSettings(), hostname="x" * 64)[SSHD].create.hostname) == 63


@pytest.mark.parametrize(
    "machine",
    [
        {"ssh": SshSettings(port=23)},
        {"ssh": SshSettings(authorized_keys=(KEY,))},
        {"ssh": SshSettings(), "hostname": "x"},
    ],
    ids=["port", "keys", "hostname"],
)
def test_another_setting_makes_another_container(machine: dict[str, Any]) -> None:
    assert slots(**machine)[SSHD].hash != slots(ssh=SshSettings())[SSHD].hash
    assert slots(**machine)[SSHD].hash == slots(**machine)[SSHD].hash


def test_outside_of_an_image_there_are_none() -> None:
    project = Project(name="box", machine=MachineSettings(ssh=SshSettings(), home=HomeSettings()))
    assert builtin_slots(project, Facts(images={})) == ()


def test_a_service_of_the_same_name_is_refused() -> None:
    project = Project(name="box", machine=MachineSettings(ssh=SshSettings()), services={SSHD: Service(image="i")})
    with pytest.raises(ProjectError, match=r"services\.dom0-sshd: is the name of"):
        builtin_slots(project, Facts(images={}, base=BASE))


def test_the_home_volume_is_made_unless_the_project_says_how() -> None:
    assert volumes(HomeSettings()) == [(HOME, False)]
    assert volumes(HomeSettings(), VolumeSpec(key="h", name=HOME)) == [(HOME, False)]
    assert volumes(HomeSettings(), VolumeSpec(key="data", name="box_data")) == [("box_data", False), (HOME, False)]


def test_a_service_may_share_the_home_volume_as_an_external_one() -> None:
    assert volumes(HomeSettings(), VolumeSpec(key="h", name=HOME, external=True)) == [(HOME, False)]
    assert volumes(None, VolumeSpec(key="h", name=HOME, external=True)) == [(HOME, True)]
