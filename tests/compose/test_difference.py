"""Two readings of one project are compared in all that a machine is told, and in nothing else."""

from __future__ import annotations

import msgspec
import pytest

from dom0.compose.difference import difference
from dom0.compose.model import Build, Project, Service, ServiceVolume, canonical
from dom0.compose.x_dom0 import MachineSettings, SshSettings

VOLUME = ServiceVolume(type="bind", source="/p/x", target="/x")
PROJECT = Project(
    name="box",
    services={"a": Service(image="i", environment={"A": "b", "C": None}, volumes=(VOLUME,))},
    digests={"/p/x": "1"},
)


def service(**changes: object) -> Project:
    return Project(name="box", services={"a": Service(**{"image": "i"} | changes)}, digests={"/p/x": "1"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "path"),
    [
        (service(environment={"A": "", "C": None}, volumes=(VOLUME,)), ("services", "a", "environment", "A")),
        (service(environment={"A": "b"}, volumes=(VOLUME,)), ("services", "a", "environment", "C")),
        (service(environment={"A": "b", "C": None}), ("services", "a", "volumes")),
        (Project(name="box"), ("services",)),
        (Project(name="other", services=PROJECT.services, digests=PROJECT.digests), ("name",)),
        (Project(name="box", services=PROJECT.services), ("digests",)),
    ],
)
def test_the_first_key_that_differs_is_named(found: Project, path: tuple[str, ...]) -> None:
    assert difference(PROJECT, found) == path


def test_where_and_with_what_it_was_read_does_not_count() -> None:
    assert difference(PROJECT, PROJECT) is None
    one = Project(name="box", services={"a": Service(build=Build(context="/here"))}, opened=(".env",), working_dir="/p")
    other = Project(name="box", services={"a": Service(build=Build(context="/there"))}, compose_hashes={"a": "1"})
    assert difference(one, other) is None


def test_a_default_that_is_written_out_is_the_same_project() -> None:
    """As the machine gets it to compare with: `canonical` leaves out what the project says."""
    read = Project(name="box", machine=MachineSettings(ssh=SshSettings(port=int("2222"), user="".join(("do", "m0")))))
    told = msgspec.json.decode(canonical(read), type=Project, strict=False)
    assert difference(told, read) is None
    assert (
        difference(told, msgspec.structs.replace(read, machine=MachineSettings(ssh=SshSettings(port=23)))) is not None
    )
