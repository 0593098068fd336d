"""Waiting for an Engine that a machine is starting."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from dom0.engine.address import Address
from dom0.engine.answer import ask_info, await_engine, take_info


def address(directory: Path) -> Address:
    return Address("unix:///run/docker.sock", "http://engine", str(directory / "docker.sock"))


def test_it_waits_for_a_socket_and_then_for_what_comes_through_it(tmp_path: Path) -> None:
    """As dockerd: it listens early, and answers when all its containers are started."""
    waiting = threading.Thread(target=await_engine, args=(address(tmp_path),), kwargs={"within": 60.0})
    waiting.start()
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        engine.listen()
        asking, _ = engine.accept()
        with asking:
            assert asking.recv(100).startswith(b"GET /_ping HTTP/1.0\r\n")
            assert waiting.is_alive()
            asking.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")
            waiting.join(60)
    assert not waiting.is_alive()


def test_one_that_hangs_up_is_asked_again(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        engine.listen()
        waiting = threading.Thread(target=await_engine, args=(address(tmp_path),), kwargs={"within": 60.0})
        waiting.start()
        engine.accept()[0].close()
        asking, _ = engine.accept()
        with asking:
            asking.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")
            waiting.join(60)
    assert not waiting.is_alive()


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    await_engine(address(tmp_path), within=0.3)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        engine.listen()
        await_engine(address(tmp_path), within=0.3)


def test_one_that_is_far_away_is_not_waited_for() -> None:
    begun = time.monotonic()
    await_engine(Address("tcp://engine:2375", "http://engine:2375"), within=60.0)
    assert time.monotonic() - begun < 60.0


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (b'HTTP/1.0 200 OK\r\n\r\n{"NCPU": 2}', b'{"NCPU": 2}'),
        (b"HTTP/1.0 500 Internal Server Error\r\n\r\n{}", b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\n{", b""),
        (b"", b""),
    ],
)
def test_what_it_says_of_itself_is_taken_later(tmp_path: Path, said: bytes, taken: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(tmp_path / "docker.sock"))
        engine.listen()
        asked = ask_info(address(tmp_path))
        with engine.accept()[0] as asking:
            assert asking.recv(100).startswith(b"GET /info HTTP/1.0\r\n")
            asking.sendall(said)
    assert take_info(asked) == taken


def test_one_that_cannot_be_asked_is_asked_by_whoever_needs_it(tmp_path: Path) -> None:
    assert take_info(ask_info(address(tmp_path))) == b""
