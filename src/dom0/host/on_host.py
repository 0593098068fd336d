"""Runs programs of the base OS from wherever the Engine is reached: by nsenter in the root container, which shares the
host's PID namespace.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from dom0.errors import Dom0Error, EngineUnreachable
from dom0.printable import printable
from dom0.run import Output, capture

PROGRAMS = "/usr/lib/dom0"
CONSOLE = Path("/proc/1/root/dev/console")
_NOT_THERE = (126, 127)  # exit codes of a shell, nsenter and docker for a missing program
_NSENTER = "nsenter: "


class NoBaseOS(Dom0Error):
    """The host runs another Linux."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: this host does not run the base OS",
            hint="`dom0 os build` makes it; docs/os.md says what it does",
        )


def command(program: str, *arguments: str, terminal: bool = False) -> list[str]:
    """The argv that runs a program of the base OS on the host, with our standard input, and our terminal if wanted."""
    exec_ = ["docker", "exec", "--interactive", *(["--tty"] if terminal else []), "dom0"]
    return [*exec_, "nsenter", "--target", "1", "--mount", "--uts", "--net", "--", f"{PROGRAMS}/{program}", *arguments]


async def run(program: str, *arguments: str, timeout: float | None = None) -> Output:
    """Run it to its end. Raises NoBaseOS, EngineUnreachable; Dom0Error if no dom0 runs, or with the program's error:
    its first line, and the rest as a hint.
    """
    argv = command(program, *arguments)
    output = await capture(argv, timeout=timeout, check=False)
    if output.code in _NOT_THERE:
        raise NoBaseOS(program)
    if output.code != 0:
        message, _, hint = output.stderr.strip().partition("\n")
        # Docker's own errors are known by their messages: its exit code is 1 for all of them.
        if "docker daemon" in message.lower() or "docker API" in message:
            raise EngineUnreachable(message, hint="is it running? On another Linux: systemctl status docker")
        if message.startswith("Error") and ("No such container" in message or "is not running" in message):
            raise Dom0Error("dom0: does not run on this host", hint="start it: dom0 up; or look: docker ps --all")
        if message.startswith(_NSENTER):
            raise Dom0Error(
                f"{program}: the container dom0 may not enter this host: {message.removeprefix(_NSENTER)}",
                hint="it is for hosts that run the base OS (docs/os.md), where dom0 is privileged",
            )
        raise Dom0Error(
            message or f"{program}: exit code {output.code}", hint=hint or f"to see it again: {shlex.join(argv)}"
        )
    return output


def tell_console(text: str) -> None:
    """Say it to whoever stands before a machine with the base OS, as its own programs do. Nobody waits for that."""
    with contextlib.suppress(OSError):
        console = os.open(CONSOLE, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            os.write(console, f"dom0: {printable(text)}\n".encode())
        finally:
            os.close(console)
