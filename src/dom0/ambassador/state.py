"""What outlives the control plane: one file, written whole or not at all. Decides nothing.

Theory of operation: what is about to be done is written before it is done. A generation's number is in the file before
the plane hears of it, so whenever we are killed the next start finds every number that was ever used, and finishes
what the file says: the table is set again, the drains of old connections go on.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec

from dom0.ambassador.messages import Receipt
from dom0.ambassador.sources import Source
from dom0.durable import Unwritable, write_atomic
from dom0.errors import Dom0Error
from dom0.forward.drain import Drain
from dom0.forward.table import Table, Target, parse_listener

FILE = "state.json"
MOST_RECEIPTS = 100
BOOT = Path("/proc/sys/kernel/random/boot_id")


class StateDamaged(Dom0Error):
    """The file is there and is not what we wrote."""


class Moment(msgspec.Struct, frozen=True):
    """`now` is for people and may jump; `ticks` are seconds since boot, the same for every process."""

    now: float
    ticks: float


def moment() -> Moment:
    return Moment(time.time(), time.monotonic())


class Undoable(msgspec.Struct, frozen=True, kw_only=True):
    """Before a rewire: what each listener was told (empty: nothing, the declaration holds), targets and generation."""

    receipt: int
    sources: dict[str, tuple[Source, ...]]
    targets: dict[str, tuple[Target, ...]]
    generations: dict[str, int]


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"drains": "treatments"}):
    """Keys that are listeners read `6379/tcp`."""

    digest: str = ""  # of the declaration that `table` comes from
    boot: str = ""  # ticks of another boot mean nothing
    generation: int = 0  # the last one that was given
    receipt: int = 0
    revision: int = 0
    table: Table = Table()
    wishes: dict[str, tuple[Source, ...]] = {}  # rewired listeners
    old: dict[str, tuple[int, ...]] = {}  # generations that may have connections yet
    addresses: dict[str, tuple[str, ...]] = {}  # last known of names and of what the agent follows
    identities: dict[str, str] = {}  # of what the agent follows
    awaited: dict[str, float] = {}  # what the agent follows and is replacing -> ticks since when it has no address
    unhealthy: tuple[str, ...] = ()  # targets
    drains: tuple[Drain, ...] = ()
    past: tuple[Drain, ...] = ()  # over here; an agent that was away still does them in shortcuts
    undo: tuple[Undoable, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    causes: dict[str, int] = {}  # how many receipts of each there have been


class StateFile:
    """`error`: why the last `write` failed; empty if it did not."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self.error = ""

    def read(self) -> Stored | None:
        """None when there is none. Raises StateDamaged; the file is set aside then."""
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=Stored)
            _check(stored)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            with contextlib.suppress(OSError):
                self.path.replace(self.path.with_name(f"{FILE}.damaged"))
            hint = "what the kernel forwards by stays in force"
            raise StateDamaged(f"{self.path}: is damaged: {error}", hint=hint) from error
        if stored.boot == boot():
            return stored
        # No connection has survived; deadlines were counted from another boot.
        receipts = tuple(msgspec.structs.replace(receipt, draining=0.0) for receipt in stored.receipts)
        return msgspec.structs.replace(stored, drains=(), past=(), old={}, awaited={}, receipts=receipts, boot=boot())

    def write(self, stored: Stored) -> None:
        """Survives a kill; the forwarding does not wait for the disk, so a power cut may leave the former one.

        A disk that does not take it stops nothing: rules and connections live in the kernel. It is in `error` then.
        """
        content = msgspec.json.encode(msgspec.structs.replace(stored, boot=boot()))
        try:
            write_atomic(self.path, content, durable=False)
        except Unwritable as error:
            self.error = error.message
        else:
            self.error = ""


def boot() -> str:
    """Empty where the kernel has no boot ID."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def _check(stored: Stored) -> None:
    """Raises ValueError."""
    for key in (*stored.wishes, *stored.old):
        parse_listener(key)
    numbers = [route.generation for route in stored.table.routes]
    numbers += [generation for generations in stored.old.values() for generation in generations]
    if any(number > stored.generation for number in numbers):
        raise ValueError("a generation is newer than the last one given")
