"""The two slots of a running machine: their status from the program `slots`, and whether an update fits. docs/os.md."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from typing import IO

import msgspec

from dom0 import temporary
from dom0.errors import Dom0Error
from dom0.host import on_host
from dom0.host.uki import SUMS, UNAME, BootFile, Uki, is_for_virtual_machines
from dom0.run import CommandFailed, transfer

PROGRAM = "slots"
SLOTS = ("a", "b")
_ROOM_LEFT = 1024  # KiB of the medium that stay free
_MEMORY_BESIDE = 100 * 1024  # KiB that a boot needs besides the initrd, packed and unpacked


class OsSlot(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str  # of the base OS, "" if the slot is empty
    kernel: str


class OsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """On a machine that was not started from a disk with slots, `slots` and all after it is empty."""

    version: str  # of the base OS that runs
    machine: str  # as uname prints it
    slots: tuple[OsSlot, ...] = ()
    running: str = ""
    good: str = ""
    next: str = ""
    left: int = 0
    failed: str = ""
    room: int = 0  # KiB for a base OS in the other slot
    memory: int = 0  # KiB

    @property
    def other(self) -> str:
        return "b" if self.running == "a" else "a"

    @property
    def kernel(self) -> str:
        """The release of the running kernel."""
        return next(slot.kernel for slot in self.slots if slot.name == self.running)

    def state(self, slot: OsSlot) -> str:
        """For people."""
        words = {
            "runs": slot.name == self.running,
            "good": slot.name == self.good,
            f"on trial, {self.left} more": slot.name == self.next == self.running,
            f"next, {self.left} tries": slot.name == self.next != self.running,
            "did not prove itself": slot.name == self.failed,
            "empty": not slot.version,
        }
        return ", ".join(word for word, holds in words.items() if holds)


async def status() -> OsStatus:
    """Raises NoBaseOS, Dom0Error."""
    return decode((await on_host.run(PROGRAM, "status")).stdout)


def decode(printed: str) -> OsStatus:
    """What `slots status` printed. Raises Dom0Error."""
    values = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    if not values.get("running"):
        return OsStatus(version=values.get("version", ""), machine=values.get("machine", ""))
    found = [(name, values.get(name, "").split(" ", 1)) for name in SLOTS]
    try:
        return OsStatus(
            version=values["version"],
            machine=values["machine"],
            slots=tuple(OsSlot(name=name, version=words[0], kernel=" ".join(words[1:])) for name, words in found),
            running=values["running"],
            good=values["good"],
            next=values["next"],
            left=int(values["left"] or 0),
            failed=values["failed"],
            room=int(values["room"]),
            memory=int(values["memory"]),
        )
    except (KeyError, ValueError) as error:
        raise Dom0Error(f"slots: its answer is not understood: {error}") from error


def refuse(now: OsStatus, os: Uki, files: Sequence[BootFile]) -> None:
    """Raises Dom0Error if `os` cannot be this machine's next base OS, before anything is changed."""
    refuse_without_slots(now)
    if UNAME[os.architecture] != now.machine:
        raise Dom0Error(f"base OS: the file is for {os.architecture}, this machine is {now.machine}")
    if is_for_virtual_machines(os.release) and not is_for_virtual_machines(now.kernel):
        raise Dom0Error(
            "base OS: the file is for virtual machines, this machine runs one for hardware",
            hint="dom0 os build --flavour metal",
        )
    if now.running != now.good:
        raise Dom0Error(
            f"base OS: slot {now.running} has not proved itself yet, and {now.good} is the one to go back to",
            hint="wait until it has, see `dom0 os status`",
        )
    needed = sum(file.size for file in files) // 1024 + _ROOM_LEFT
    if needed > now.room:
        raise Dom0Error(
            f"base OS: the boot medium has room for {now.room // 1024} MiB, the update has {needed // 1024} MiB",
            hint="write a larger one: dom0 os write",
        )
    memory = 2 * os.initrd.size // 1024 + _MEMORY_BESIDE
    if memory > now.memory:
        raise Dom0Error(
            f"base OS: to start it takes {memory // 1024} MiB of memory, this machine has {now.memory // 1024} MiB"
        )


def refuse_without_slots(now: OsStatus) -> None:
    if not now.slots:
        raise Dom0Error(
            "base OS: this machine was not started from a boot disk with slots",
            hint="started from the network: replace the files there and restart; from an ISO: write a new one",
        )


async def update(files: Sequence[BootFile]) -> None:
    """Write `files` to the other slot, and boot it next. If it raises Dom0Error, the next boot is unchanged."""
    argv = on_host.command(PROGRAM, "update", "-")
    with tempfile.TemporaryFile(prefix="dom0-update-", dir=temporary.LARGE) as packed:
        pack(files, packed)
        packed.seek(0)
        try:
            await transfer(argv, stdin=packed)
        except CommandFailed as error:
            message, _, hint = error.stderr.strip().partition("\n")
            raise Dom0Error(message or error.message, hint=hint or error.hint) from error


def pack(files: Sequence[BootFile], packed: IO[bytes]) -> None:
    """The input of `slots update`. The sums have another name until `slots` has checked all files."""
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in files:
            entry = tarfile.TarInfo("sums.new" if file.name == SUMS else file.name)
            entry.size = file.size
            if isinstance(file.content, bytes):
                tar.addfile(entry, io.BytesIO(file.content))
                continue
            with file.content.file.open("rb") as whole:
                whole.seek(file.content.start)
                tar.addfile(entry, whole)  # as many bytes as the entry has
