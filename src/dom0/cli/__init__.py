"""The `dom0` command. Each command is a module of this package, loaded when it is asked for; this is the only place
that exits.

A command module has one public name, `command`. It parses, calls what does the work, and prints; it returns the exit
code where that is not 0, and raises Dom0Error where something is wrong. commands.py is how click sees them, and loaded
only for what fastpath.py has no answer to.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from dom0 import terminal
from dom0.cli import fastpath

YOUNG = 50_000  # objects until garbage is looked for: with the usual 700 that takes a twentieth of all processor time


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller has closed it: `>&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # as docker writes, whatever the locale says
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    terminated = _end_as_with_ctrl_c()
    gc.set_threshold(YOUNG)
    code = run(sys.argv[1:])
    gc.freeze()  # without it the collection at exit walks all objects: a sixth of the run time
    sys.exit(143 if terminated and code == 130 else code)


def _end_as_with_ctrl_c() -> Sequence[int]:
    """Let SIGTERM do what Ctrl-C does. Returns a list that is empty until it comes."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        interrupt = signal.getsignal(signal.SIGINT)  # asyncio's own, where it runs
        if not callable(interrupt):  # in the background of a shell
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, end)
    return came


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors go to standard error."""
    try:
        code = 0
        if not fastpath.answer(argv):
            from dom0.cli import commands  # loads click

            code = commands.invoke(argv)
        sys.stdout.flush()
    except BaseException as error:
        # What `exec` and `dev` run has options of its own.
        return terminal.end(error, as_json="--json" in argv and not {"exec", "dev"} & set(argv))
    return code
