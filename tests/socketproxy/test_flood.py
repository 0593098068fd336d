"""What a client sends without end, or in numbers: the server's memory stays bounded, and other scopes are answered."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0.testing import scopes
from dom0.testing.escape.raw import Client
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
PATIENCE = 60.0  # seconds
ROOM = 48 << 20  # bytes that a server may take more than it had: 256 connections of 64 kB each are a third of that
HEAD = b" HTTP/1.1\r\nHost: d\r\n"


@pytest.fixture(params=["apart", "together"])
def served(request: pytest.FixtureRequest, engine_host: Host, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The sockets of two scopes, each with a process of its own, or with one for both."""
    if request.param == "together":
        with scopes.Together(engine_host, tmp_path, {"guest": "{}", "other": "{}"}) as together:
            together.await_served("guest", "other")
            yield together.socket("guest"), together.socket("other")
        return
    directory = tmp_path / "other"
    directory.mkdir()
    with (
        scopes.served(engine_host, tmp_path) as guest,
        scopes.served(engine_host, directory, scope="other") as other,
    ):
        yield guest, other


@pytest.fixture
def guest(served: tuple[Path, Path]) -> Path:
    return served[0]


@pytest.fixture
def other(served: tuple[Path, Path]) -> Client:
    return Client(served[1])


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.connect(str(path))
    return connection


def _peak(path: Path) -> int:
    """Bytes of memory that the process which made the socket has had at most."""
    with _connected(path) as connection:
        pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def _flood(path: Path, head: bytes, piece: bytes) -> bytes:
    """Send without end until the server has none of it any more; what it said."""
    with _connected(path) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                connection.sendall(piece)
            pytest.fail("it takes all that is sent")
        with contextlib.suppress(ConnectionError):
            return connection.recv(1000)
    return b""


@pytest.mark.parametrize(
    ("head", "piece", "status"),
    [
        pytest.param(b"GET /_ping" + HEAD, b"X-More: " + b"x" * 1000 + b"\r\n", b"", id="headers"),
        pytest.param(b"GET /", b"x" * 1000, b"", id="a path"),
        pytest.param(
            b"POST /containers/create" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b" " * 65536 + b"\r\n",
            b"413",
            id="a body in chunks",
        ),
        pytest.param(
            b"POST /containers/create" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
            b"f" * 65536,
            b"",
            id="the length of a chunk",
        ),
    ],
)
def test_what_has_no_end_is_ended(guest: Path, other: Client, head: bytes, piece: bytes, status: bytes) -> None:
    before = _peak(guest)
    assert status in _flood(guest, head, piece)
    assert _peak(guest) - before < ROOM
    assert other.ask("GET", "/_ping", patience=PATIENCE).status == 200
    assert Client(guest).ask("GET", "/_ping", patience=PATIENCE).status == 200


def test_a_thousand_who_begin_and_do_not_end(guest: Path, other: Client) -> None:
    before = _peak(guest)
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            silent = stack.enter_context(_connected(guest))
            with contextlib.suppress(ConnectionError):  # all places are taken
                silent.sendall(b"GET /_ping" + HEAD + b"X-More: " + b"x" * 10_000)
        assert other.ask("GET", "/_ping", patience=PATIENCE).status == 200
        assert _peak(guest) - before < ROOM
    deadline = time.monotonic() + PATIENCE
    while Client(guest).ask("GET", "/_ping", patience=PATIENCE).status != 200:
        assert time.monotonic() < deadline
