"""The process that keeps listening sockets, as its clients meet it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dom0.errors import Busy, Dom0Error
from dom0.socketproxy import hold
from dom0.socketproxy.kept import stay_kept


@contextlib.contextmanager
def holding(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "dom0.socketproxy.hold", str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline().startswith(b"holding")
            yield holder
        finally:
            holder.terminate()
            holder.wait(60)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with holding(tmp_path / "scopes"):
        yield tmp_path / "scopes"


def _greeted(path: Path, listener: socket.socket) -> bytes:
    """What who connects to the path hears from who accepts on the listener."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"hello")
        return client.recv(100)


def test_it_gives_the_same_socket_to_who_comes_later(directory: Path) -> None:
    path = directory / "guest" / "docker.sock"
    with hold.hold(directory, "guest") as first:
        inode = path.stat().st_ino
        assert _greeted(path, first) == b"hello"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waits:
        waits.connect(str(path))  # while nobody is there to accept
        with hold.hold(directory, "guest") as second:
            connection, _ = second.accept()
            with connection:
                connection.sendall(b"hello")
            assert waits.recv(100) == b"hello"
    assert path.stat().st_ino == inode


def test_a_descriptor_is_not_handed_on_to_programs_that_are_started(directory: Path) -> None:
    with hold.hold(directory, "guest") as listener:
        assert not listener.get_inheritable()


def test_modes(directory: Path) -> None:
    hold.hold(directory, "guest").close()
    path = directory / "guest" / "docker.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE((directory / "holder.sock").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "Guest", "a b", "x" * 32, "x" * 5000, "ü", "holder.sock"])
def test_a_name_that_no_scope_can_have_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(Dom0Error):
        hold.hold(directory, name)
    assert [path.name for path in directory.iterdir()] == ["holder.sock"]


@pytest.mark.parametrize("request_line", [b"", b"\n", b"hold\n", b"hold guest x\n", b"list\n", b"keep guest\n"])
def test_what_it_does_not_understand_does_not_end_it(directory: Path, request_line: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(directory / "holder.sock"))
        client.sendall(request_line)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1000).startswith(b"error: ") or request_line == b""
    hold.hold(directory, "guest").close()


def test_who_says_nothing_is_not_waited_for_without_end(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(directory / "holder.sock"))
        hold.hold(directory, "guest").close()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_other_users_are_not_answered(directory: Path) -> None:
    (directory / "holder.sock").chmod(0o777)
    ask = """
import os, socket
os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.connect("holder.sock")
try:
    client.sendall(b"hold guest\\n")
    print(client.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print("sent away")
"""
    argv = [sys.executable, "-c", ask]
    said = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout in ("b''\n", "sent away\n")


def test_a_second_one_in_the_same_place_gives_up(directory: Path) -> None:
    with hold.hold(directory, "guest") as listener:
        argv = [sys.executable, "-m", "dom0.socketproxy.hold", str(directory)]
        second = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == Busy.exit_code
        assert "another process holds the sockets here" in second.stderr
        assert _greeted(directory / "guest" / "docker.sock", listener) == b"hello"


def test_sigterm_leaves_no_file(tmp_path: Path) -> None:
    with holding(tmp_path) as holder:
        hold.hold(tmp_path, "guest").close()
        holder.terminate()
        assert holder.wait(60) == 0
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    with pytest.raises(Dom0Error, match="does not answer"):
        hold.hold(tmp_path, "guest")


def test_what_a_killed_one_left_is_replaced(tmp_path: Path) -> None:
    with holding(tmp_path) as holder:
        hold.hold(tmp_path, "guest").close()
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    assert (tmp_path / "guest" / "docker.sock").is_socket()
    with holding(tmp_path), hold.hold(tmp_path, "guest") as listener:
        assert _greeted(tmp_path / "guest" / "docker.sock", listener) == b"hello"


def test_a_socket_that_somebody_serves_is_not_taken_over(directory: Path) -> None:
    path = directory / "guest" / "docker.sock"
    with hold.listening(path):
        inode = path.stat().st_ino
        with pytest.raises(Dom0Error, match="another process serves this socket"):
            hold.hold(directory, "guest")
    assert path.stat().st_ino == inode


def test_a_file_that_is_no_socket_stays(directory: Path) -> None:
    path = directory / "guest" / "docker.sock"
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(Dom0Error, match="no socket"):
        hold.hold(directory, "guest")
    assert path.read_text() == "precious"


@contextlib.asynccontextmanager
async def serving(directory: Path, listener: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    keeping = asyncio.create_task(stay_kept(directory, "guest", listener))
    yield keeping
    keeping.cancel()
    await asyncio.wait([keeping])


async def until_held(caplog: pytest.LogCaptureFixture, times: int) -> None:
    async with asyncio.timeout(60):
        while caplog.text.count("its socket is held") < times:  # noqa: ASYNC110 -- a log tells nobody of its lines
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_one_that_is_made_anew_gets_the_socket_from_who_serves_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: signal.Signals
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "guest" / "docker.sock"
    with holding(tmp_path) as first:
        listener = hold.hold(tmp_path, "guest")
        inode = path.stat().st_ino
        async with contextlib.AsyncExitStack() as server:
            await server.enter_async_context(serving(tmp_path, listener))
            await until_held(caplog, 1)
            first.send_signal(end)
            first.wait(60)
            with holding(tmp_path):
                await until_held(caplog, 2)
                await server.aclose()
                listener.close()
                with hold.hold(tmp_path, "guest") as second:
                    assert path.stat().st_ino == inode
                    assert _greeted(path, second) == b"hello"
    assert not path.exists()


async def test_who_serves_a_socket_in_whose_place_is_another_one_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "guest" / "docker.sock"
    with holding(tmp_path) as holder, hold.hold(tmp_path, "guest") as listener:
        async with serving(tmp_path, listener) as keeping:
            await until_held(caplog, 1)
            path.unlink()
            holder.kill()
            with pytest.raises(Dom0Error, match="is not the socket any more that is served"):
                await asyncio.wait_for(keeping, 60)


async def test_it_lets_go_of_a_socket_that_nobody_serves_and_of_no_other(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = directory / "guest" / "docker.sock"
    with hold.hold(directory, "guest") as listener:
        async with serving(directory, listener):
            await until_held(caplog, 1)
            hold.release(directory, "guest")
            assert path.is_socket()
    hold.release(directory, "guest")
    hold.release(directory, "guest")
    assert not path.exists()
    hold.hold(directory, "guest").close()
    assert path.is_socket()


def test_what_does_not_listen_is_not_held(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, socket.socket() as deaf:
        client.connect(str(directory / "holder.sock"))
        socket.send_fds(client, [b"keep guest\n"], [deaf.fileno()])
        assert client.recv(1000) == b"error: keep guest: is no socket that listens"
    hold.hold(directory, "guest").close()


def test_it_is_small() -> None:
    """What it loads is loaded for as long as the machine runs."""
    show = "import sys; before = set(sys.modules); import dom0.socketproxy.hold; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, timeout=60)
    ours = {name for name in loaded.stdout.split() if name.startswith("dom0")}
    assert ours == {
        f"dom0{name}" for name in ("", ".errors", ".names", ".socketproxy", ".socketproxy.hold", ".unix_socket")
    }
    assert not {"asyncio", "click", "h11", "msgspec", "logging", "subprocess"} & set(loaded.stdout.split())
