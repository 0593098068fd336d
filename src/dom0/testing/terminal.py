"""A command on a terminal of its own (a pty), and what stands on its screen: of the escape sequences only those that
`dom0 top` uses mean anything.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence

WITHIN = 120.0  # seconds; a deadline, not an expectation
FRAME = re.compile(r"\x1b\[H(.*?)\x1b\[J", re.DOTALL)
SEQUENCE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class Terminal:
    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], *, columns: int, lines: int) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns=columns, lines=lines)
        self._before = termios.tcgetattr(self._ours)
        self._all = b""
        self._from = 0
        argv = ["setsid", "--ctty", "setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "dom0", *arguments]
        self._process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "xterm", **env})
        self.pid = self._process.pid
        self._theirs = theirs  # kept open, so that what it has left can be looked at

    def resize(self, *, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """What is on the screen so far does not count as shown any more."""
        self._read(0)
        self._from = len(self._all)
        os.write(self._ours, text.encode())

    def shown(self) -> str:
        """The last whole frame since something was typed, without escape sequences; "" before it has come."""
        frames = FRAME.findall(self._all[self._from :].decode(errors="replace"))
        return SEQUENCE.sub("", frames[-1].replace("\r\n", "\n")) if frames else ""

    def until(self, wanted: str | Callable[[str], bool], within: float = WITHIN) -> str:
        deadline = time.monotonic() + within
        while True:
            shown = self.shown()
            if wanted in shown if isinstance(wanted, str) else wanted(shown):
                return shown
            assert time.monotonic() < deadline, f"not within {within:g} s:\n{shown}\n{self._all[-2000:]!r}"
            self._read(0.1)

    def until_stopped(self) -> None:
        deadline = time.monotonic() + WITHIN
        while not (found := os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG))[0]:
            assert time.monotonic() < deadline, self.shown()
            self._read(0.1)
        assert os.WIFSTOPPED(found[1])
        self._read(0)
        self._from = len(self._all)

    def wait(self) -> int:
        """Its exit code."""
        deadline = time.monotonic() + WITHIN
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.shown()
            self._read(0.1)
        self._read(0)
        return self._process.returncode

    def is_as_before(self) -> bool:
        """Its modes, and the cursor is there."""
        self._read(0)
        said = self._all.decode(errors="replace")
        return termios.tcgetattr(self._ours) == self._before and said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l")

    def _read(self, seconds: float) -> None:
        while select.select([self._ours], [], [], seconds)[0]:
            self._all += os.read(self._ours, 65536)
            seconds = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)
