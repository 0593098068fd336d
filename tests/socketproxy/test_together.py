"""Scopes that one process serves, each as its file says."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dom0.errors import Dom0Error
from dom0.socketproxy import kept, registrations
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.together import Serving
from dom0.socketproxy.together import Together as InThisProcess
from dom0.testing import api, busybox, scopes
from dom0.testing.escape.raw import Client
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
PATIENCE = 60.0  # seconds
USES = "images: {use: [busybox]}"


@pytest.fixture
def together(engine_host: Host, tmp_path: Path) -> Iterator[scopes.Together]:
    with scopes.Together(engine_host, tmp_path, {"guest": USES, "team": USES}) as served:
        served.await_served("guest", "team")
        yield served


def _may_use(path: Path) -> bool:
    return Client(path).ask("GET", f"/images/{busybox.IMAGE}/json").status == 200


def test_each_sees_its_own(together: scopes.Together) -> None:
    made = {}
    for scope in ("guest", "team"):
        body = {"Image": busybox.IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
        made[scope] = api.request(together.socket(scope), "POST", "/containers/create", body, query={"name": "web"})
    for scope, container in made.items():
        listed = api.request(together.socket(scope), "GET", "/containers/json", query={"all": "1"})
        assert [(one["Id"], one["Names"]) for one in listed] == [(container["Id"], ["/web"])]
        api.request(together.socket(scope), "DELETE", "/containers/web")


def test_the_files_are_followed_and_others_are_not_disturbed(together: scopes.Together) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as events:
        events.settimeout(PATIENCE)
        events.connect(str(together.socket("team")))
        events.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert events.recv(1 << 16).startswith(b"HTTP/1.1 200")
        together.write("guest", "{}")
        together.write("third", USES)
        together.reload()
        together.await_served("guest", "third")
        assert _may_use(together.socket("third"))
        together.remove("third")
        together.reload()
        _until_gone(together.socket("third"))
        _until_not_used(together.socket("guest"))
        api.request(together.socket("team"), "POST", "/networks/create", {"Name": "front"})
        assert b"front" in events.recv(1 << 16)
        api.request(together.socket("team"), "DELETE", "/networks/front")


def _until_gone(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while path.exists():
        assert time.monotonic() < deadline


def _until_not_used(path: Path) -> None:
    """What was served before answers what came before it ended."""
    deadline = time.monotonic() + PATIENCE
    while _may_use(path):
        assert time.monotonic() < deadline


def test_a_file_that_is_not_understood_changes_nothing(together: scopes.Together, tmp_path: Path) -> None:
    together.write("guest", "imges: {}")
    together.write("third", "imges: {}")
    together.write("fourth", USES)
    together.reload()
    together.await_served("fourth")
    assert _may_use(together.socket("guest"))
    assert not together.socket("third").exists()
    assert "third" in (tmp_path / "serve.log").read_text()
    together.write("third", USES)
    together.reload()
    together.await_served("third")


def test_a_directory_without_a_file_changes_nothing(together: scopes.Together, tmp_path: Path) -> None:
    together.remove("guest")
    together.remove("team")
    together.reload()
    deadline = time.monotonic() + PATIENCE
    while "nothing changes" not in (tmp_path / "serve.log").read_text():
        assert time.monotonic() < deadline
    assert _may_use(together.socket("guest"))
    assert _may_use(together.socket("team"))


@pytest.mark.parametrize("name", [".", "..", "Guest", ""])
def test_a_file_whose_name_is_none_for_a_scope_is_left_out(together: scopes.Together, name: str) -> None:
    together.write(name, USES)
    together.write("third", USES)
    together.reload()
    together.await_served("third")
    made = {path.relative_to(together.run) for path in together.run.rglob("docker.sock")}
    assert made == {Path("scopes", scope, "docker.sock") for scope in ("guest", "team", "third")}


def test_one_that_cannot_be_served_is_served_once_it_can(engine_host: Host, tmp_path: Path) -> None:
    with scopes.Together(engine_host, tmp_path, {"guest": USES, "team": USES}) as together:
        taken = together.socket("team")
        together.await_served("guest", "team")
        together.remove("team")
        together.reload()
        _until_gone(taken)
        taken.mkdir()  # where its socket is to be
        together.write("team", USES)
        together.write("third", USES)
        together.reload()
        together.await_served("third")
        assert _may_use(together.socket("guest"))
        taken.rmdir()
        together.await_served("team")
        assert _may_use(taken)


def test_one_that_waits_for_its_control_group_holds_no_other_up(together: scopes.Together) -> None:
    """For `dom0 socket rm`, or for itself: served by new grants twice in a moment."""
    with (together.run / "scopes" / "guest" / registrations.CGROUP).open("rb") as noted:
        fcntl.flock(noted, fcntl.LOCK_EX)
        together.write("guest", "{}")
        together.write("third", USES)
        together.reload()
        together.await_served("third")
        assert _may_use(together.socket("team"))
        assert _may_use(together.socket("guest"))
    together.await_served("guest")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], object]:
    """Writes guest.yaml in `tmp_path`; a number tells grants apart."""
    monkeypatch.setenv("DOM0_RUN", str(tmp_path / "run"))
    return lambda number: (tmp_path / "guest.yaml").write_text(f"connections: {number}")


async def test_older_grants_do_not_begin_after_newer_ones(
    tmp_path: Path, write: Callable[[int], object], caplog: pytest.LogCaptureFixture
) -> None:
    turns = {number: asyncio.Event() for number in (1, 2, 3)}
    answering: asyncio.Queue[Serving] = asyncio.Queue()

    async def run(one: Serving, _path: Path, _kept: socket.socket) -> None:
        await turns[one.grants.connections].wait()  # as for its control group
        if not one.is_wanted():
            raise Dom0Error("other grants have come meanwhile")
        answering.put_nowait(one)
        one.answers.set()
        await one.ended.wait()

    served = InThisProcess(tmp_path, None, run)
    async with asyncio.timeout(PATIENCE):
        for number in (1, 2, 3):
            write(number)
            served.follow()
            if number == 1:
                turns[1].set()
                first = await answering.get()
        turns[3].set()
        turns[2].set()
        second = await answering.get()
        await first.ended.wait()
        await served.end()
    assert (first.grants.connections, second.grants.connections, answering.empty()) == (1, 3, True)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_has_answered_may_begin_again_until_newer_grants_answer() -> None:
    older, newer = Serving("guest", Grants()), Serving("guest", Grants())
    older.answers.set()
    older.newer = newer
    assert older.is_wanted()
    newer.answers.set()
    assert not older.is_wanted()


async def test_nothing_else_waits_while_the_holder_is_away(
    tmp_path: Path, write: Callable[[int], object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(_one: Serving, _path: Path, _kept: socket.socket) -> None:
        raise AssertionError

    monkeypatch.setattr(kept, "HOLDER_WITHIN", 1.0)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    served = InThisProcess(tmp_path, tmp_path, run)
    write(1)
    served.follow()
    await asyncio.sleep(0)  # it begins to ask the holder
    await asyncio.to_thread(lambda: None)
    assert not caplog.records  # it has not given up yet
    await served.end()


async def test_what_is_asked_for_while_all_ends_is_not_served(tmp_path: Path, write: Callable[[int], object]) -> None:
    began: asyncio.Queue[Serving] = asyncio.Queue()

    async def run(one: Serving, _path: Path, _kept: socket.socket) -> None:
        began.put_nowait(one)
        one.answers.set()
        await one.ended.wait()
        served.follow()

    served = InThisProcess(tmp_path, None, run)
    write(1)
    served.follow()
    async with asyncio.timeout(PATIENCE):
        await began.get()
        await served.end()
    assert began.empty()


def test_sighup_ends_nothing_while_the_files_are_read_first(tmp_path: Path) -> None:
    file = tmp_path / "guest.yaml"
    os.mkfifo(file)
    environment = os.environ | {"DOM0_RUN": str(tmp_path / "run"), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    argv = [sys.executable, "-m", "dom0", "socket", "serve", "--scopes", str(tmp_path)]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            with file.open("wb") as written:  # which waits for who reads it
                process.send_signal(signal.SIGHUP)
                written.write(b"imges: {}")
            assert b"imges" in process.stderr.readline()
        finally:
            process.kill()


def test_all_end_together_and_leave_no_socket(together: scopes.Together) -> None:
    together.process.terminate()
    assert together.process.wait(PATIENCE) == 0
    assert not together.socket("guest").exists()
    assert not list(together.run.glob("scopes/*/scope.json"))
