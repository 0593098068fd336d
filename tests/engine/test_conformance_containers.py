"""What containers do, on the fake Engine and on a real one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import tarfile

import msgspec
import pytest

from dom0.engine.bodies import ContainerBody, UpdateBody
from dom0.engine.log_lines import read_lines
from dom0.engine.resources import UNLIMITED
from dom0.engine.values import Health, Mount, PublishedPort, State, Usage
from dom0.errors import Conflict, EngineError, NotFound
from dom0.testing.engine_bench import DEADLINE, HANDLES_TERM, IGNORES_TERM, IMAGE, Bench

PORT = 18461


async def test_a_created_container_is_listed_and_does_not_run(bench: Bench) -> None:
    container_id = await bench.create("one", "sleep", "1000", labels={"a": "1"})
    (row,) = await bench.engine.containers()
    assert (row.id, row.name, row.state, row.labels) == (container_id, "one", State.CREATED, {"a": "1"})
    container = await bench.engine.container("one")
    assert (container.id, container.name, container.image) == (container_id, "one", IMAGE)
    assert container.image_id == row.image_id == (await bench.engine.image(IMAGE)).id
    assert (container.running, container.started, container.finished, container.pid) == (False, 0.0, 0.0, 0)
    assert container.created > 0.0


async def test_only_containers_with_every_label_are_listed(bench: Bench) -> None:
    await bench.create("one", "true", labels={"a": "1", "b": "2"})
    await bench.create("two", "true", labels={"a": "2"})
    await bench.create("three", "true")

    async def names(*labels: str) -> set[str]:
        return {row.name for row in await bench.engine.containers(labels=labels)}

    assert await names("a") == {"one", "two"}
    assert await names("a=2") == {"two"}
    assert await names("a", "b=2") == {"one"}
    assert await names("a=1", "b=3") == set()


async def test_a_name_that_is_taken_is_a_conflict(bench: Bench) -> None:
    await bench.create("one", "true")
    with pytest.raises(Conflict):
        await bench.create("one", "true")


async def test_an_image_that_is_missing_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.engine.create_container("one", ContainerBody(image="nothing:1", cmd=("true",)))
    assert await bench.engine.containers() == ()


@pytest.mark.parametrize("name", ["_one", "o", "one two", "one/two", "ö", "one\n"])
async def test_a_name_that_the_engine_does_not_take_is_refused(bench: Bench, name: str) -> None:
    with pytest.raises(EngineError) as refusal:
        await bench.create(name, "true")
    assert not isinstance(refusal.value, Conflict | NotFound)
    assert await bench.engine.containers() == ()


async def test_without_a_command_nothing_is_created(bench: Bench) -> None:
    with pytest.raises(EngineError, match="no command"):
        await bench.create("one")


async def test_the_start_of_an_id_is_no_reference(bench: Bench) -> None:
    container_id = await bench.run("one", *IGNORES_TERM)
    for ref in (container_id[:12], container_id[:63], container_id[:1]):
        with pytest.raises(NotFound):
            await bench.engine.container(ref)
        with pytest.raises(NotFound):
            await bench.engine.stop_container(ref)
        await bench.engine.remove_container(ref, force=True)
    assert (await bench.engine.container(container_id)).state is State.RUNNING


async def test_a_name_that_could_be_an_id_means_the_container_of_that_name(bench: Bench) -> None:
    other = await bench.run("one", *IGNORES_TERM)
    named = await bench.create(other[:6], *IGNORES_TERM)
    await bench.engine.start_container(other[:6])
    assert (await bench.engine.container(other[:6])).id == named
    await bench.engine.remove_container(other[:6], force=True)
    await bench.engine.remove_container(other[:6], force=True)
    assert [row.id for row in await bench.engine.containers()] == [other]


@pytest.mark.parametrize("ref", ["", ".", "..", "one/json", "one?force=1", "one\0", "../images/json", "%2e%2e", "ö"])
async def test_a_reference_that_is_no_name_is_not_found(bench: Bench, ref: str) -> None:
    await bench.create("one", "true")
    with pytest.raises(NotFound):
        await bench.engine.container(ref)
    with pytest.raises(NotFound):
        await bench.engine.start_container(ref)


async def test_a_started_container_runs_and_starting_it_again_is_no_error(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    first = await bench.engine.container("one")
    assert (first.state, first.running, first.exit_code) == (State.RUNNING, True, 0)
    assert first.started >= first.created
    assert first.pid > 0
    await bench.engine.start_container("one")
    assert (await bench.engine.container("one")).started == first.started


async def test_a_missing_program_is_refused_at_start_and_the_container_says_why(bench: Bench) -> None:
    await bench.create("one", "nothing-of-that-name")
    with pytest.raises(EngineError, match="executable file not found"):
        await bench.engine.start_container("one")
    container = await bench.engine.container("one")
    assert (container.state, container.exit_code, container.started) == (State.CREATED, 127, 0.0)
    assert "nothing-of-that-name" in container.error


@pytest.mark.parametrize(("command", "code"), [(("true",), 0), (("sh", "-c", "sleep 0.1; exit 7"), 7)])
async def test_a_command_that_ends_leaves_its_exit_code(bench: Bench, command: tuple[str, ...], code: int) -> None:
    await bench.run("one", *command)
    assert await bench.engine.wait_container("one") == code
    container = await bench.until_state("one", State.EXITED)
    assert (container.exit_code, container.running, container.pid) == (code, False, 0)
    assert min(container.started, container.finished) > container.created  # the Engine may note a quick end first


async def test_a_container_that_never_started_need_not_be_waited_for(bench: Bench) -> None:
    await bench.create("one", "true")
    assert await bench.engine.wait_container("one") == 0


async def test_stop_lets_the_process_end_itself(bench: Bench) -> None:
    await bench.run("one", *HANDLES_TERM)
    await bench.engine.stop_container("one", timeout=20)
    container = await bench.engine.container("one")
    assert (container.state, container.exit_code) == (State.EXITED, 5)


@pytest.mark.parametrize("timeout", [0, 0.2, None])
async def test_stop_kills_what_does_not_end_in_its_grace(bench: Bench, timeout: float | None) -> None:
    await bench.run("one", *IGNORES_TERM, StopTimeout=1)
    async with asyncio.timeout(DEADLINE):  # until then process 1 is runc's, which a signal ends
        while not any("sleep" in process for process in await bench.engine.top("one")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await bench.engine.stop_container("one", timeout=timeout)
    container = await bench.engine.container("one")
    assert (container.state, container.exit_code) == (State.EXITED, 137)


async def test_the_grace_of_a_container_is_told(bench: Bench) -> None:
    await bench.create("one", "true", StopTimeout=25)
    await bench.create("two", "true")
    assert [(await bench.engine.container(name)).stop_grace for name in ("one", "two")] == [25.0, 10.0]


async def test_stopping_what_does_not_run_is_no_error(bench: Bench) -> None:
    await bench.create("one", "true")
    await bench.engine.stop_container("one")
    assert (await bench.engine.container("one")).state is State.CREATED


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_restart_leaves_it_running_whether_it_ran_or_not(bench: Bench, stopped: bool) -> None:
    await bench.run("one", *HANDLES_TERM)
    before = await bench.engine.container("one")
    if stopped:
        await bench.engine.stop_container("one")
    await bench.engine.restart_container("one", timeout=20)
    after = await bench.engine.container("one")
    assert (after.id, after.state, after.restart_count) == (before.id, State.RUNNING, 0)
    assert after.started > before.started


async def test_a_signal_reaches_the_process(bench: Bench) -> None:
    await bench.run("one", *HANDLES_TERM)
    await bench.kill("one", "SIGTERM")
    assert (await bench.until_state("one", State.EXITED)).exit_code == 5


async def test_a_running_container_is_removed_only_by_force(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    with pytest.raises(Conflict):
        await bench.engine.remove_container("one")
    await bench.engine.remove_container("one", force=True)
    assert await bench.engine.containers() == ()
    await bench.engine.remove_container("one", force=True)
    with pytest.raises(NotFound):
        await bench.engine.container("one")


async def test_a_running_container_can_be_renamed(bench: Bench) -> None:
    container_id = await bench.run("one", *IGNORES_TERM)
    await bench.create("two", "true")
    with pytest.raises(Conflict):
        await bench.engine.rename_container("one", "two")
    with pytest.raises(EngineError):
        await bench.engine.rename_container("one", "one")
    with pytest.raises(EngineError):
        await bench.engine.rename_container("one", "in valid")
    await bench.engine.rename_container("one", "three")
    assert (await bench.engine.container("three")).id == container_id
    with pytest.raises(NotFound):
        await bench.engine.container("one")


async def test_limits_are_found_as_they_were_set_and_changed(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM, host={"Memory": 64 << 20, "NanoCpus": 500_000_000, "PidsLimit": 0})
    found = await bench.engine.container("one")
    assert found.resources == {"Memory": 64 << 20, "NanoCpus": 500_000_000}
    await bench.engine.update_container("one", UpdateBody(memory=32 << 20, memory_swap=64 << 20, pids_limit=50))
    changed = await bench.engine.container("one")
    assert changed.resources == {"Memory": 32 << 20, "NanoCpus": 500_000_000, "PidsLimit": 50}


async def test_memory_grows_beyond_the_swap_limit_only_together_with_it(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM, host={"Memory": 64 << 20})
    with pytest.raises(Conflict):
        await bench.engine.update_container("one", UpdateBody(memory=256 << 20))
    await bench.engine.update_container("one", UpdateBody(memory=256 << 20, memory_swap=512 << 20))
    assert (await bench.engine.container("one")).resources == {"Memory": 256 << 20}


async def test_memory_changed_alone_leaves_its_swap_limit_behind(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM, host={"Memory": 64 << 20})
    await bench.engine.update_container("one", UpdateBody(memory=32 << 20))
    assert (await bench.engine.container("one")).resources == {"Memory": 32 << 20, "MemorySwap": 128 << 20}


async def test_limits_are_lifted_by_what_limits_nothing(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "CpuShares": 100, "CpuQuota": 50_000, "PidsLimit": 50}
    await bench.engine.update_container("one", msgspec.convert(limits, UpdateBody))
    assert (await bench.engine.container("one")).resources == limits
    await bench.engine.update_container("one", msgspec.convert(UNLIMITED, UpdateBody))
    assert (await bench.engine.container("one")).resources == {}


async def test_what_is_paused_goes_on_and_only_that(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    with pytest.raises(EngineError):
        await bench.engine.unpause_container("one")
    await bench.pause("one")
    assert (await bench.engine.container("one")).state is State.PAUSED
    await bench.engine.unpause_container("one")
    assert (await bench.engine.container("one")).state is State.RUNNING


async def test_exec_tells_output_and_exit_code(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM, Env=["A=1"])
    result = await bench.engine.exec("one", ["sh", "-c", "echo hello; echo world >&2; exit 3"])
    assert (result.exit_code, sorted(result.output.splitlines())) == (3, ["hello", "world"])
    env = await bench.engine.exec("one", ["env"], env=["B=2"])
    assert {"A=1", "B=2"} <= set(env.output.splitlines())
    assert (await bench.engine.exec("one", ["pwd"], workdir="/bin")).output == "/bin\n"
    assert (await bench.engine.exec("one", ["id", "-u"], user="65534")).output == "65534\n"


async def test_exec_replaces_and_takes_away_variables_of_the_container(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM, Env=["A=1", "B=2"])
    env = (await bench.engine.exec("one", ["env"], env=["A=3", "B"])).output.splitlines()
    assert [line for line in env if line.startswith(("A=", "B="))] == ["A=3"]


async def test_exec_is_given_all_capabilities_when_it_is_privileged(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)

    async def capabilities(*, privileged: bool) -> int:
        status = (await bench.engine.exec("one", ["cat", "/proc/self/status"], privileged=privileged)).output
        return int(re.findall(r"CapEff:\t([0-9a-f]+)", status)[0], base=16)

    assert await capabilities(privileged=True) > await capabilities(privileged=False)


async def test_exec_of_a_missing_program_fails_and_says_so(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    result = await bench.engine.exec("one", ["nothing-of-that-name"])
    assert result.exit_code in (126, 127)
    assert "nothing-of-that-name" in result.output


async def test_exec_needs_a_running_container(bench: Bench) -> None:
    await bench.create("one", "true")
    with pytest.raises(Conflict):
        await bench.engine.exec("one", ["true"])
    with pytest.raises(NotFound):
        await bench.engine.exec("two", ["true"])


async def test_exec_is_given_up_after_its_timeout(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    with pytest.raises(TimeoutError):
        await bench.engine.exec("one", ["sleep", "1000"], timeout=0.3)


async def test_an_exec_stream_tells_what_is_printed_while_the_command_goes_on(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    async with contextlib.aclosing(bench.engine.exec_stream("one", ["sh", "-c", "echo hello; sleep 1000"])) as pieces:
        assert await anext(pieces) == b"hello\n"


async def test_an_exec_stream_ends_with_its_command_and_says_how(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    assert [piece async for piece in bench.engine.exec_stream("one", ["true"])] == []
    with pytest.raises(EngineError, match="sh exited with code 3"):
        assert [piece async for piece in bench.engine.exec_stream("one", ["sh", "-c", "echo hello; exit 3"])] == []


async def test_an_exec_stream_of_a_missing_program_is_refused(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    with pytest.raises(EngineError, match="nothing-of-that-name"):
        _ = [piece async for piece in bench.engine.exec_stream("one", ["nothing-of-that-name"])]


async def test_an_exec_stream_needs_a_running_container(bench: Bench) -> None:
    await bench.create("one", "true")
    with pytest.raises(Conflict):
        await anext(bench.engine.exec_stream("one", ["true"]))
    with pytest.raises(NotFound):
        await anext(bench.engine.exec_stream("two", ["true"]))


async def test_an_exec_stream_ends_with_the_container(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    pieces = bench.engine.exec_stream("one", ["sh", "-c", "echo hello; sleep 1000"])
    assert await anext(pieces) == b"hello\n"
    await bench.kill("one", "SIGKILL")
    with pytest.raises(EngineError, match="sh exited with code 137"):
        await anext(pieces)


async def test_exec_ends_with_the_container(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    waiting = asyncio.ensure_future(bench.engine.exec("one", ["sh", "-c", "touch /began; sleep 1000"]))
    await bench.until_succeeds("one", "test", "-f", "/began")
    await bench.kill("one", "SIGKILL")
    assert (await waiting).exit_code == 137


async def test_logs_are_the_last_lines(bench: Bench) -> None:
    await bench.run("one", "sh", "-c", "echo one; echo two; echo three")
    await bench.until_state("one", State.EXITED)
    await bench.until_logged("one\ntwo\nthree\n", "one")
    assert await bench.engine.logs("one", tail=2) == "two\nthree\n"
    await bench.engine.start_container("one")
    await bench.until_state("one", State.EXITED)
    await bench.until_logged("three\none\ntwo\nthree\n", "one", tail=4)


async def test_logs_are_the_errors_alone_or_those_of_the_last_start(bench: Bench) -> None:
    await bench.run("one", "sh", "-c", "echo one; echo two >&2; echo three; echo four >&2")
    await bench.until_state("one", State.EXITED)
    await bench.until_logged("two\nfour\n", "one", errors_only=True)
    read = bench.now()
    await bench.engine.start_container("one")
    await bench.until_state("one", State.EXITED)
    await bench.until_logged("two\nfour\n" * 2, "one", errors_only=True)
    assert await bench.engine.logs("one", errors_only=True, since=read) == "two\nfour\n"


async def test_logs_that_are_followed_are_lines_with_their_times(bench: Bench) -> None:
    await bench.run("one", "sh", "-c", "echo one; echo two; echo three")
    await bench.until_state("one", State.EXITED)
    for tail, texts in ((None, [b"one", b"two", b"three"]), (2, [b"two", b"three"]), (0, [])):
        pieces = bench.engine.follow_logs("one", tail=tail)
        lines = [line for some in [batch async for batch in read_lines(pieces)] for line in some]
        assert [line.text for line in lines] == texts
        assert all(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line.moment) for line in lines)
    with pytest.raises(NotFound):
        await anext(bench.engine.follow_logs("nobody"))


async def test_top_tells_command_lines(bench: Bench) -> None:
    await bench.create("one", "sh", "-c", "touch /began; sleep 1000; true")
    with pytest.raises(Conflict):
        await bench.engine.top("one")
    await bench.engine.start_container("one")
    await bench.until_succeeds("one", "test", "-f", "/began")  # the Engine answers while runc still turns into it
    assert (await bench.engine.top("one"))[0] == "sh -c touch /began; sleep 1000; true"


async def test_what_a_container_uses_is_told_while_it_runs(bench: Bench) -> None:
    await bench.create("one", "sh", "-c", "while [ ! -e /enough ]; do :; done; sleep 1000")
    assert await bench.engine.usage("one") == Usage()
    await bench.engine.start_container("one")
    while (await bench.engine.usage("one")).processor == 0.0:  # noqa: ASYNC110 -- nobody tells of that
        await asyncio.sleep(0.1)
    await bench.engine.put_archive("one", "/", tar_of("enough", b""))
    assert (await bench.engine.usage("one")).read > 0.0
    await bench.engine.stop_container("one", timeout=0)
    assert await bench.engine.usage("one") == Usage()
    with pytest.raises(NotFound):
        await bench.engine.usage("nobody")


async def test_a_file_put_in_before_the_first_start_is_there(bench: Bench) -> None:
    await bench.create("one", *IGNORES_TERM)
    await bench.engine.put_archive("one", "/", tar_of("etc/dom0-test", b"content\n"))
    await bench.engine.start_container("one")
    assert (await bench.engine.exec("one", ["cat", "/etc/dom0-test"])).output == "content\n"
    tar = io.BytesIO()
    await bench.engine.get_archive("one", "/etc/dom0-test", tar)
    tar.seek(0)
    with tarfile.open(fileobj=tar) as archive:
        (entry,) = archive.getmembers()
        content = archive.extractfile(entry)
        assert (entry.name, content.read() if content else b"") == ("dom0-test", b"content\n")
    with pytest.raises(NotFound):
        await bench.engine.get_archive("one", "/nothing", tar)


async def test_a_taken_port_is_refused_at_start_until_it_is_free(bench: Bench) -> None:
    published = {"PortBindings": {"80/tcp": [{"HostPort": str(PORT)}]}}
    await bench.run("one", *IGNORES_TERM, host=published, ExposedPorts={"80/tcp": {}})
    await bench.create("two", *IGNORES_TERM, host=published, ExposedPorts={"80/tcp": {}})
    with pytest.raises(EngineError, match="port is already allocated"):
        await bench.engine.start_container("two")
    refused = await bench.engine.container("two")
    assert (refused.state, refused.ports) == (State.CREATED, (PublishedPort("tcp", PORT),))
    assert refused.published == {"80/tcp": refused.ports}
    assert "port is already allocated" in refused.error
    rows = {row.name: row.ports for row in await bench.engine.containers()}
    assert rows == {"one": (PublishedPort("tcp", PORT),), "two": ()}
    await bench.engine.stop_container("one", timeout=0)
    await bench.engine.start_container("two")
    started = await bench.engine.container("two")
    assert (started.state, started.error) == (State.RUNNING, "")


@pytest.mark.parametrize("mode", ["NetworkMode", "PidMode", "IpcMode"])
async def test_a_namespace_of_a_stopped_container_cannot_be_joined(bench: Bench, mode: str) -> None:
    parent = await bench.create("one", *IGNORES_TERM, host={"IpcMode": "shareable"})
    await bench.create("two", *IGNORES_TERM, host={mode: f"container:{parent}"})
    with pytest.raises(EngineError, match="running"):
        await bench.engine.start_container("two")
    await bench.engine.start_container("one")
    await bench.engine.start_container("two")
    child = await bench.engine.container("two")
    found = {"NetworkMode": child.network_mode, "PidMode": child.pid_mode, "IpcMode": child.ipc_mode}[mode]
    assert found == f"container:{parent}"


async def test_volumes_are_made_with_the_container_and_only_anonymous_ones_go_with_it(bench: Bench) -> None:
    await bench.create("one", "true", Volumes={"/anonymous": {}}, host={"Binds": ["named:/named", "/etc:/bound:ro"]})
    container = await bench.engine.container("one")
    anonymous, bound, named = container.mounts
    assert bound == Mount(type="bind", target="/bound", source="/etc", writable=False)
    assert (named.type, named.target, named.name, named.writable) == ("volume", "/named", "named", True)
    assert (anonymous.type, anonymous.target, len(anonymous.name)) == ("volume", "/anonymous", 64)
    volumes = {volume.name: volume for volume in await bench.engine.volumes()}
    assert volumes.keys() == {"named", anonymous.name}
    assert volumes["named"].mountpoint == named.source
    await bench.engine.remove_container("one", volumes=True)
    assert [volume.name for volume in await bench.engine.volumes()] == ["named"]


async def test_anonymous_volumes_survive_their_container_unless_told_otherwise(bench: Bench) -> None:
    await bench.create("one", "true", Volumes={"/anonymous": {}})
    await bench.engine.remove_container("one")
    assert len(await bench.engine.volumes()) == 1


async def test_volumes_from_another_container_are_inherited(bench: Bench) -> None:
    await bench.create("home", "true", host={"Mounts": [{"Type": "volume", "Source": "data", "Target": "/data"}]})
    await bench.create("dev", "true", host={"VolumesFrom": ["home:ro"]})
    container = await bench.engine.container("dev")
    assert [(m.name, m.target, m.writable) for m in container.mounts] == [("data", "/data", False)]
    assert container.volumes_from == ("home:ro",)
    with pytest.raises(EngineError):
        await bench.create("other", "true", host={"VolumesFrom": ["nothing"]})


async def test_without_a_health_check_there_is_no_health(bench: Bench) -> None:
    await bench.run("one", *IGNORES_TERM)
    assert (await bench.engine.container("one")).health is Health.NONE
    await bench.run("two", *IGNORES_TERM, Healthcheck={"Test": ["NONE"]})
    assert (await bench.engine.container("two")).health is Health.NONE


async def test_health_follows_the_health_command(bench: Bench) -> None:
    check = {"Test": ["CMD", "test", "-f", "/well"], "Interval": 200_000_000, "Retries": 2}
    await bench.run("one", *IGNORES_TERM, Healthcheck=check)
    assert (await bench.engine.container("one")).health is Health.STARTING
    await bench.until("one", lambda container: container.health is Health.UNHEALTHY)
    await bench.engine.exec("one", ["touch", "/well"])
    await bench.until("one", lambda container: container.health is Health.HEALTHY)


async def test_health_command_may_fail_in_the_start_period(bench: Bench) -> None:
    check = {
        "Test": ["CMD-SHELL", "test -f /well"],
        "Interval": 100_000_000,
        "StartInterval": 100_000_000,
        "StartPeriod": 1_000_000_000_000,
        "Retries": 1,
    }
    await bench.run("one", *IGNORES_TERM, Healthcheck=check)
    async with bench.events(event=["exec_die"]) as events:
        for _ in range(3):
            await anext(events)
    assert (await bench.engine.container("one")).health is Health.STARTING
    await bench.engine.exec("one", ["touch", "/well"])
    await bench.until("one", lambda container: container.health is Health.HEALTHY)


def tar_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
