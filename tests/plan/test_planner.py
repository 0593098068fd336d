"""The planner, case by case: desired + actual + memory -> the next steps. Names are sentences."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from dom0.engine.bodies import EndpointIpamConfig, EndpointSettings, RestartPolicy, UpdateBody
from dom0.engine.values import (
    Container,
    ContainerSummary,
    Endpoint,
    Health,
    Mount,
    Network,
    PublishedPort,
    State,
    Volume,
)
from dom0.plan import labels
from dom0.plan.actual import Actual
from dom0.plan.desired import (
    Attachment,
    Condition,
    Dependency,
    Desired,
    HealthTest,
    InjectedFile,
    Order,
    Role,
    Slot,
    VolumeSpec,
)
from dom0.plan.hashing import BY_COMPOSE
from dom0.plan.memory import CRASH_BUDGET, CRASH_BUDGET_NEW, Memory, RefusedStep, SlotVersion
from dom0.plan.phase import Phase
from dom0.plan.planner import Plan, make_plan
from dom0.plan.snapshot import version
from dom0.plan.steps import AnyStep, StartContainer, StopContainer
from dom0.plan.text import say_step
from dom0.testing.builders import NETWORK, PROJECT, actual, container, desired, image_id, network_spec, slot

NOW = 1000.0
NOTHING = Memory()
HEALTH = HealthTest(argv=("true",))


def plan(want: Desired, found: Actual, memory: Memory = NOTHING) -> Plan:
    return make_plan(want, found, memory, NOW)


def said(made: Plan) -> list[str]:
    return [say_step(step) for step in made.steps]


def phase(made: Plan, service: str) -> Phase:
    return next(p.phase for p in made.slots if p.slot.service == service)


def only(made: Plan) -> AnyStep:
    assert len(made.steps) == 1, said(made)
    return made.steps[0]


# from nothing


def test_volumes_come_before_containers() -> None:
    want = desired(slot("web", volumes=("box_data",)), volumes=(VolumeSpec(key="data", name="box_data"),))
    made = plan(want, actual(networks=()))
    assert sorted(said(made)) == ["create network box_default", "create volume box_data"]
    assert made.slots[0].reason == "waits for volume box_data"


def test_a_container_is_created_beside_its_network_and_started_after_it() -> None:
    web = slot("web")
    assert said(plan(desired(web), actual(networks=()))) == ["create network box_default", "create box-web-1"]
    unconnected = (Endpoint(network=NETWORK, network_id=""),)
    created = container(web, state=State.CREATED, endpoints=unconnected)
    made = plan(desired(web), actual(created, networks=()))
    assert said(made) == ["create network box_default"]
    assert made.slots[0].reason == "waits for network box_default"
    assert said(plan(desired(web), actual(created))) == ["start box-web-1"]


def test_a_container_is_created_after_a_network_that_is_replaced() -> None:
    want = replace(desired(slot("web")), networks=(network_spec("n2"),))
    assert said(plan(want, actual())) == ["replace network box_default"]


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        (EndpointIpamConfig(), ["create network box_default", "create box-web-1"]),
        (EndpointIpamConfig(ipv4_address="10.9.0.9"), ["create network box_default"]),
        (EndpointIpamConfig(ipv6_address="fd00::9"), ["create network box_default"]),
        (EndpointIpamConfig(link_local_ips=("169.254.8.8",)), ["create network box_default"]),
    ],
)
def test_a_container_with_a_fixed_address_is_created_after_its_network(
    asked: EndpointIpamConfig, steps: list[str]
) -> None:
    fixed = Attachment(network=NETWORK, endpoint=EndpointSettings(ipam_config=asked))
    made = plan(desired(slot("web", attachments=(fixed,))), actual(networks=()))
    assert said(made) == steps


def test_in_a_scope_a_container_is_created_after_its_network() -> None:
    made = plan(desired(slot("web")), actual(networks=(), in_scope=True))
    assert said(made) == ["create network box_default"]
    assert made.slots[0].reason == "waits for network box_default"


def test_a_missing_container_is_created_then_started() -> None:
    web = slot("web")
    assert said(plan(desired(web), actual())) == ["create box-web-1"]
    made = plan(desired(web), actual(container(web, state=State.CREATED)))
    assert said(made) == ["start box-web-1"]


def test_what_is_as_asked_needs_no_step_and_is_settled() -> None:
    web = slot("web")
    made = plan(desired(web), actual(container(web)))
    assert (said(made), made.settled, made.well) == ([], True, True)


def test_an_external_network_that_is_missing_is_a_problem_and_never_created() -> None:
    want = desired(slot("web"))
    want = replace(want, networks=(replace(network_spec(), external=True),))
    made = plan(want, actual(networks=()))
    assert said(made) == []
    assert [problem.code for problem in made.problems] == ["external-missing"]


def test_a_network_of_the_same_name_that_is_not_ours_is_used_as_it_is() -> None:
    foreign = Network(id="x", name=NETWORK, driver="bridge", labels={})
    assert said(plan(desired(slot("web")), actual(networks=(foreign,)))) == ["create box-web-1"]


def test_a_changed_network_is_replaced_and_its_containers_are_connected_again() -> None:
    web = slot("web")
    want = replace(desired(web), networks=(network_spec("n2"),))
    step = only(plan(want, actual(container(web))))
    assert say_step(step) == "replace network box_default"
    assert step.attached == (container(web).id,)  # type: ignore[union-attr]
    new = Network(id="new", name=NETWORK, driver="bridge", labels={labels.PROJECT: PROJECT, labels.HASH: "n2"})
    found = actual(container(web, endpoints=()), networks=(new,))
    assert said(plan(want, found)) == ["connect box-web-1 to box_default"]


# dependencies


@pytest.mark.parametrize(
    ("condition", "db", "starts"),
    [
        (Condition.STARTED, {"state": State.RUNNING}, True),
        (Condition.STARTED, {"state": State.CREATED}, False),
        (Condition.HEALTHY, {"health": Health.STARTING}, False),
        (Condition.HEALTHY, {"health": Health.HEALTHY}, True),
        (Condition.COMPLETED, {"state": State.RUNNING}, False),
        (Condition.COMPLETED, {"state": State.EXITED, "exit_code": 0}, True),
        (Condition.COMPLETED, {"state": State.EXITED, "exit_code": 1}, False),
    ],
)
def test_a_first_start_waits_for_its_condition(condition: Condition, db: dict[str, Any], starts: bool) -> None:
    data = slot("db", health=HEALTH if condition is Condition.HEALTHY else None)
    web = slot("web", depends_on=(Dependency(service="db", condition=condition),))
    made = plan(desired(web, data), actual(container(web, state=State.CREATED), container(data, **db)))
    assert ("start box-web-1" in said(made)) is starts
    assert (phase(made, "web") is Phase.WAITING) is not starts


def test_a_health_gate_that_passed_counts_before_the_engine_says_so() -> None:
    data = slot("db", health=HEALTH)
    web = slot("web", depends_on=(Dependency(service="db", condition=Condition.HEALTHY),))
    db = container(data, health=Health.STARTING, started=50.0)
    found = actual(container(web, state=State.CREATED), db)
    assert said(plan(desired(web, data), found, Memory(health_passed={db.id: 50.0}))) == ["start box-web-1"]
    assert said(plan(desired(web, data), found, Memory(health_passed={db.id: 49.0}))) == []


def test_a_killed_container_comes_back_without_waiting_for_its_dependencies() -> None:
    data = slot("db", health=HEALTH)
    web = slot("web", depends_on=(Dependency(service="db", condition=Condition.HEALTHY),))
    dead = container(web, state=State.EXITED, exit_code=137)
    made = plan(desired(web, data), actual(dead, container(data, health=Health.STARTING)))
    assert said(made) == ["start box-web-1"]


def test_an_optional_dependency_that_failed_holds_nobody_up() -> None:
    data = slot("db", restart_policy="no")
    web = slot("web", depends_on=(Dependency(service="db", condition=Condition.COMPLETED, required=False),))
    failed = container(data, state=State.EXITED, exit_code=1)
    memory = Memory(crash_loops={"db-1": SlotVersion(data.hash, data.image_id)})
    made = plan(desired(web, data), actual(container(web, state=State.CREATED), failed), memory)
    assert said(made) == ["start box-web-1"]


def test_longer_chains_go_first() -> None:
    a, b, c = slot("a"), slot("b", depends_on=(Dependency(service="a"),)), slot("c")
    assert said(plan(desired(c, b, a), actual()))[0] == "create box-a-1"


def test_a_dependent_with_restart_follows_its_replaced_dependency() -> None:
    data = slot("db")
    web = slot("web", depends_on=(Dependency(service="db", restart=True),))
    made = plan(desired(web, data), actual(container(web, started=101.0), container(data, created=200.0)))
    assert said(made) == ["restart box-web-1"]


# replacement


def test_start_first_keeps_the_old_one_until_the_new_one_is_ready() -> None:
    old, new = slot("web"), slot("web", hash="h2", health=HEALTH)
    running = container(old, id="a" * 64)
    step = only(plan(desired(new), actual(running)))
    assert say_step(step) == "create aaaaaaaaaaaa_box-web-1"
    created = container(new, id="b" * 64, name="aaaaaaaaaaaa_box-web-1", state=State.CREATED, created=200.0)
    assert said(plan(desired(new), actual(running, created))) == ["start box-web-1"]
    starting = replace(created, state=State.RUNNING, started=201.0, health=Health.STARTING)
    assert said(plan(desired(new), actual(running, starting))) == []
    ready = replace(starting, health=Health.HEALTHY)
    assert said(plan(desired(new), actual(running, ready))) == ["stop box-web-1"]
    stopped = replace(running, state=State.EXITED)
    assert said(plan(desired(new), actual(stopped, ready))) == ["remove box-web-1"]
    assert said(plan(desired(new), actual(ready))) == ["rename aaaaaaaaaaaa_box-web-1 to box-web-1"]


def test_stop_first_stops_the_old_one_only_when_the_new_one_could_start() -> None:
    old, new = slot("web", order=Order.STOP_FIRST), slot("web", hash="h2", order=Order.STOP_FIRST)
    running = container(old, id="a" * 64)
    assert said(plan(desired(new), actual(running))) == ["create aaaaaaaaaaaa_box-web-1"]
    created = container(new, id="b" * 64, name="aaaaaaaaaaaa_box-web-1", state=State.CREATED, created=200.0)
    assert said(plan(desired(new), actual(running, created))) == ["stop box-web-1"]
    assert said(plan(desired(new), actual(replace(running, state=State.EXITED), created))) == ["start box-web-1"]


def test_the_old_one_is_kept_stopped_while_the_generation_is_pending() -> None:
    old, new = slot("web"), slot("web", hash="h2")
    found = actual(
        container(old, id="a" * 64, state=State.EXITED, name="aaaaaaaaaaaa_box-web-1"),
        container(new, id="b" * 64, created=200.0),
    )
    kept = Memory(pending=True, last_good={"web-1": SlotVersion(old.hash, old.image_id)})
    assert said(plan(desired(new), found, kept)) == []
    assert said(plan(desired(new), found)) == ["remove aaaaaaaaaaaa_box-web-1"]


def test_a_kept_predecessor_gives_up_its_name() -> None:
    old, new = slot("web"), slot("web", hash="h2")
    found = actual(
        container(old, id="a" * 64, state=State.EXITED),
        container(new, id="b" * 64, name="aaaaaaaaaaaa_box-web-1", created=200.0),
    )
    kept = Memory(pending=True, last_good={"web-1": SlotVersion(old.hash, old.image_id)})
    assert said(plan(desired(new), found, kept)) == ["rename box-web-1 to bbbbbbbbbbbb_box-web-1"]


def test_going_back_starts_the_kept_container_again() -> None:
    old, new = slot("web"), slot("web", hash="h2")
    stopped = container(old, id="a" * 64, state=State.EXITED, exit_code=0, name="aaaaaaaaaaaa_box-web-1")
    broken = container(new, id="b" * 64, created=200.0, state=State.EXITED, exit_code=1)
    assert said(plan(desired(old), actual(stopped, broken), Memory(stopped={stopped.id: 1.0}))) == ["start box-web-1"]


def test_another_image_is_another_container() -> None:
    web = slot("web")
    old = container(web, id="a" * 64, image_id=image_id("older"))
    step = only(plan(desired(web), actual(old)))
    assert step.reason == "its image changed"


def test_anonymous_volumes_move_to_the_replacement_and_forbid_two_writers() -> None:
    old, new = slot("web"), slot("web", hash="h2", anonymous=("/data",))
    mount = Mount(type="volume", name="f" * 64, target="/data")
    running = container(old, id="a" * 64, mounts=(mount,))
    step = only(plan(desired(new), actual(running)))
    assert step.inherit == {"/data": "f" * 64}  # type: ignore[union-attr]
    created = container(new, id="b" * 64, name="x", state=State.CREATED, created=200.0, mounts=(mount,))
    assert said(plan(desired(new), actual(running, created))) == ["stop box-web-1"]


def test_a_service_that_takes_over_a_port_waits_until_the_leaving_one_has_stopped() -> None:
    port = PublishedPort("tcp", 80)
    old = container(slot("old", ports=(port,)))
    new = slot("new", ports=(port,))
    made = plan(desired(new), actual(old, container(new, state=State.CREATED)))
    assert said(made) == ["stop box-old-1"]


def test_a_renamed_service_waits_until_the_volume_is_free() -> None:
    mount = Mount(type="volume", name="box_data", target="/data")
    old = container(slot("database"), mounts=(mount,))
    new = slot("db", volumes=("box_data",), order=Order.STOP_FIRST)
    found = actual(
        old, container(new, state=State.CREATED), volumes=(Volume(name="box_data", driver="local", labels={}),)
    )
    assert said(plan(desired(new), found)) == ["stop box-database-1"]


def test_a_container_in_use_is_not_replaced_before_it_is_idle() -> None:
    old = slot("sshd", role=Role.SSHD)
    new = slot("sshd", hash="h2", role=Role.SSHD, defer_while=("sshd-session",))
    running = container(old)
    busy = actual(running, processes={running.id: ("sshd: listener", "sshd-session: dom0@pts/0")})
    made = plan(desired(new), busy)
    assert (said(made), made.settled) == ([], True)
    assert "in use" in made.slots[0].reason
    idle = actual(running, processes={running.id: ("sshd: listener",)})
    assert said(plan(desired(new), idle)) != []


def test_force_recreates_what_was_there() -> None:
    web = slot("web")
    old = container(web)
    assert said(plan(desired(web), actual(old), Memory(recreate=(old.id,))))[0].startswith("create ")


# jobs on a schedule


def test_a_run_goes_on_though_the_generation_that_began_it_is_left_and_no_other_begins_beside_it() -> None:
    good, left = slot("job", schedule="every 1m"), slot("job", hash="h2", schedule="every 1m")
    waiting, running = container(good, state=State.EXITED), container(left, name="box-job-1-new")
    made = plan(desired(good), actual(waiting, running))
    assert made.slots[0].container == running
    assert not [step for step in made.steps if isinstance(step, StartContainer | StopContainer)]


def test_a_job_that_is_due_waits_for_one_that_leaves_and_writes_the_same_volume() -> None:
    mount = Mount(type="volume", target="/data", name="box_data")
    old = container(slot("dump"), mounts=(mount,))
    job = slot("backup", volumes=("box_data",), order=Order.STOP_FIRST, schedule="every 1m")
    volumes = (Volume(name="box_data", driver="local", labels={}),)
    made = plan(desired(job), actual(old, container(job, state=State.CREATED), volumes=volumes))
    assert said(made) == ["stop box-dump-1"]


def test_all_is_well_while_a_job_becomes_due_unless_the_engine_refuses_to_start_it() -> None:
    job = slot("job", schedule="every 1m")
    idle = container(job, state=State.EXITED)
    made = plan(desired(job), actual(idle))
    assert (said(made), made.well, made.slots[0].phase) == (["start box-job-1"], True, Phase.SCHEDULED)
    refusal = RefusedStep(version=version(job), subject="job-1", message="no", code="", retry_at=NOW + 5)
    made = plan(desired(job), actual(idle), Memory(refused={"slot:job-1": refusal}))
    assert (said(made), made.well, made.slots[0].phase, made.slots[0].reason) == ([], False, Phase.FAILED, "no")


def test_a_service_is_stopped_while_a_job_runs_and_started_when_it_does_not() -> None:
    job, db = slot("job", schedule="every 1m", stops=("db",)), slot("db", restart_policy="always")
    ended = replace(container(job, state=State.EXITED), started=NOW - 1, finished=NOW - 1, created=NOW - 2)
    made = plan(desired(job, db), actual(container(job), container(db)))
    assert (said(made), phase(made, "db"), made.well) == (["stop box-db-1"], Phase.STOPPED, True)
    stopped = container(db, state=State.EXITED)
    made = plan(desired(job, db), actual(container(job), stopped), Memory(stopped={stopped.id: NOW}))
    assert (said(made), made.slots[1].reason) == ([], "stopped while job runs")
    made = plan(desired(job, db), actual(ended, stopped), Memory(stopped={stopped.id: NOW}))
    assert [(say_step(step), step.reason) for step in made.steps] == [("start box-db-1", "dom0 had stopped it")]
    made = plan(desired(job, db), actual(ended, stopped), Memory(stopped_by_person={stopped.id: NOW}))
    assert (said(made), phase(made, "db")) == ([], Phase.STOPPED)


# namespaces


def test_a_child_is_made_with_the_id_of_its_parent_and_remade_with_a_new_one() -> None:
    parent, child = slot("vpn"), slot("app", parents=("vpn",), attachments=())
    step = next(s for s in plan(desired(child, parent), actual(container(parent))).steps)
    assert step.parents == {"vpn": container(parent).id}  # type: ignore[union-attr]
    attached_to_old = container(child, network_mode="container:" + "0" * 64, endpoints=())
    made = plan(desired(child, parent), actual(container(parent), attached_to_old))
    assert only(made).reason == "vpn, which it shares namespaces or volumes with, is a new container"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "Docker Compose made it from another configuration"),
        ({"parents": ("vpn",)}, "Docker Compose made it, and what shares namespaces or volumes with vpn is made anew"),
        (
            {"files": (InjectedFile(path="/key", content=b"", mode=0o400),)},
            "Docker Compose made it, and what has texts of configs or secrets written into it is made anew",
        ),
    ],
)
def test_what_compose_made_is_replaced_for_a_reason_that_is_known(fields: dict[str, Any], reason: str) -> None:
    vpn, app = slot("vpn"), slot("app", **fields)
    theirs = container(replace(app, hash=f"{BY_COMPOSE}1"))
    made = plan(desired(vpn, app), actual(container(vpn), theirs))
    assert only(made).reason == reason


@pytest.mark.parametrize("state", [State.REMOVING, State.DEAD])
def test_what_is_being_removed_is_made_anew_because_it_was_removed(state: State) -> None:
    web = slot("web")
    made = plan(desired(web), actual(container(web, state=state)))
    assert only(made).reason == "it was removed"


def test_the_name_of_a_predecessor_that_is_just_being_removed_is_waited_for() -> None:
    """The Engine would keep it for ever for one that it renames meanwhile (26.1: moby's ContainerRename)."""
    web = slot("web")
    old = container(replace(web, hash="old"), id="1" * 64, name="box-web-1", state=State.REMOVING)
    made = plan(desired(web), actual(container(web, name="111111111111_box-web-1"), old))
    assert (said(made), made.problems, made.well) == ([], (), True)


def test_a_child_restarts_after_its_parent_restarted() -> None:
    parent, child = slot("vpn"), slot("app", parents=("vpn",), attachments=())
    vpn = container(parent, started=500.0)
    app = container(child, network_mode=f"container:{vpn.id}", started=200.0, endpoints=())
    assert said(plan(desired(child, parent), actual(vpn, app))) == ["restart box-app-1"]


# what the host's processes tell


def test_a_container_whose_process_is_gone_is_not_ready_whatever_the_engine_says_and_is_restarted() -> None:
    db, web = slot("db"), slot("web", depends_on=(Dependency(service="db", condition=Condition.HEALTHY),))
    gone = container(db)
    made = plan(desired(db, web), actual(gone, container(web, state=State.CREATED), vanished=frozenset({gone.id})))
    step = only(made)
    assert (say_step(step), step.reason) == ("restart box-db-1", "its process is gone, and the Engine did not notice")
    assert [(p.phase, p.reason) for p in made.slots] == [
        (Phase.STARTING, "its process is gone, and the Engine did not notice"),
        (Phase.WAITING, "waits for db to be healthy"),
    ]


def test_a_container_with_a_socket_of_an_engine_that_was_made_anew_is_restarted() -> None:
    web = slot("web")
    found = container(web)
    made = plan(desired(web), actual(found, cut_off=frozenset({found.id})))
    assert only(made).reason == "the Engine's socket was made anew, and it has the one before bound"


def test_an_orchestrator_is_restarted_for_its_new_socket_when_that_is_served() -> None:
    server = slot("dom0-socket-guest", role=Role.SOCKET)
    guest = slot("guest", depends_on=(Dependency(service=server.service, condition=Condition.HEALTHY),))
    found, asked = container(guest), desired(server, guest)
    made = plan(asked, actual(container(server, state=State.CREATED), found, cut_off=frozenset({found.id})))
    assert said(made) == ["start box-dom0-socket-guest-1"]
    made = plan(asked, actual(container(server), found, cut_off=frozenset({found.id})))
    assert said(made) == ["restart box-guest-1"]


def test_a_login_is_not_ended_for_the_sake_of_the_engines_new_socket() -> None:
    sshd = slot("dom0-sshd", defer_while=("sshd: dom0@",))
    found = container(sshd)
    made = plan(
        desired(sshd),
        actual(found, cut_off=frozenset({found.id}), processes={found.id: ("sshd: dom0@pts/0",)}),
    )
    assert (said(made), made.settled) == ([], True)
    assert made.slots[0].reason == "in use; it is restarted for the Engine's new socket as soon as it is not"


# ends, crashes, persons


def test_a_job_that_ended_with_0_is_complete() -> None:
    job = slot("job")
    made = plan(desired(job), actual(container(job, state=State.EXITED)))
    assert (said(made), phase(made, "job"), made.settled) == ([], Phase.COMPLETED, True)


def test_a_job_that_completed_is_not_run_again_when_its_container_is_gone() -> None:
    job = slot("job")
    memory = Memory(completed={"job-1": SlotVersion(job.hash, job.image_id)})
    assert said(plan(desired(job), actual(), memory)) == []
    assert said(plan(desired(slot("job", hash="h2")), actual(), memory)) == ["create box-job-1"]


def test_what_we_stopped_ourselves_has_not_completed() -> None:
    web = slot("web")
    stopped = container(web, state=State.EXITED, exit_code=0)
    assert said(plan(desired(web), actual(stopped), Memory(stopped={stopped.id: 1.0}))) == ["start box-web-1"]


def test_what_a_person_stopped_stays_stopped() -> None:
    web = slot("web", restart_policy="always")
    stopped = container(web, state=State.EXITED)
    made = plan(desired(web), actual(stopped), Memory(stopped_by_person={stopped.id: 1.0}))
    assert (said(made), phase(made, "web")) == ([], Phase.STOPPED)
    assert [problem.code for problem in made.problems] == ["held"]


def test_a_crashed_container_is_started_at_once_and_later_with_growing_pauses() -> None:
    web = slot("web")
    dead = container(web, state=State.EXITED, exit_code=1)
    assert said(plan(desired(web), actual(dead), Memory(crashes={dead.id: (NOW,)}))) == ["start box-web-1"]
    made = plan(desired(web), actual(dead), Memory(crashes={dead.id: (NOW - 1, NOW, NOW)}))
    assert (said(made), made.retry_at) == ([], NOW + 2.0)


@pytest.mark.parametrize(("pending", "budget"), [(False, CRASH_BUDGET), (True, CRASH_BUDGET_NEW)])
def test_a_crash_loop_is_given_up_when_its_budget_is_used_up(pending: bool, budget: int) -> None:
    web = slot("web", restart_policy="always")
    looping = container(web, state=State.RESTARTING, exit_code=1)
    memory = Memory(crashes={looping.id: (NOW,) * budget}, pending=pending)
    assert said(plan(desired(web), actual(looping), memory)) == ["give up restarting box-web-1"]
    fewer = Memory(crashes={looping.id: (NOW,) * (budget - 1)}, pending=pending)
    assert said(plan(desired(web), actual(looping), fewer)) == []


def test_old_crashes_are_forgiven() -> None:
    web = slot("web")
    dead = container(web, state=State.EXITED, exit_code=1)
    memory = Memory(crashes={dead.id: (NOW - 3600,) * 20})
    assert said(plan(desired(web), actual(dead), memory)) == ["start box-web-1"]


def test_a_service_given_up_is_replaced_by_a_new_configuration() -> None:
    old, new = slot("web"), slot("web", hash="h2")
    memory = Memory(crash_loops={"web-1": SlotVersion(old.hash, old.image_id)})
    ended = container(old, state=State.EXITED, exit_code=1)
    made = plan(desired(old), actual(ended), memory)
    assert (said(made), phase(made, "web")) == ([], Phase.CRASH_LOOP)
    assert said(plan(desired(new), actual(ended), memory))[0].startswith("create ")


def test_a_service_given_up_is_not_well_although_the_stop_was_taken_for_a_persons() -> None:
    """As by an agent that hears of it only after its own start."""
    web = slot("web")
    ended = container(web, state=State.EXITED, exit_code=1, restart_policy="no")
    memory = Memory(crash_loops={"web-1": SlotVersion(web.hash, web.image_id)}, stopped_by_person={ended.id: NOW})
    made = plan(desired(web), actual(ended), memory)
    assert (made.well, phase(made, "web")) == (False, Phase.CRASH_LOOP)


def test_an_unhealthy_container_is_restarted_unless_its_generation_is_being_judged() -> None:
    web = slot("web", health=HEALTH)
    sick = container(web, health=Health.UNHEALTHY)
    assert said(plan(desired(web), actual(sick))) == ["restart box-web-1"]
    assert said(plan(desired(web), actual(sick), Memory(pending=True))) == []


def test_a_refused_step_waits_and_tells_why() -> None:
    web = slot("web")
    refusal = RefusedStep(
        version=SlotVersion(web.hash, web.image_id),
        subject="web-1",
        message="port taken",
        code="port-taken",
        retry_at=NOW + 5,
    )
    memory = Memory(refused={"slot:web-1": refusal})
    made = plan(desired(web), actual(), memory)
    assert (said(made), made.retry_at, made.settled) == ([], NOW + 5, False)
    assert [problem.code for problem in made.problems] == ["port-taken"]
    other = slot("web", hash="h2")
    assert said(plan(desired(other), actual(), memory)) == ["create box-web-1"]


def test_what_is_tried_again_after_a_refusal_still_says_why_it_does_not_run() -> None:
    web = slot("web", depends_on=(Dependency(service="db"),))
    refusal = RefusedStep(
        version=SlotVersion(web.hash, web.image_id), subject="web-1", message="port taken", code="", retry_at=NOW - 1
    )
    memory = Memory(refused={"slot:web-1": refusal})
    made = plan(desired(slot("db"), web), actual(container(slot("db")), container(web, state=State.CREATED)), memory)
    assert said(made) == ["start box-web-1"]
    assert (made.slots[1].reason, made.slots[1].refused) == ("port taken", True)
    waits = plan(desired(slot("db"), web), actual(container(web, state=State.CREATED)), memory).slots[1]
    assert (waits.phase, waits.refused) == (Phase.WAITING, False)


# drift


def test_a_changed_limit_is_put_right() -> None:
    web = slot("web", resources={"Memory": 64})
    drifted = container(web, resources={"Memory": 128})
    step = only(plan(desired(web), actual(drifted)))
    assert (say_step(step), step.update) == ("update box-web-1", UpdateBody(memory=64, memory_swap=128))  # type: ignore[union-attr]


@pytest.mark.parametrize("found", [{}, {"MemorySwap": -1}])
def test_a_limit_that_the_kernel_lacks_is_not_asked_for_again(found: dict[str, int]) -> None:
    web = slot("web", resources={"BlkioWeight": 300, "MemorySwap": 64})
    assert said(plan(desired(web), actual(container(web, resources=found)))) == []


def test_a_changed_restart_policy_is_put_right() -> None:
    web = slot("web", restart_policy="always")
    step = only(plan(desired(web), actual(container(web, restart_policy="no"))))
    assert step.update == UpdateBody(restart_policy=RestartPolicy(name="always"))  # type: ignore[union-attr]


def test_a_renamed_container_gets_its_name_back() -> None:
    web = slot("web")
    assert said(plan(desired(web), actual(container(web, name="mine")))) == ["rename mine to box-web-1"]


def test_a_disconnected_container_is_connected_again_while_it_runs() -> None:
    web = slot("web")
    assert said(plan(desired(web), actual(container(web, endpoints=())))) == ["connect box-web-1 to box_default"]


def test_a_network_that_was_removed_and_made_again_is_connected_afresh() -> None:
    web = slot("web")
    stale = container(web, state=State.EXITED, exit_code=1, endpoints=(Endpoint(network=NETWORK, network_id="gone"),))
    step = only(plan(desired(web), actual(stale)))
    assert (say_step(step), step.stale) == ("connect box-web-1 to box_default", True)  # type: ignore[union-attr]


def test_a_name_that_somebody_else_has_is_left_alone_and_told() -> None:
    web = slot("web")
    ours = container(web, name="ffffffffffff_box-web-1")
    made = plan(desired(web), actual(ours, foreign={"box-web-1": "f" * 64}))
    assert said(made) == []
    assert [problem.code for problem in made.problems] == ["name-taken"]


# what nobody asks for


def test_orphans_go_only_when_everything_asked_for_is_well() -> None:
    web, old = slot("web"), slot("old")
    assert said(plan(desired(web), actual(container(old)))) == ["create box-web-1"]
    assert said(plan(desired(web), actual(container(web), container(old)))) == ["stop box-old-1"]
    gone = container(old, state=State.EXITED)
    assert said(plan(desired(web), actual(container(web), gone))) == ["remove box-old-1"]


def in_scope(name: str, path: str = "/guest", state: State = State.RUNNING) -> ContainerSummary:
    return ContainerSummary(id=f"id-{name}", name=name, image_id="", state=state, labels={"dom0.scope": path})


def test_an_orchestrator_is_the_last_of_its_scope_that_goes() -> None:
    served = container(slot("dom0-socket-guest", name="dom0-socket-guest", role=Role.SOCKET))
    guest = container(slot("guest", name="guest.dom0"))
    guest = replace(guest, labels=guest.labels | {"dom0.scope": "/guest"})
    others = (
        in_scope("guest.db"),
        in_scope("guest.team.web", "/guest/team"),
        in_scope("guest.job", state=State.EXITED),
    )
    foreign = (in_scope("else.web", "/else"), in_scope("guest.alike", "/else"), in_scope("guests.web", "/guests"))
    made = plan(desired(), actual(guest, served, others=(*others, *foreign)))
    assert set(said(made)) == {"stop guest.dom0", "stop dom0-socket-guest"}
    ended = replace(guest, state=State.EXITED)
    unserved = replace(served, state=State.EXITED)
    made = plan(desired(), actual(ended, served, others=(*others, *foreign)))
    assert said(made) == ["stop dom0-socket-guest"]
    made = plan(desired(), actual(ended, unserved, others=(*others, *foreign)))
    assert set(said(made)) == {"stop guest.db", "stop guest.team.web"}
    made = plan(desired(), actual(ended, unserved, others=foreign))
    assert set(said(made)) == {"remove guest.dom0", "remove dom0-socket-guest"}


def test_a_service_that_is_no_orchestrator_any_more_leaves_nothing_running_in_its_scope() -> None:
    guest = slot("guest")
    served = container(slot("dom0-socket-guest", name="dom0-socket-guest", role=Role.SOCKET), state=State.EXITED)
    made = plan(desired(guest), actual(container(guest), served, others=(in_scope("guest.db"),)))
    assert said(made) == ["stop guest.db"]


def test_dependents_stop_before_what_they_depend_on() -> None:
    db = container(slot("db"))
    web = container(slot("web"))
    label = {"com.docker.compose.depends_on": "db:service_started:false"}
    web = replace(web, labels=web.labels | label)
    made = plan(replace(desired(), networks=()), actual(web, db))
    assert said(made) == ["stop box-web-1"]


def test_our_networks_go_with_their_last_container_and_volumes_never() -> None:
    volume = Volume(name="box_data", driver="local", labels={labels.PROJECT: PROJECT})
    nothing = replace(desired(), networks=())
    assert said(plan(nothing, actual(volumes=(volume,)))) == ["remove network box_default"]


def test_a_container_that_is_never_started_is_only_created() -> None:
    home = slot("home-volume", role=Role.HOME, runs=False, attachments=())
    assert said(plan(desired(home), actual())) == ["create box-home-volume-1"]
    made = plan(desired(home), actual(container(home, state=State.CREATED, endpoints=())))
    assert (said(made), phase(made, "home-volume"), made.settled) == ([], Phase.DATA, True)


def test_of_two_containers_for_one_slot_the_running_one_stays() -> None:
    web = slot("web")
    one: Container = container(web, id="a" * 64)
    two = container(web, id="b" * 64, name="other", state=State.CREATED, created=300.0)
    assert said(plan(desired(web), actual(one, two))) == ["remove other"]


def test_the_same_values_give_the_same_plan() -> None:
    slots: tuple[Slot, ...] = tuple(slot(f"s{i}") for i in range(5))
    assert plan(desired(*slots), actual()) == plan(desired(*slots), actual())


def test_a_replacement_finds_a_free_name_although_a_foreign_container_has_its_own() -> None:
    old, new = slot("web"), slot("web", hash="h2")
    foreign = {old.name: "f" * 64}
    first = plan(desired(old), actual(foreign=foreign)).steps[0]
    running = container(old, name=first.name)  # type: ignore[union-attr]
    step = plan(desired(new), actual(running, foreign=foreign)).steps[0]
    assert step.name not in {first.name, old.name}  # type: ignore[union-attr]


@pytest.mark.parametrize("state", [State.EXITED, State.CREATED, State.RESTARTING])
def test_what_lives_in_anothers_namespace_waits_until_that_one_runs(state: State) -> None:
    parent, child = slot("vpn"), slot("app", parents=("vpn",), attachments=())
    vpn = container(parent, state=state, exit_code=1)
    app = container(child, network_mode=f"container:{vpn.id}", state=State.EXITED, exit_code=1, endpoints=())
    made = plan(desired(child, parent), actual(vpn, app), Memory(stopped_by_person={vpn.id: 1.0}))
    assert (phase(made, "app"), "start box-app-1" in said(made)) == (Phase.WAITING, False)


def test_a_service_given_up_gets_another_chance_when_what_it_depends_on_has_come_back() -> None:
    db, web = slot("db"), slot("web", depends_on=(Dependency(service="db"),))
    gone = container(web, state=State.EXITED, exit_code=1, finished=NOW - 300, restart_policy="no")
    memory = Memory(
        crash_loops={"web-1": SlotVersion(web.hash, web.image_id)}, crashes={gone.id: (NOW - 310,) * CRASH_BUDGET}
    )
    for since, steps in ((NOW - 400, []), (NOW - 10, ["start box-web-1"])):
        assert said(plan(desired(db, web), actual(container(db, started=since), gone), memory)) == steps


def test_a_service_given_up_that_a_person_starts_is_left_running() -> None:
    web = slot("web", restart_policy="always")
    memory = Memory(crash_loops={"web-1": SlotVersion(web.hash, web.image_id)})
    assert said(plan(desired(web), actual(container(web)), memory)) == ["give up restarting box-web-1"]
    started = container(web, restart_policy="no")  # giving up had taken it away
    assert said(plan(desired(web), actual(started), memory)) == ["update box-web-1"]


def test_a_refusal_to_remove_what_is_left_over_does_not_keep_the_plan_from_being_well() -> None:
    web = slot("web")
    left = container(slot("gone"), state=State.EXITED)
    refusal = RefusedStep(
        version=SlotVersion("", ""), subject="x", message="busy", code="engine-refused", retry_at=NOW + 5
    )
    made = plan(desired(web), actual(container(web), left), Memory(refused={f"container:{left.id}": refusal}))
    assert (made.well, made.settled, made.refused, len(made.problems)) == (True, True, None, 1)
