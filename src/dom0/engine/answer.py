"""Waits for the Engine, with nothing loaded for it: who waits may be started by the Engine itself, before it answers.

While a machine boots, the Engine starts all containers at once and answers after that. What a process of ours loads
meanwhile takes memory and time from those that it waits for. What takes the Engine long it is asked before that.
"""

from __future__ import annotations

import contextlib
import socket
import time

from dom0.engine.address import Address
from dom0.http import blocking

_PAUSE = 0.1  # seconds between two attempts
_DESCRIBES_WITHIN = 10.0  # seconds


def await_engine(address: Address, *, within: float) -> None:
    """Return when it answers, or after `within` seconds. Where it is reached over a network, return at once."""
    deadline = time.monotonic() + within
    while address.socket and (left := deadline - time.monotonic()) > 0:
        try:
            blocking.ask(blocking.connect(address.socket, timeout=left), "GET", "/_ping", timeout=left).close()
        except OSError:
            time.sleep(_PAUSE)
        else:
            return


def ask_info(address: Address) -> socket.socket | None:
    """The Engine begins to describe itself, for which it starts programs; `take_info` when all else is loaded.

    None where it is reached over a network, or cannot be asked.
    """
    with contextlib.suppress(OSError):
        if address.socket:
            connection = blocking.connect(address.socket, timeout=_DESCRIBES_WITHIN)
            blocking.send(connection, "GET", "/info", timeout=_DESCRIBES_WITHIN)
            return connection
    return None


def take_info(asked: socket.socket | None) -> bytes:
    """The answer to `/info`, b"" where none came."""
    with contextlib.suppress(OSError):
        if asked is not None:
            with blocking.answer(asked) as answer:
                return answer.read() if answer.status == blocking.OK else b""
    return b""
