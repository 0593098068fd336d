"""Connections that cannot be accepted because this process has no file descriptor left: a line a minute in the log.

asyncio reports each try with a traceback, more than a hundred a second. It goes on by itself when there is room again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from typing import Any

EVERY = 60.0  # seconds between two lines
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
log = logging.getLogger(__name__)


class Unaccepted:
    """An exception handler of the event loop. All else goes on to the loop's own."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._quiet_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in EXHAUSTED or "socket" not in context:
            loop.default_exception_handler(context)
        elif self._monotonic() >= self._quiet_until:
            self._quiet_until = self._monotonic() + EVERY
            log.warning("connections wait, because they cannot be accepted now: %s", error.strerror)
