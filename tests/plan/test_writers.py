"""Two containers that write to the same place: which cases count, and which do not."""

from __future__ import annotations

from typing import Any

import pytest

from dom0.engine import bodies
from dom0.engine.values import ContainerSummary, Mount, State
from dom0.health import Severity
from dom0.plan.desired import Role, Slot
from dom0.plan.memory import Memory
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan, make_plan
from dom0.plan.writers import Writer, compose_containers, other_writers
from dom0.testing.builders import actual, asking, container, desired, slot


def volume(name: str = "box_data", **fields: Any) -> Slot:
    return asking(slot("db"), host={"mounts": (bodies.Mount(type="volume", source=name, target="/data", **fields),)})


def bind(source: str, options: str = "rw") -> Slot:
    return asking(slot("db"), host={"binds": (f"{source}:/data:{options}",)})


def other(*mounts: Mount, state: State = State.RUNNING, labels: dict[str, str] | None = None) -> ContainerSummary:
    return ContainerSummary(id="f" * 64, name="foreign", image_id="i", state=state, labels=labels or {}, mounts=mounts)


def named(name: str, *, writable: bool = True) -> Mount:
    return Mount(
        type="volume", target="/x", source=f"/var/lib/docker/volumes/{name}/_data", name=name, writable=writable
    )


def directory(source: str, *, writable: bool = True) -> Mount:
    return Mount(type="bind", target="/x", source=source, writable=writable)


def writers(of: Slot, *others: ContainerSummary, **fields: Any) -> tuple[Writer, ...]:
    return other_writers(desired(of, **fields), of, others)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.RESTARTING])
def test_a_running_container_with_the_same_volume_is_a_writer(state: State) -> None:
    assert writers(volume(), other(named("box_data"), state=state)) == (Writer("foreign", "box_data"),)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("/srv/app/data", "/srv/app/data"),
        ("/srv/app/data", "/srv/app"),
        ("/srv/app", "/srv/app/data/x"),
        ("/home/me/box/data", "/home/me"),
    ],
)
def test_a_directory_that_is_the_same_inside_or_around_has_two_writers(ours: str, theirs: str) -> None:
    assert writers(bind(ours), other(directory(theirs))) == (Writer("foreign", ours),)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (volume(), other(named("box_data", writable=False))),
        (volume(read_only=True), other(named("box_data"))),
        (volume(), other(named("box_data"), state=State.EXITED)),
        (volume(), other(named("box_data"), state=State.CREATED)),
        (volume(), other(named("box_data2"))),
        (bind("/srv/app/data"), other(directory("/srv/app/data", writable=False))),
        (bind("/srv/app/data", "ro"), other(directory("/srv/app/data"))),
        (bind("/srv/app/data"), other(directory("/srv/app/data2"))),
        (bind("/srv/app/data"), other(directory("/"))),
        (bind("/srv/app/data"), other(directory("/srv"))),
        (bind("/var/lib/app"), other(directory("/var/lib"))),
        (bind("/var/run/docker.sock"), other(directory("/var/run/docker.sock"))),
        (bind("/run/docker.sock"), other(directory("/run"))),
        (bind("/etc/localtime"), other(directory("/etc/localtime"))),
        (bind("/dev/dri"), other(directory("/dev/dri"))),
        (volume(), other(named("box_data"), labels={"dom0.role": "dev"})),
        (volume(), other(named("box_data"), labels={"dom0.role": "root"})),
    ],
)
def test_these_are_not_two_writers(ours: Slot, theirs: ContainerSummary) -> None:
    assert writers(ours, theirs) == ()


def test_what_the_project_says_is_shared_may_have_more() -> None:
    assert writers(volume(), other(named("box_data")), shared=("box_data",)) == ()
    assert writers(bind("/srv/media"), other(directory("/srv/media")), shared=("/srv/media",)) == ()


def test_the_home_volume_is_there_to_be_shared() -> None:
    ours, home = volume("home-volume"), slot("home-volume", role=Role.HOME, volumes=("home-volume",))
    assert other_writers(desired(ours, home), ours, [other(named("home-volume"))]) == ()


def test_containers_of_compose_are_those_that_run_or_have_our_names() -> None:
    of_image = {"com.docker.compose.project": "box", "com.docker.compose.service": "db"}
    theirs = of_image | {"com.docker.compose.container-number": "1"}
    runs = other(labels=theirs)
    stopped = ContainerSummary(id="2", name="box-db-1", image_id="i", state=State.EXITED, labels=theirs)
    elsewhere = ContainerSummary(id="3", name="x", image_id="i", state=State.EXITED, labels=theirs)
    another = other(labels=theirs | {"com.docker.compose.project": "box2"})
    by_hand = other(labels=of_image)  # docker run of an image that Compose built
    assert compose_containers(desired(slot("db")), [runs, stopped, elsewhere, another, by_hand]) == (runs, stopped)


def plan(of: Slot, *ours: Any, others: tuple[ContainerSummary, ...]) -> Plan:
    return make_plan(desired(of), actual(*ours, others=others), Memory(), 1000.0)


def test_a_second_writer_is_neither_created_nor_started() -> None:
    theirs = (other(named("box_data")),)
    for ours in (
        (),
        (container(volume(), state=State.CREATED),),
        (container(volume(), state=State.EXITED, exit_code=1),),
    ):
        made = plan(volume(), *ours, others=theirs)
        assert made.steps == ()
        assert (made.slots[0].phase, made.well) == (Phase.WAITING, False)
        assert [(p.code, p.severity) for p in made.problems] == [("volume-in-use", Severity.ERROR)]
        assert plan(volume(), *ours, others=()).steps


def test_what_runs_is_left_and_the_other_writer_is_told() -> None:
    made = plan(volume(), container(volume()), others=(other(named("box_data")),))
    assert (made.steps, made.well) == ((), True)
    assert [(p.code, p.severity) for p in made.problems] == [("volume-in-use", Severity.WARNING)]


def test_a_name_that_compose_has_is_not_to_be_renamed() -> None:
    ours = container(slot("db"), name="123456789abc_box-db-1")
    theirs = ContainerSummary(
        id="2", name="box-db-1", image_id="i", state=State.RUNNING, labels={"com.docker.compose.project": "old"}
    )
    made = make_plan(desired(slot("db")), actual(ours, others=(theirs,), foreign={"box-db-1": "2"}), Memory(), 1000.0)
    assert [(p.code, p.hint) for p in made.problems] == [("name-taken", "docker compose -p old down")]
