"""Bytes to a unix socket and back: a request as malformed as an attempt wants it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE = 5.0  # seconds for an answer


class Answer(NamedTuple):
    status: int  # 0: the connection was closed without one
    content: bytes  # everything that came, heads too

    @property
    def document(self) -> Any:
        try:
            return json.loads(self.content.partition(b"\r\n\r\n")[2])
        except ValueError:
            return None


class Client:
    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, data: bytes, *, patience: float = PATIENCE) -> Answer:
        """All that comes until the other end closes, or nothing more does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self.path))  # waits while the other end has not accepted earlier ones
            connection.settimeout(patience)
            content = bytearray()
            try:
                connection.sendall(data)
                deadline = time.monotonic() + patience
                while time.monotonic() < deadline and (piece := connection.recv(1 << 16)):
                    content += piece
            except (TimeoutError, ConnectionError):
                pass
        words = bytes(content[:64]).split(None, 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        return Answer(status, bytes(content))

    def ask(
        self, method: str, target: str, body: Any = None, *, headers: Mapping[str, str] = {}, patience: float = PATIENCE
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        told = {"Host": "docker", "Connection": "close", "Content-Type": "application/json", **headers}
        told.setdefault("Content-Length", str(len(data)))
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        return self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + data, patience=patience)
