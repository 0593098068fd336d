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

SECTIONS: dict[str, dict[str, str]] = {
    "Project": {
        "init": "dom0.cli.init",
        "build": "dom0.cli.build",
        "image": "dom0.cli.image",
    },
    "Machine": {
        "plan": "dom0.cli.plan",
        "up": "dom0.cli.up",
        "down": "dom0.cli.down",
        "try": "dom0.cli.trial",
        "confirm": "dom0.cli.confirm",
        "abort": "dom0.cli.abort",
        "history": "dom0.cli.history",
        "rollback": "dom0.cli.rollback",
        "files": "dom0.cli.files",
        "backup": "dom0.cli.backup",
    },
    "Look inside": {
        "status": "dom0.cli.status",
        "top": "dom0.cli.top",
        "web": "dom0.cli.web",
        "tree": "dom0.cli.tree",
        "events": "dom0.cli.events",
        "logs": "dom0.cli.logs",
        "exec": "dom0.cli.exec",
        "stop": "dom0.cli.stop",
        "start": "dom0.cli.start",
        "restart": "dom0.cli.restart",
        "ambassador": "dom0.cli.ambassador",
        "socket": "dom0.cli.socket",
    },
    "Home": {
        "dev": "dom0.cli.dev",
        "home": "dom0.cli.home",
        "ssh": "dom0.cli.ssh",
    },
    "Base OS": {
        "os": "dom0.cli.os",
    },
    "Farm": {
        "farm": "dom0.cli.farms",
    },
    "This host": {
        "boot": "dom0.cli.boot",
        "disk": "dom0.cli.disk",
        "install-host": "dom0.cli.install_host",
        "doctor": "dom0.cli.doctor",
        "version": "dom0.cli.version",
        "schema": "dom0.cli.schema",
        "completion": "dom0.cli.completion",
    },
}
HIDDEN = {
    "agent": "dom0.cli.agent",
    "backup-job": "dom0.cli.backup_job",
    "handover": "dom0.cli.handover",
    "notify-send": "dom0.cli.notify_send",
    "ps": "dom0.cli.status",
    "web-serve": "dom0.cli.web_serve",
}
COMPLETION = "_DOM0_COMPLETE"  # set by the completion scripts
MODULES = {name: module for section in SECTIONS.values() for name, module in section.items()} | HIDDEN


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the caller has closed it: `>&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # as docker writes, whatever the locale says
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    terminated = _end_as_with_ctrl_c()
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
