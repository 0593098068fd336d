"""What commands ask at a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from dom0.testing.hosts import until

ASKS = """
import asyncio
from dom0 import terminal

async def ask():
    terminal.confirm("Sure?", "not confirmed")

asyncio.run(ask())
"""


def test_ctrl_c_ends_a_question_where_asyncio_runs() -> None:
    ours, theirs = pty.openpty()
    argv = ["setsid", "--ctty", "setpriv", "--pdeathsig", "KILL", sys.executable, "-c", ASKS]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs) as asking:
        try:
            shown = b""
            while b"Sure? [y/N]: " not in shown:
                shown += os.read(ours, 1000)
            # What comes between the question and the read of its answer ends neither; people do not press it there.
            until(lambda: Path(f"/proc/{asking.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
            os.write(ours, b"\x03")
            assert asking.wait(30) != 0
        finally:
            asking.kill()
    os.close(ours)
    os.close(theirs)
