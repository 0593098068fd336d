"""Waits for the Engine, with nothing loaded for it: who waits may be started by the Engine itself, before it answers.

While a machine boots, the Engine starts all containers at once and answers after that. What a process of ours loads
meanwhile takes memory and time from those that it waits for.
"""

from __future__ import annotations

import time

from dom0.engine.address import Address
from dom0.http import blocking

_PAUSE = 0.1  # seconds between two attempts


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
