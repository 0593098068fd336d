"""Asks a redis again and again and counts every answer; for tests of what clients notice.

`python3 checker.py HOST PORT STEADY FRESH SECONDS`: STEADY connections that last, FRESH threads that make a new one for
each question. It ends after SECONDS or with SIGTERM, and prints one JSON object: how much was asked, and what failed.
It is run inside containers, as one file with the standard library alone.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

MOST_TOLD = 20  # failures
PAUSE = 0.005  # seconds between two questions of a thread
PATIENCE = 30.0  # seconds for an answer: what takes longer has failed


class Count:
    def __init__(self) -> None:
        self.asked = self.slowest = 0.0
        self.failed: list[str] = []


def connect(host: str, port: int) -> socket.socket:
    made = socket.create_connection((host, port), timeout=PATIENCE)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def ask(connection: socket.socket, text: str) -> None:
    """ECHO, and compare. Raises OSError, ValueError."""
    connection.sendall(f"*2\r\n$4\r\nECHO\r\n${len(text)}\r\n{text}\r\n".encode())
    wanted = f"${len(text)}\r\n{text}\r\n".encode()
    got = b""
    while len(got) < len(wanted):
        more = connection.recv(4096)
        if not more:
            raise ConnectionError("the connection was ended")
        got += more
    if got != wanted:
        raise ValueError(f"asked for {wanted!r}, got {got!r}")


def steadily(host: str, port: int, count: Count, ended: threading.Event) -> None:
    try:
        connection = connect(host, port)
    except OSError as error:
        count.failed.append(repr(error))
        return
    with connection:
        while not ended.wait(PAUSE) and not count.failed:
            measure(count, lambda: ask(connection, f"{threading.get_ident()}-{count.asked:.0f}"))


def freshly(host: str, port: int, count: Count, ended: threading.Event) -> None:
    def once() -> None:
        with connect(host, port) as connection:
            ask(connection, f"{threading.get_ident()}-{count.asked:.0f}")

    while not ended.wait(PAUSE):
        measure(count, once)


def measure(count: Count, once: Callable[[], None]) -> None:
    begun = time.monotonic()
    try:
        once()
        count.asked += 1
    except (OSError, ValueError) as error:
        count.failed.append(repr(error))
    count.slowest = max(count.slowest, time.monotonic() - begun)


def main(arguments: list[str]) -> None:
    host, port, steady, fresh, seconds = arguments[0], *map(int, arguments[1:])
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    counts, threads = [], []
    for ways, number in ((steadily, steady), (freshly, fresh)):
        for _ in range(number):
            counts.append(Count())
            threads.append(threading.Thread(target=ways, args=(host, port, counts[-1], ended), daemon=True))
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    while not ended.wait(0.5) and time.monotonic() < until:
        say(summary(counts))
    ended.set()
    for thread in threads:
        thread.join(PATIENCE)
    say(summary(counts))


def say(document: dict[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(document)}\n")
    sys.stdout.flush()


def summary(counts: list[Count]) -> dict[str, object]:
    return {
        "asked": int(sum(count.asked for count in counts)),
        "least": int(min(count.asked for count in counts)),  # by one connection, or thread
        "failed": [text for count in counts for text in count.failed][:MOST_TOLD],
        "slowest": max(count.slowest for count in counts),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
