"""What `dom0 plan` lists."""

from __future__ import annotations

from msgspec.structs import replace

from dom0.engine.values import Network, State, Volume
from dom0.plan import labels
from dom0.plan.actual import Actual
from dom0.plan.desired import Condition, Dependency, Desired, Metrics, Notify, Sharing, VolumeSpec, Web
from dom0.plan.memory import Memory
from dom0.plan.preview import preview, preview_sharing, preview_told
from dom0.plan.snapshot import version
from dom0.testing.builders import NETWORK, actual, asking, container, desired, slot

NOW = 1000.0


def planned(asked: Desired, found: Actual, memory: Memory | None = None) -> list[tuple[str, str, str]]:
    changes = preview(asked, found, memory or Memory(), NOW)
    return [(change.action, change.name, change.reason) for change in changes]


def test_a_machine_as_desired_has_no_changes() -> None:
    web = slot("web")
    assert planned(desired(web), actual(container(web))) == []


def test_everything_of_a_new_machine_is_listed_though_it_is_made_in_several_waves() -> None:
    db = slot("db", volumes=("box_data",))
    web = slot("web", depends_on=(Dependency(service="db", condition=Condition.HEALTHY),))
    asked = desired(web, db, volumes=(VolumeSpec(key="data", name="box_data"),))
    assert [(action, name) for action, name, _ in planned(asked, Actual())] == [
        ("create", NETWORK),
        ("create", "box_data"),
        ("create", "box-db-1"),
        ("create", "box-web-1"),
    ]


def test_a_change_says_whether_image_or_configuration_is_the_cause() -> None:
    old = actual(container(slot("a")), container(slot("b")))
    asked = desired(slot("a", image="app2"), slot("b", hash="h2"))
    assert planned(asked, old) == [
        ("replace", "box-a-1", "its image changed"),
        ("replace", "box-b-1", "its configuration changed"),
    ]


def test_what_shares_a_namespace_with_something_replaced_is_replaced_too() -> None:
    old = container(slot("app"))
    new, sidecar = slot("app", hash="h2"), slot("sidecar", parents=("app",), attachments=())
    sidecar = asking(sidecar, host={"network_mode": "service:app"})
    found = actual(old, container(sidecar, network_mode=f"container:{old.id}"))
    assert [(action, name) for action, name, _ in planned(desired(new, sidecar), found)] == [
        ("replace", "box-app-1"),
        ("replace", "box-sidecar-1"),
    ]


def test_a_dependent_with_restart_true_is_restarted_when_its_dependency_is_replaced() -> None:
    new, web = slot("db", hash="h2"), slot("web", depends_on=(Dependency(service="db", restart=True),))
    found = actual(container(slot("db")), container(web))
    assert planned(desired(new, web), found)[1] == ("restart", "box-web-1", "db was replaced")


def test_a_stopped_service_is_started_and_a_finished_job_is_not() -> None:
    web, job = slot("web", restart_policy="always"), slot("job")
    ended = container(job, state=State.EXITED, restart_policy="no")
    found = actual(container(web, state=State.EXITED), ended)
    assert [(action, name) for action, name, _ in planned(desired(web, job), found)] == [("start", "box-web-1")]


def test_a_job_that_ran_for_this_configuration_is_not_planned_again_without_its_container() -> None:
    job = slot("job")
    assert planned(desired(job), actual(), Memory(completed={job.key: version(job)})) == []
    assert planned(desired(job), actual())[0][0] == "create"


def test_what_nobody_asks_for_any_more_is_removed_but_never_a_volume() -> None:
    web, gone = slot("web"), slot("gone")
    ours = {labels.PROJECT: "box"}
    found = actual(container(web), container(gone))
    found = replace(
        found,
        networks=(*found.networks, Network(id="n9", name="box_old", driver="bridge", labels=ours)),
        own_networks=found.own_networks | {"n9"},
        volumes=(Volume(name="box_old", driver="local", labels=ours),),
    )
    assert planned(desired(web), found) == [
        ("remove", "box-gone-1", "no longer in the project"),
        ("remove", "box_old", "no longer in the project"),
    ]


def test_which_machines_are_asked_for_images_and_may_ask_is_listed() -> None:
    def shares(asked: Sharing, found: Sharing) -> list[tuple[str, str, str]]:
        return [(change.action, change.kind, change.name) for change in preview_sharing(asked, found)]

    here = Sharing(peers=("192.0.2.7:5050",), listen="192.0.2.5:5050", allow=("192.0.2.0/24",))
    assert shares(here, here) == []
    assert shares(here, Sharing()) == [("update", "peers", "192.0.2.7:5050"), ("start", "serve", "192.0.2.5:5050")]
    assert shares(Sharing(), here) == [("update", "peers", "none"), ("stop", "serve", "192.0.2.5:5050")]
    assert shares(replace(here, rate=1000), here) == [("update", "serve", "192.0.2.5:5050")]
    moved = replace(here, listen="192.0.2.6:5050")
    assert shares(moved, here) == [("stop", "serve", "192.0.2.5:5050"), ("start", "serve", "192.0.2.6:5050")]


def test_where_numbers_and_what_goes_wrong_are_told_is_listed() -> None:
    def told(asked: Desired, found: Desired) -> list[tuple[str, str, str]]:
        return [(change.action, change.kind, change.name) for change in preview_told(asked, found)]

    nothing = desired()
    here = replace(nothing, metrics=Metrics(listen="127.0.0.1:9180"))
    assert told(here, here) == []
    assert told(here, nothing) == [("start", "metrics", "127.0.0.1:9180")]
    assert told(nothing, here) == [("stop", "metrics", "127.0.0.1:9180")]
    there = replace(nothing, metrics=Metrics(listen="0.0.0.0:9180", allow=("192.0.2.0/24",)))
    assert told(there, here) == [("stop", "metrics", "127.0.0.1:9180"), ("start", "metrics", "0.0.0.0:9180")]
    assert told(replace(there, metrics=Metrics(listen="0.0.0.0:9180")), there) == [
        ("update", "metrics", "0.0.0.0:9180")
    ]
    page = replace(nothing, web=Web(listen="0.0.0.0:8443"))
    assert told(page, nothing) == [("start", "web", "0.0.0.0:8443")]
    assert told(nothing, page) == [("stop", "web", "0.0.0.0:8443")]
    named = replace(nothing, web=Web(listen="0.0.0.0:8443", names=("box.lan",)))
    assert told(named, page) == [("update", "web", "0.0.0.0:8443")]
    assert told(replace(nothing, notify=Notify(ntfy="https://x/y")), nothing) == [("update", "notify", "x-dom0.notify")]
