"""What a node does about the base OS that its farm's server names: when the server gives it the lock of its role it
writes that into the slot that does not run, as `dom0 os update` does, and restarts. One that starts from the network
has no slots, and gets it when it restarts (`netboot`).

What was begun is on the disk before it is. After the restart either the new one runs, or the machine has gone back by
itself to the one that it ran before: then the turn has failed, and the next one is for a person to give.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from dom0.durable import write_atomic
from dom0.errors import Busy, Dom0Error
from dom0.farms import reboot
from dom0.farms.revisions import NETWORK, SLOTS, BaseOs
from dom0.host import contract, on_host, slots, uki, update_file
from dom0.host.update_file import UpdateFile
from dom0.names import HOST_ROOT, OS_VERSION, run_directory

FILE = "farm-os.json"
RESTART_WITHIN = 1800.0  # seconds; containers may need long to stop


class OsNow(msgspec.Struct, frozen=True, kw_only=True):
    """`boots`: how it gets another one (`revisions.SLOTS`, `NETWORK`), "" where it does not; `armed`: the version that
    the next start tries, "" for the one that is good.
    """

    version: str
    boots: str
    is_on_trial: bool = False
    armed: str = ""


class Host(Protocol):
    """The machine below the root container."""

    async def look(self) -> OsNow | None:
        """None: it does not run the base OS. Raises Dom0Error."""

    async def install(self, update: UpdateFile) -> None:
        """The next start tries it. Raises Dom0Error; the next start is as before then."""

    async def restart(self) -> None:
        """It has begun to when this returns. Raises Dom0Error."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """On the disk. `boot`: the kernel's ID of the boot in which that was; `os`: the version that the next start was to
    try. A server that lost what it knew, or of another farm, counts its turns from one again.
    """

    turn: int
    boot: str
    os: str = ""


class BaseOsHost:
    """Of this machine."""

    async def look(self) -> OsNow | None:
        if not version_here():
            return None
        now = await slots.status()
        if not now.slots:
            from_network = contract.get(run_directory(), "medium") == "none"
            return OsNow(version=now.version, boots=NETWORK if from_network else "")
        armed = next((slot.version for slot in now.slots if slot.name == now.next != now.running), "")
        return OsNow(version=now.version, boots=SLOTS, is_on_trial=now.running != now.good, armed=armed)

    async def install(self, update: UpdateFile) -> None:
        now = await slots.status()
        await update_file.check_signature(update, (await on_host.run(slots.PROGRAM, "signers")).stdout)
        os = await asyncio.to_thread(uki.read, update.file)
        files = await asyncio.to_thread(uki.slot_files, os)
        slots.refuse(now, os, files)
        await slots.update(files)

    async def restart(self) -> None:
        await on_host.run(slots.PROGRAM, "restart")


async def change(
    state: Path, host: Host, os: BaseOs, turn: int, update: UpdateFile, tell: Callable[[str], None]
) -> None:
    """Return when the machine runs it, or is on its way there: it ends with a restart. `update`: its file.

    Raises Dom0Error where it has failed in this turn, Busy where it cannot be now, OSError of the disk.
    """
    now = await host.look()
    if now is None or not now.boots:
        raise Dom0Error("base OS: this machine was started neither from a boot disk with slots nor from the network")
    if now.version == os.version:
        return
    if now.is_on_trial:
        raise Busy(f"base OS: {now.version} has not proved itself yet")
    begun, boot = _read(state), reboot.this_boot()
    if begun is not None and (begun.turn, begun.os) == (turn, os.version) and begun.boot != boot:
        raise Dom0Error(f"it went back to the base OS {now.version}: {os.version} did not prove itself")
    async with reboot.locked(state, tell):  # until then, which may be long, the next start is of what runs
        if now.boots == SLOTS and now.armed != os.version:
            await host.install(update)
        write_atomic(state / FILE, msgspec.json.encode(Begun(turn=turn, boot=boot, os=os.version)))
        tell(f"restarts with the base OS {os.version}")
        await host.restart()
    await asyncio.sleep(RESTART_WITHIN)
    raise Dom0Error("base OS: the machine was told to restart and has not")


def version_here() -> str:
    """Of the base OS that runs, "" on another Linux."""
    try:
        said = (HOST_ROOT / OS_VERSION.relative_to("/")).read_text(errors="replace")
    except OSError:
        return ""
    return re.sub("[^A-Za-z0-9._+~-]", "", said)[:64]


def _read(state: Path) -> Begun | None:
    """None for a damaged file too: the turn is begun anew."""
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=Begun)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
