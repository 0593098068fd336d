"""What is told of the status to those who have heard of the one before."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from dom0.agent.report import difference
from dom0.agent.status import Phase, ServiceStatus, Status

ONE, TWO = (
    ServiceStatus(
        service=name, number=1, container=f"box-{name}-1", container_id=name, image=name, image_id="", phase=Phase.READY
    )
    for name in ("one", "two")
)
STATUS = Status(
    project="box",
    version="0",
    dom0_image="",
    generation=None,
    last_good=None,
    converged=True,
    services=(ONE, TWO),
    steps=(),
    problems=(),
    now=1.0,
)


def as_json(value: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(value))


def told(after: Status) -> object:
    return as_json(difference(STATUS, after))


def test_only_the_time_is_told_where_nothing_is_another() -> None:
    assert told(replace(STATUS, now=2.0)) == {"now": 2.0}


def test_of_services_only_those_are_told_that_are_another() -> None:
    failed = replace(TWO, phase=Phase.FAILED)
    assert told(replace(STATUS, services=(ONE, failed), converged=False, now=2.0)) == {
        "services": [as_json(failed)],
        "converged": False,
        "now": 2.0,
    }


def test_all_is_told_where_other_services_are_listed() -> None:
    for after in (
        replace(STATUS, services=(ONE,)),
        replace(STATUS, services=(TWO, ONE)),
        replace(STATUS, services=(ONE, replace(TWO, number=2))),
        replace(STATUS, project="other"),
    ):
        assert told(after) == as_json(after)
