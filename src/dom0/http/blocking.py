"""As little HTTP over a connection as asking the agent and the Engine takes, for what must answer at once.

It is HTTP/1.0: an answer ends with its connection, there are no chunks and nothing is kept open. h11 and `http.client`
take longer to load than all else that a short command does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

LONGEST_LINE = 16 * 1024 * 1024  # bytes; of a head, and of one document in a stream
OK, BAD_REQUEST, NOT_FOUND, CONFLICT = 200, 400, 404, 409


class Answer:
    """`status`, and the body when it is read. Reading raises OSError. Close it, or use it as a context manager."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")
        try:
            self.status = _status(self._line())
            self._length: int | None = None
            while (line := self._line()).strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length" and value.strip().isdigit():
                    self._length = int(value)
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes:
        body = self._file.read()
        if self._length is not None and len(body) < self._length:
            raise ConnectionError("the answer is cut off")
        return body

    def lines(self) -> Iterator[bytes]:
        return iter(self._line, b"")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self) -> bytes:
        line = self._file.readline(LONGEST_LINE)
        if line and not line.endswith(b"\n"):
            raise ConnectionError("the answer is cut off")
        return line


def connect(path: str, *, timeout: float | None = None) -> socket.socket:
    """`timeout` in seconds. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def is_listening(path: str, *, timeout: float | None = None) -> bool:
    try:
        connect(path, timeout=timeout).close()
    except OSError:
        return False
    return True


def ask(
    connection: socket.socket, method: str, target: str, *, body: bytes | None = None, timeout: float | None
) -> Answer:
    """Ask once over `connection`, which ends with the answer; `timeout` is in seconds of silence. Raises OSError."""
    send(connection, method, target, body=body, timeout=timeout)
    return answer(connection)


def send(
    connection: socket.socket, method: str, target: str, *, body: bytes | None = None, timeout: float | None
) -> None:
    """The first half of `ask`. After an error `connection` is closed."""
    head = f"{method} {target} HTTP/1.0\r\nHost: dom0\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    try:
        connection.settimeout(timeout)
        connection.sendall(f"{head}\r\n".encode() + (body or b""))
    except BaseException:
        connection.close()
        raise


def answer(connection: socket.socket) -> Answer:
    """The second half."""
    with connection:
        return Answer(connection)


def _status(line: bytes) -> int:
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ConnectionError("the answer is not HTTP" if line else "it ended without an answer")
    return int(words[1])
