"""Asks one thing of the Engine with as little loaded as possible. What it answers is for the caller to decode.

No API version is named: to negotiate one would be a second question, and an Engine may be too new for a fixed one. It
answers in its newest, so callers read only what has been there since 20.10, and take what it leaves out for empty.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from dom0.engine import address
from dom0.errors import EngineError
from dom0.http import blocking

ANSWER_WITHIN = 30.0  # seconds; a small machine that has just been switched on has much to do


def ask(target: str, method: str = "GET", body: bytes | None = None) -> bytes | None:
    """The document at `target`, or what came of it; None if there is no such thing. Raises EngineError."""
    return read(send(target, method, body), target)


def send(
    target: str, method: str = "GET", body: bytes | None = None, *, within: float = ANSWER_WITHIN
) -> socket.socket:
    """To `read` the answer later, `within` in seconds of silence. Raises EngineError."""
    where = address.find(None, os.environ, Path.home())
    try:
        connection = _connect(where)
        blocking.send(connection, method, target, body=body, timeout=within)
    except OSError as error:
        raise where.unreachable(error) from error
    return connection


def read(connection: socket.socket, target: str) -> bytes | None:
    """As `ask`."""
    where = address.find(None, os.environ, Path.home())
    try:
        with blocking.answer(connection) as answer:
            status, data = answer.status, answer.read()
    except OSError as error:
        raise where.unreachable(error) from error
    if status == blocking.NOT_FOUND:
        return None
    if status >= blocking.BAD_REQUEST:
        try:
            message = json.loads(data).get("message", "")
        except (ValueError, AttributeError):
            message = ""
        raise EngineError(f"{where.text}: status {status} for {target}: {message}")
    return data


def not_understood(error: Exception) -> EngineError:
    where = address.find(None, os.environ, Path.home())
    return EngineError(f"{where.text}: an answer that is not the Docker Engine's: {error}")


def _connect(where: address.Address) -> socket.socket:
    if where.socket:
        return blocking.connect(where.socket)
    if where.dial:
        from dom0 import run  # only here: most Engines are on this machine

        return run.dial(where.dial)
    server, tls = urlsplit(where.base), where.tls()
    assert server.hostname, where
    connection = socket.create_connection((server.hostname, server.port), timeout=ANSWER_WITHIN)
    if tls is None:
        return connection
    with connection:  # a failed handshake leaves it open
        return tls.wrap_socket(connection, server_hostname=server.hostname)
