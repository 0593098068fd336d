"""Progress of a command that takes its time: lines with the seconds since it began."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dom0 import terminal
from dom0.agent.status import Progress
from dom0.errors import Interrupted


class Report:
    """Prints each line with the seconds since it was made, unless the caller wants quiet; or Progress documents.

    `beside`: on standard error, beside the result.
    """

    def __init__(self, *, as_json: bool = False, beside: bool = False) -> None:
        self._as_json = as_json
        self._say = terminal.say_to_stderr if beside else terminal.say
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        self.tell(Progress(text=text))

    def aside(self, text: str) -> None:
        """For people only: for programs the line with the outcome is the last one."""
        if not self._as_json:
            self(text)

    def tell(self, progress: Progress) -> None:
        if self._as_json:
            terminal.say_json_line(progress)
        elif progress.text and not terminal.quiet():
            text = f"{progress.service}: {progress.text}" if progress.service else progress.text
            self._say(f"{time.monotonic() - self._began:6.1f}s  {text}")


@contextmanager
def watching(what: str, *, end: str = "end it and go back: dom0 abort") -> Iterator[None]:
    """The block only watches `what`, which goes on without it when Ctrl-C ends it. Raises Interrupted.

    `end` says how it can be ended, or undone.
    """
    from asyncio import CancelledError  # whoever may meet it has loaded it

    try:
        yield
    except (KeyboardInterrupt, CancelledError) as error:
        terminal.say_to_stderr("")  # ends the line of the terminal's ^C
        raise Interrupted(
            f"{what}: goes on without this command",
            hint=f"watch it: dom0 status --watch\n{end}",
        ) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the block at once although it reads in a coroutine: asyncio's own handler waits for its loop."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
