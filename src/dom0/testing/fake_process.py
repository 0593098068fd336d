"""What a command line would do in a container of busybox:test, told in advance instead of run.

Knows the few commands that tests use: true, false, sleep, echo, cat, touch, test -f, id -u, env, pwd, and `sh -c` with
these in a row (`;`, `&&`), `exit N`, `exec …`, `trap 'exit N' TERM` and `while :; do …; done`. Anything else is not
found. What it prints and touches, it does when it starts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

FOREVER = float("inf")
KILLED, TERMINATED = 137, 143
_ALL, _USUAL = "000001ffffffffff", "00000000a80425fb"  # capabilities


@dataclass
class Process:
    """`runs_for` seconds, then `exit_code`. `on_term` is its answer to SIGTERM; a process 1 without a trap has none."""

    runs_for: float = 0.0
    exit_code: int = 0
    output: str = ""
    errors: str = ""  # what of it went to standard error
    on_term: int | None = None
    missing: str = ""  # the program, if there is no such one

    def say(self, text: str) -> None:
        self.output += text + "\n"


@dataclass
class Surroundings:
    files: dict[str, bytes] = field(default_factory=dict)
    env: Sequence[str] = ()
    user: str = ""
    workdir: str = ""
    privileged: bool = False


def foretell(argv: Sequence[str], around: Surroundings) -> Process:
    process = Process()
    if argv[:2] == ["/bin/sh", "-c"] or argv[:2] == ["sh", "-c"]:
        _run_script(argv[2], process, around)
    elif not _run(list(argv), process, around):
        process.missing, process.exit_code = argv[0], 127
    return process


_COMMANDS = re.compile(r"""((?:'[^']*'|"[^"]*"|&(?!&)|[^;&\n'"])+)(;|&&|\n|$)""")
_LOOP = re.compile(r"while (?::|true)\s*; do .*; done\s*$", re.DOTALL)


def _run_script(script: str, process: Process, around: Surroundings) -> None:
    if loop := _LOOP.search(script):
        _run_script(script[: loop.start()].rstrip("; \n"), process, around)
        process.runs_for = FOREVER
        return
    for command, joint in _COMMANDS.findall(script):
        if not _run_command(command, process, around) or (joint == "&&" and process.exit_code != 0):
            return


def _run_command(command: str, process: Process, around: Surroundings) -> bool:
    """Returns whether the script goes on."""
    argv = [word for word in shlex.split(command) if not re.fullmatch(r">?&\d|\d?>&\d", word)]
    ends, said = argv[:1] == ["exec"], len(process.output)
    match argv[1:] if ends else argv:
        case []:
            return True
        case ["exit", code]:
            process.exit_code = int(code)
            return False
        case ["trap", action, "TERM"]:
            process.on_term = int(action.removeprefix("exit "))
        case simple:
            if not _run(simple, process, around):
                process.say(f"sh: {simple[0]}: not found")
                process.exit_code = 127
    if re.search(r"1?>&2", command):
        process.errors += process.output[said:]
    return not ends


def _run(argv: list[str], process: Process, around: Surroundings) -> bool:  # noqa: C901 -- a flat table
    """Returns whether there is such a program."""
    process.exit_code = 0
    match argv:
        case ["true"] | [":"]:
            pass
        case ["false"]:
            process.exit_code = 1
        case ["sleep", seconds]:
            process.runs_for += float(seconds)
        case ["echo", *words]:
            process.say(" ".join(words))
        case ["cat", "/proc/self/status"]:
            process.say(f"CapEff:\t{_ALL if around.privileged else _USUAL}")
        case ["cat", path] if path in around.files:
            process.output += around.files[path].decode()
        case ["cat", path]:
            process.say(f"cat: can't open '{path}': No such file or directory")
            process.exit_code = 1
        case ["test", "-f" | "-e", path]:
            process.exit_code = 0 if path in around.files else 1
        case ["touch", path]:
            around.files.setdefault(path, b"")
        case ["id", "-u"]:
            process.say(around.user or "0")
        case ["env"]:
            process.output += "".join(f"{line}\n" for line in around.env)
        case ["pwd"]:
            process.say(around.workdir or "/")
        case _:
            return False
    return True
