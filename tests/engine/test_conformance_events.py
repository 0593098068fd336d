"""What the Engine tells and in which order, on the fake Engine and on a real one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from dom0.engine.bodies import NetworkBody, RestartPolicy, UpdateBody, VolumeBody
from dom0.engine.values import Event, State
from dom0.errors import EngineError
from dom0.testing.engine_bench import DEADLINE, HANDLES_TERM, IGNORES_TERM, Bench

LABELS = {"dom0.project": "p", "a": "1"}


async def story(bench: Bench, last: str) -> list[str]:
    """The actions of containers and networks up to `last`, without probes and programs that were run inside."""
    told: list[str] = []
    async with asyncio.timeout(DEADLINE), bench.events() as events:
        async for event in events:
            if event.type in ("container", "network") and not event.action.startswith("exec_"):
                told.append(f"network {event.action}" if event.type == "network" else event.action)
            if told[-1:] == [last]:
                return told
    raise AssertionError(f"the stream ended before {last}: {told}")


async def until_action(bench: Bench, action: str) -> Event:
    async with asyncio.timeout(DEADLINE), bench.events() as events:
        async for event in events:
            if event.action == action:
                return event
    raise AssertionError(f"the stream ended before {action}")


async def test_a_life_from_create_to_destroy(bench: Bench) -> None:
    await bench.run("one", *HANDLES_TERM)
    await bench.engine.stop_container("one")
    await bench.engine.remove_container("one")
    told = await story(bench, "destroy")
    assert told[:5] + told[7:] == ["create", "network connect", "start", "kill", "network disconnect", "destroy"]
    assert sorted(told[5:7]) == ["die", "stop"]  # of two threads of the Engine, one each


async def test_a_restart_is_told_as_a_stop_and_a_start(bench: Bench) -> None:
    await bench.run("one", *HANDLES_TERM)
    await bench.engine.restart_container("one")
    told = [one for one in await story(bench, "restart") if not one.startswith("network")]
    assert [told[0], told[1], told[2], *told[5:]] == ["create", "start", "kill", "start", "restart"]
    assert sorted(told[3:5]) == ["die", "stop"]


async def test_a_stop_that_ran_out_of_grace_kills_twice(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    await bench.engine.stop_container("one", timeout=1)
    signals = [e.attributes["signal"] for e in await bench.past_events() if e.action == "kill"]
    assert signals == ["15", "9"]
    assert (await until_action(bench, "die")).attributes["exitCode"] == "137"


async def test_a_kill_is_not_told_as_a_stop(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    await bench.kill("one", "SIGKILL")
    assert await story(bench, "die") == ["create", "network connect", "start", "kill", "network disconnect", "die"]


async def test_removing_by_force_tells_of_a_kill(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    await bench.engine.remove_container("one", force=True)
    assert (await story(bench, "destroy"))[3:] == ["kill", "network disconnect", "die", "destroy"]


async def test_an_end_by_itself_is_told_as_die_alone(bench: Bench) -> None:
    await bench.run("one", "sh", "-c", "sleep 0.2; exit 3")
    assert (await story(bench, "die"))[3:] == ["network disconnect", "die"]
    assert (await until_action(bench, "die")).attributes["exitCode"] == "3"


async def test_a_start_that_is_refused_is_not_told(bench: Bench) -> None:
    await bench.create("one", "nothing-of-that-name", host={"NetworkMode": "none"})
    with pytest.raises(EngineError):
        await bench.engine.start_container("one")
    await bench.engine.remove_container("one")
    assert not {"start", "die"} & set(await story(bench, "destroy"))


async def test_stopping_what_waits_for_a_restart_tells_only_stop(bench: Bench) -> None:
    await bench.run("one", "false", host={"RestartPolicy": {"Name": "always"}, "NetworkMode": "none"})
    found = await bench.until("one", lambda c: c.state is State.RESTARTING and c.restart_count >= 5)
    await bench.engine.stop_container("one")
    await bench.engine.remove_container("one")
    told = [action for action in await story(bench, "destroy") if not action.startswith("network")]
    assert told == ["create", *["start", "die"] * found.restart_count, "stop", "destroy"]


async def test_rename_and_update_are_told(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM, labels=LABELS)
    await bench.engine.rename_container("one", "two")
    await bench.engine.update_container("two", UpdateBody(restart_policy=RestartPolicy(name="always")))
    assert (await story(bench, "update"))[3:] == ["rename", "update"]
    renamed = await until_action(bench, "rename")
    assert (renamed.attributes["name"], renamed.attributes["oldName"]) == ("two", "/one")


async def test_events_of_a_container_carry_its_labels(bench: Bench) -> None:
    container_id = await bench.create("one", "true", labels=LABELS)
    event = await until_action(bench, "create")
    assert (event.type, event.id) == ("container", container_id)
    assert event.attributes == LABELS | {"name": "one", "image": "busybox:test"}


async def test_health_is_told_when_it_changes(bench: Bench) -> None:
    check = {"Test": ["CMD", "test", "-f", "/well"], "Interval": 200_000_000, "Retries": 1}
    await bench.run("one", *IGNORES_TERM, Healthcheck=check)
    await until_action(bench, "health_status: unhealthy")
    await bench.engine.exec("one", ["touch", "/well"])
    await until_action(bench, "health_status: healthy")
    told = await story(bench, "health_status: healthy")
    assert told[3:] == ["health_status: unhealthy", "health_status: healthy"]


async def test_networks_and_volumes_are_told_without_labels(bench: Bench) -> None:
    network = await bench.engine.create_network("net", NetworkBody(labels=LABELS))
    await bench.engine.create_volume("vol", VolumeBody(labels=LABELS))
    container = await bench.run("one", *IGNORES_TERM, host={"NetworkMode": "net", "Binds": ["vol:/vol"]})
    await bench.engine.remove_container("one", force=True)
    await bench.engine.remove_network("net")
    await bench.engine.remove_volume("vol")
    events = await bench.past_events()
    assert [(e.action, e.id) for e in events if e.type == "network"] == [
        ("create", network),
        ("connect", network),
        ("disconnect", network),
        ("destroy", network),
    ]
    assert [(e.action, e.id) for e in events if e.type == "volume"] == [
        ("create", "vol"),
        ("mount", "vol"),
        ("unmount", "vol"),
        ("destroy", "vol"),
    ]
    connect = next(e for e in events if e.action == "connect")
    assert connect.attributes == {"container": container, "name": "net", "type": "bridge"}
    assert all("a" not in e.attributes for e in events if e.type != "container")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"type": ["container"]}, ["one", "two"]),
        ({"event": ["create"], "type": ["container"]}, ["one", "two"]),
        ({"label": ["a=1"]}, ["one"]),
        ({"label": ["a"]}, ["one"]),
        ({"container": ["two"]}, ["two"]),
        ({"type": ["network", "container"], "event": ["destroy"]}, []),
    ],
)
async def test_only_what_passes_the_filters_is_told(bench: Bench, filters: dict[str, Any], names: list[str]) -> None:
    await bench.create("one", "true", labels=LABELS)
    await bench.create("two", "true")
    last = (await bench.past_events())[-1]
    await bench.engine.rename_container("one", "end")
    async with bench.events(**filters) as events:
        told = [await anext(events) for _ in names]
    assert [event.attributes["name"] for event in told] == names
    assert all(event.time <= last.time for event in told)


async def test_since_tells_again_from_that_moment_on(bench: Bench) -> None:
    await bench.create("one", "true")
    await bench.create("two", "true")
    first, second = await bench.past_events()
    assert second.time > first.time
    assert await bench.engine.past_events(since=first.time + 1e-6, until=bench.now()) == (second,)
    async with contextlib.aclosing(bench.engine.events(since=second.time - 1e-6)) as events:
        assert await anext(events) == second
        await bench.create("three", "true")
        assert (await anext(events)).attributes["name"] == "three"


async def test_the_engine_remembers_256_events(bench: Bench) -> None:
    await bench.create("name-0", "true")
    for number in range(300):
        await bench.engine.rename_container(f"name-{number}", f"name-{number + 1}")
    remembered = await bench.past_events()
    assert len(remembered) == 256
    assert remembered[-1].attributes["name"] == "name-300"
