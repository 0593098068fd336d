"""Restart policies, and what a restart or crash of the Engine does, on the fake Engine and on a real one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dom0.engine.bodies import UpdateBody
from dom0.engine.values import State
from dom0.errors import Conflict, EngineUnreachable
from dom0.testing.engine_bench import HANDLES_TERM, IGNORES_TERM, Bench

FAILS = ("sh", "-c", "exit 3")


def policy(name: str, retries: int = 0) -> dict[str, Any]:
    return {"RestartPolicy": {"Name": name, "MaximumRetryCount": retries}}


async def wait_for_backoff(bench: Bench, ref: str) -> None:
    """Until the Engine waits long enough before its next start that a test can do something meanwhile."""
    await bench.until(ref, lambda found: found.state is State.RESTARTING and found.restart_count >= 5)


async def test_a_policy_is_found_as_it_was_set_and_changed(bench: Bench) -> None:
    await bench.create("one", "true")
    assert (await bench.engine.container("one")).restart_policy == "no"
    await bench.engine.update_container("one", msgspec.convert(policy("on-failure", 3), UpdateBody))
    container = await bench.engine.container("one")
    assert (container.restart_policy, container.restart_retries) == ("on-failure", 3)


async def test_on_failure_gives_up_after_its_retries(bench: Bench) -> None:
    await bench.run("one", *FAILS, host=policy("on-failure", 2))
    container = await bench.until("one", lambda found: found.state is State.EXITED and found.restart_count == 2)
    assert container.exit_code == 3
    await bench.engine.start_container("one")
    assert (await bench.engine.container("one")).restart_count < 2


async def test_on_failure_is_content_with_success(bench: Bench) -> None:
    await bench.run("one", "true", host=policy("on-failure"))
    container = await bench.until_state("one", State.EXITED)
    assert container.restart_count == 0


@pytest.mark.parametrize("name", ["always", "unless-stopped"])
async def test_what_ends_by_itself_is_started_again(bench: Bench, name: str) -> None:
    await bench.run("one", "true", host=policy(name))
    await bench.until("one", lambda found: found.restart_count >= 2)


@pytest.mark.parametrize("name", ["always", "unless-stopped", "on-failure"])
async def test_what_a_person_stops_or_kills_stays_down(bench: Bench, name: str) -> None:
    await bench.run("stopped", *HANDLES_TERM, host=policy(name))
    await bench.run("killed", *HANDLES_TERM, host=policy(name))
    await bench.engine.stop_container("stopped")
    await bench.kill("killed", "SIGKILL")
    for ref in ("stopped", "killed"):
        container = await bench.until_state(ref, State.EXITED)
        assert container.restart_count == 0


async def test_any_signal_lays_the_policy_to_rest_until_the_next_start(bench: Bench) -> None:
    await bench.run("one", "sleep", "3", host=policy("always"))  # longer than a busy machine takes for the signal
    await bench.kill("one", "SIGHUP")
    assert await bench.engine.wait_container("one") == 0
    container = await bench.engine.container("one")
    assert (container.state, container.restart_count) == (State.EXITED, 0)
    await bench.engine.start_container("one")
    await bench.until("one", lambda found: found.restart_count > 0)


async def test_while_it_waits_for_its_restart_a_container_counts_as_running(bench: Bench) -> None:
    await bench.run("one", *FAILS, host=policy("always"))
    await wait_for_backoff(bench, "one")
    container = await bench.engine.container("one")
    assert (container.running, container.pid, container.exit_code) == (True, 0, 3)
    await bench.engine.start_container("one")
    assert (await bench.engine.container("one")).state is State.RESTARTING
    with pytest.raises(Conflict):
        await bench.engine.exec("one", ["true"])
    with pytest.raises(Conflict):
        await bench.engine.remove_container("one")
    await bench.engine.remove_container("one", force=True)
    assert await bench.engine.containers() == ()


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_waiting_for_a_restart_can_be_ended(bench: Bench, how: str) -> None:
    await bench.run("one", *FAILS, host=policy("always"))
    await wait_for_backoff(bench, "one")
    if how == "stop":
        await bench.engine.stop_container("one")
    else:
        await bench.kill("one", "SIGKILL")
    container = await bench.engine.container("one")
    assert (container.state, container.exit_code) == (State.EXITED, 3)


async def test_a_policy_taken_away_while_waiting_allows_one_more_start(bench: Bench) -> None:
    await bench.run("one", *FAILS, host=policy("always"))
    await wait_for_backoff(bench, "one")
    before = await bench.engine.container("one")
    await bench.engine.update_container("one", msgspec.convert(policy("no"), UpdateBody))
    after = await bench.until_state("one", State.EXITED)
    assert after.started > before.started
    assert after.restart_count == before.restart_count


async def test_after_a_restart_of_the_engine_policies_decide_what_runs(bench: Bench) -> None:
    for name in ("always", "unless-stopped", "on-failure", "no"):
        await bench.create(f"{name}-created", *IGNORES_TERM, host=policy(name))
        await bench.run(f"{name}-running", *HANDLES_TERM, host=policy(name))
        await bench.run(f"{name}-stopped", *HANDLES_TERM, host=policy(name))
        await bench.engine.stop_container(f"{name}-stopped")
    await bench.restart_engine()
    running = {"always-running", "always-stopped", "unless-stopped-running", "on-failure-running", "on-failure-stopped"}
    for name in running:
        await bench.until_state(name, State.RUNNING)
    assert {row.name for row in await bench.engine.containers() if row.state is State.RUNNING} == running
    assert (await bench.engine.container("no-running")).exit_code == 5
    assert (await bench.engine.container("always-created")).state is State.CREATED


async def test_after_a_crash_of_the_engine_unless_stopped_stays_down(bench: Bench) -> None:
    for name in ("always", "unless-stopped", "on-failure", "no"):
        await bench.run(name, *HANDLES_TERM, host=policy(name))
    await bench.kill_engine()
    await bench.start_engine()
    for name in ("always", "on-failure"):
        await bench.until_state(name, State.RUNNING)
    for name in ("unless-stopped", "no"):
        container = await bench.until_state(name, State.EXITED)
        assert container.exit_code == 5


async def test_an_engine_that_is_down_is_unreachable(bench: Bench) -> None:
    await bench.run("one", *HANDLES_TERM)
    events = bench.engine.events(since=bench.began)
    first = await anext(events)
    assert first.action == "create"
    await bench.kill_engine()
    with pytest.raises(EngineUnreachable):
        async for _ in events:
            pass
    with pytest.raises(EngineUnreachable):
        await bench.engine.containers()
    with pytest.raises(EngineUnreachable):
        await anext(bench.engine.events())
    await bench.start_engine()
    assert [row.name for row in await bench.engine.containers()] == ["one"]


async def test_a_restarted_engine_has_forgotten_its_events(bench: Bench) -> None:
    await bench.create("before", "true")
    await bench.restart_engine()
    await bench.create("after", "true")
    created = [event.attributes["name"] for event in await bench.past_events()]
    assert created == ["after"]
