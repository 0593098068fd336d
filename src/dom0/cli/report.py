"""Progress of a command that takes its time: lines with the seconds since it began."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dom0 import terminal
from dom0.agent.events import Kind
from dom0.agent.status import Progress, PullEvent, PullStatus
from dom0.cli.pulls import StatusLine
from dom0.errors import Interrupted


class Report:
    """Prints each line with the seconds since it was made, unless the caller wants quiet; or Progress documents.

    `beside`: on standard error, beside the result.
    """

    def __init__(self, *, as_json: bool = False, beside: bool = False) -> None:
        self._as_json = as_json
        self._say = terminal.say_to_stderr if beside else terminal.say
        self._began = time.monotonic()
        self._line = StatusLine(self._say_timed)
        self.pulls: tuple[PullStatus, ...] = ()  # that are under way
        self.pulled: list[PullEvent] = []
        self.networks: list[str] = []

    def say(self, text: str) -> None:
        self.tell(Progress(text=text))

    def show(self, pulls: tuple[PullStatus, ...]) -> None:
        if pulls != self.pulls:
            self.tell(Progress(pulls=pulls))

    def note(self, kind: str, subject: str, text: str, reason: str = "") -> None:
        """A command has no journal: the agent that it asks notes them."""
        if kind != Kind.PULL_BEGUN:
            self.pulled.append(PullEvent(image=subject, text=text, reason=reason))

    def created(self, network: str) -> None:
        self.networks.append(network)
        self.say(f"create network {network}")

    def aside(self, text: str) -> None:
        """For people only: for programs the line with the outcome is the last one."""
        if not self._as_json:
            self.say(text)

    def tell(self, progress: Progress) -> None:
        if progress.pulls is not None:
            self.pulls = progress.pulls
        if self._as_json:
            terminal.say_json_line(progress)
        elif not terminal.quiet():
            if progress.text:
                self._line.clear()
                self._say_timed(f"{progress.service}: {progress.text}" if progress.service else progress.text)
            if progress.pulls is not None:
                self._line.show(progress.pulls)

    def _say_timed(self, text: str) -> None:
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
def ending_pulls(report: Report, end: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """While something is pulled in the block Ctrl-C ends that, which `end` does if it still can. Raises Interrupted."""
    from asyncio import CancelledError  # whoever may meet it has loaded it

    try:
        yield
    except (KeyboardInterrupt, CancelledError) as error:
        images = ", ".join(pull.image for pull in report.pulls)
        report.show(())
        if not images or not end():
            raise
        raise Interrupted(
            f"{images}: not pulled, and nothing was changed; what has come is kept", hint="go on from there: dom0 up"
        ) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the block at once although it reads in a coroutine: asyncio's own handler waits for its loop."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
