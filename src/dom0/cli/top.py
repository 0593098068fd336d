"""`dom0 top`: the machine at a glance, again and again: its state, services with what they use, what happened last.

One thread asks the agent; the main thread draws and hears the keyboard, so neither a silent agent nor a silent Engine
keeps it from saying how old what it shows is. What a frame says is made by pure functions of what was seen.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import textwrap
import threading
import time
import tty

import click
import msgspec
from msgspec.structs import replace
from rich.cells import set_cell_size

from dom0 import terminal, times
from dom0.agent.events import DOM0, ENGINE, Entry
from dom0.agent.status import ServiceStatus, Status
from dom0.agent.vitals import UsageStatus
from dom0.cli.client import Agent
from dom0.cli.pulls import describe
from dom0.cli.status import COLOURS, headline, with_commands
from dom0.errors import Dom0Error

EVERY = 2.0  # seconds between two looks
FIRST = 1.0  # seconds between the two looks of what is no terminal: a rate takes two
ANSWER_WITHIN = 5.0  # seconds
OLD = EVERY + ANSWER_WITHIN  # seconds after which what is shown is told to be old
IDLE = ("idle", "iowait")  # modes of processors that do nothing
TOLD = 50  # events that are asked for
FOLLOWS = re.compile(r"rename-container|agent-ended")  # kinds of events that say nothing more, as the page has it
KEYS = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
MOVES = {b"A": -1, b"B": 1, b"5~": -10, b"6~": 10, b"H": -100_000, b"F": 100_000, b"1~": -100_000, b"4~": 100_000}
TURNS = {b"C": 1, b"D": -1, b"s": 1}
SORTS = ("service", "processor", "memory", "restarts")
HEADS = ("SERVICE", "PHASE", "HEALTH", "CPU", "MEMORY", "RESTARTS", "FOR", "PORTS", "REASON")
HELP = "q ends  up/down scroll  left/right sort by "
BOLD, REVERSED, RED, YELLOW = "1", "7", "31", "33"  # parameters of SGR
SIGNS = {"red": RED, "green": ""}


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found. Percentages are of one processor, between this look and the one before."""

    status: Status
    events: tuple[Entry, ...]  # the last ones, the oldest first
    usage: UsageStatus | None
    missing: tuple[str, ...] = ()  # why there are no events or no usage
    percent: dict[str, float] = {}  # by container ID
    machine_percent: float | None = None  # of all processors together: 100 is all that there is


@click.command(name="top")
@click.option(
    "--json", "as_json", is_flag=True, help="One object: status, events, usage, missing, percent, machine_percent."
)
def command(as_json: bool) -> None:
    """Show the machine at a glance, refreshed: its state, services with processor and memory, what happened last.

    Ends with q. Arrows scroll, and choose what is sorted by. Where standard output is no terminal it is shown once, as
    text. The processes in a container: docker top CONTAINER.

    $ dom0 top
    $ dom0 top --json | jq .percent
    """
    agent = Agent(patient=False)
    seen = look(agent, None)  # or says why there is none
    if not as_json and sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        _show(agent, seen)
        return
    time.sleep(FIRST)
    seen = look(agent, seen)
    terminal.say_result(seen, *(text for _, text in frame(seen, "service")[0]), as_json=as_json)


def look(agent: Agent, before: Sample | None) -> Sample:
    """Ask once. Raises AgentUnreachable, or what the agent refuses."""
    status = with_commands(agent.call("GET", "/v1/status", Status, within=ANSWER_WITHIN))
    events, usage, missing = tuple[Entry, ...](), None, []
    try:
        events = tuple(agent.last_events(TOLD, within=ANSWER_WITHIN))
    except Dom0Error as error:  # its disk is broken
        missing.append(error.message)
    try:
        usage = agent.call("GET", "/v1/usage", UsageStatus, within=ANSWER_WITHIN)
    except Dom0Error as error:  # it is older than this command
        missing.append(error.message)
    else:
        running = {one.container_id for one in status.services if one.started and not one.finished}
        if silent := running.difference(usage.containers):
            missing.append(f"the Docker Engine does not say what {len(silent)} of {len(running)} containers use")
    seen = Sample(status=status, events=events, usage=usage, missing=tuple(missing))
    if usage is None or before is None or before.usage is None:
        return seen
    earlier = before.usage
    percent = {
        key: 100 * (now.processor - then.processor) / (now.read - then.read)
        for key, now in usage.containers.items()
        if (then := earlier.containers.get(key))
        and now.read > then.read
        and now.processor >= then.processor  # else it started anew
    }
    spent = {mode: now - earlier.machine.processors.get(mode, 0.0) for mode, now in usage.machine.processors.items()}
    busy = sum(seconds for mode, seconds in spent.items() if mode not in IDLE)
    whole = sum(spent.values())
    machine = 100 * busy / whole if whole > 0 else None
    return replace(seen, percent=percent, machine_percent=machine)


def frame(
    seen: Sample, sort: str, *, old: str = "", size: tuple[int, int] | None = None, first: int = 0
) -> tuple[list[tuple[str, str]], int]:
    """Lines, each with what it is drawn with, and which service is the first that is shown. Pure; nothing in it is
    unescaped.

    `old`: that it is old, and why. `size`: columns and lines of the terminal, None: as many as it takes. `first`: how
    many services to leave out above, as far as there are others.
    """
    status = seen.status
    width, height = size or (10_000, 0)
    state = textwrap.wrap(terminal.printable(headline(status)), width) or [""]
    above = [(BOLD, line) for line in state[:3]] + [("", _machine(seen))] + [(YELLOW, why) for why in seen.missing]
    above += [(REVERSED, line) for line in textwrap.wrap(terminal.printable(old), width)[:2] if old]
    for problem in status.problems[: 3 if size else None]:
        sign = RED if problem.severity == "error" else YELLOW
        above += [(sign, line) for line in list(problem.lines())[: 1 if size else None]]
    if size and len(status.problems) > 3:
        above.append(("", f"  {len(status.problems) - 3} more: dom0 status"))
    pulls = [("", f"pulls {describe(pull, status.now)}") for pull in status.pulls]
    steps = [("", f"under way: {step}") for step in status.steps]
    told = [("", _event(one)) for one in seen.events if not FOLLOWS.fullmatch(one.kind)]
    below = (pulls + steps)[: 4 if size else None]
    head, *services = _services(seen, sort)
    if size:
        # The last line is for the keys, three are blank or a head; services have half of the rest, or what they take.
        free = max(0, height - len(above) - len(below) - 4)
        room = max(1, min(len(services), free - min(len(told), free // 3)))
        first = max(0, min(first, len(services) - room))
        rest = len(services) - first - room
        told = told[len(told) - max(0, min(len(told), free - room)) :]
        services = services[first : first + room]
        last = [(REVERSED, f"{HELP}{sort}" + (f"  ({first} above, {rest} below)" if first or rest > 0 else ""))]
    else:
        told, last = told[-10:], []
    lines = [*above, ("", ""), head, *services, *([("", "")] if below or told else []), *below, *told[::-1]]
    if size:
        lines = [*lines[: height - 1], *[("", "")] * (height - 1 - len(lines)), *last]
        return [(sign, set_cell_size(terminal.printable(text), width).rstrip()) for sign, text in lines], first
    return [(sign, terminal.printable(text)) for sign, text in lines], 0


def _machine(seen: Sample) -> str:
    if seen.usage is None:
        return "processor and memory: not known"
    machine = seen.usage.machine
    words = [f"processor {seen.machine_percent:.0f}%"] if seen.machine_percent is not None else []
    used = machine.memory - machine.memory_available
    words += [f"load {machine.load:.2f}", f"memory {terminal.size(used)} of {terminal.size(machine.memory)}"]
    words += [f"{terminal.size(disk.available)} left at {disk.path}" for disk in machine.file_systems]
    return ", ".join(words)


def _event(entry: Entry) -> str:
    reason = f" ({entry.reason})" if entry.reason else ""
    often = f", {entry.count} times" if entry.count > 1 else ""
    by = f", by {entry.actor}" if entry.actor not in (DOM0, ENGINE) else ""
    return f"{times.moment(entry.time).split()[1]}  {entry.text}{reason}{often}{by}"


def _services(seen: Sample, sort: str) -> list[tuple[str, str]]:
    """The head of the table and its rows; the greatest first, or by their names."""
    usage = seen.usage.containers if seen.usage else {}

    def weight(one: ServiceStatus) -> float:
        match sort:
            case "processor":
                return -seen.percent.get(one.container_id, -1.0)
            case "memory":
                return -usage[one.container_id].memory if one.container_id in usage else 0.0
            case "restarts":
                return -one.restarts
        return 0.0

    shown = sorted(seen.status.services, key=lambda one: (weight(one), one.service, one.number))
    several = {one.service for one in shown if one.number > 1}
    rows = []
    for one in shown:
        since, known = one.finished or one.started, one.container_id in usage
        rows.append(
            (
                f"{one.service} {one.number}" if one.service in several else one.service,
                str(one.phase),
                "" if one.health == "none" else one.health,
                f"{seen.percent[one.container_id]:.1f}%" if one.container_id in seen.percent else "",
                terminal.size(usage[one.container_id].memory) if known else "",
                str(one.restarts or ""),
                times.ago(seen.status.now - since) if since else "",
                ",".join(one.ports),
                one.reason,
            )
        )
    signs = [REVERSED, *(SIGNS.get(COLOURS.get(str(one.phase), "yellow"), YELLOW) for one in shown)]
    return list(zip(signs, terminal.columns(HEADS, rows, colours={}), strict=True))


class _Looks:
    """A thread that looks, and wakes whoever waits at `wake` when it has."""

    def __init__(self, agent: Agent, seen: Sample, wake: int) -> None:
        self.seen = seen
        self.at = time.monotonic()  # of `seen`
        self.trouble = ""  # why there is nothing newer
        self.bug: BaseException | None = None
        self._agent = agent
        self._wake = wake
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        pause = FIRST
        while not self._ended.wait(pause):
            pause = EVERY
            try:
                self.seen, self.at, self.trouble = look(self._agent, self.seen), time.monotonic(), ""
            except Dom0Error as error:
                self.trouble = error.message
            except BaseException as error:  # raised in the main thread
                self.bug = error
                self._ended.set()
            with contextlib.suppress(ChildProcessError):  # each question to another machine was a program
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            with contextlib.suppress(OSError):  # full: it is awake; closed: nobody waits any more
                os.write(self._wake, b"\0")

    def old(self) -> str:
        """That what was seen is old, and why; "": it is not."""
        if self.bug is not None:
            raise self.bug
        age = time.monotonic() - self.at
        if not self.trouble and age < OLD:
            return ""
        return f"not as it is now but {times.ago(age)} ago: {self.trouble or 'dom0: does not answer'}"

    def end(self) -> None:
        self._ended.set()


def _show(agent: Agent, seen: Sample) -> None:
    """Until q, Ctrl-C or the end of the terminal."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    looks = _Looks(agent, seen, wake)
    before = termios.tcgetattr(sys.stdin)
    for number in (signal.SIGWINCH, signal.SIGTSTP):
        signal.signal(number, lambda *_: None)  # that it is handled at all writes it to `wake`
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    sort, first = SORTS[0], 0

    def leave() -> None:
        _write("\x1b[0m\x1b[H\x1b[J\x1b[?1049l\x1b[?25h")
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def enter() -> None:
        tty.setcbreak(sys.stdin)
        _write("\x1b[?1049h\x1b[?25l")

    try:
        enter()
        while True:
            columns, lines = os.get_terminal_size(sys.stdout.fileno())  # 0: a serial line, which nobody knows it of
            # Never in the last column: what stands there makes some terminals begin another line.
            size = max(20, (columns or 80) - 1), max(5, lines or 25)
            drawn, first = frame(looks.seen, sort, old=looks.old(), size=size, first=first)
            _write("\x1b[H" + "\r\n".join(map(_painted, drawn)) + "\x1b[J")
            ready, _, _ = select.select([sys.stdin, woken], [], [], 1.0)
            if woken in ready and signal.SIGTSTP in os.read(woken, 4096):
                leave()
                os.kill(os.getpid(), signal.SIGSTOP)
                enter()
            if sys.stdin in ready:
                keys = KEYS.findall(os.read(sys.stdin.fileno(), 256))
                if not keys or b"q" in keys:  # none: the terminal has ended
                    return
                first = max(0, first + sum(MOVES.get(key[2:], 0) for key in keys))
                turns = sum(TURNS.get(key[2:] or key, 0) for key in keys)
                sort = SORTS[(SORTS.index(sort) + turns) % len(SORTS)]
    finally:
        looks.end()
        signal.set_wakeup_fd(-1)
        leave()


def _painted(line: tuple[str, str]) -> str:
    sign, text = line
    plain = not sign or (os.environ.get("NO_COLOR") and sign in (RED, YELLOW))
    return f"{text}\x1b[K" if plain else f"\x1b[{sign}m{text}\x1b[0m\x1b[K"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
