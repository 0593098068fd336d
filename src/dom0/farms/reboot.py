"""A node that reboots asks the farm's server for the lock of its role before, and gives it back when it is well again.

What is asked for is on the node's disk before the server hears of it; so whatever is killed, and however long the
reboot takes, the next start gives it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from dom0.durable import sync, write_atomic, writing
from dom0.farms import join, pin
from dom0.farms.join import Membership
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.names import BOOT_ID
from dom0.wording import excerpt

FILE = "farm-reboot.json"
AGAIN = 5.0  # seconds until it is asked again


class RebootRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`boot`: the kernel's ID of the boot that asked."""

    boot: str


@asynccontextmanager
async def locked(state: Path, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Enter the block when this machine may reboot, which it is to do there; `tell` why it may not yet. What is no node
    asks nobody. Where the block fails, or is not entered, the lock is given back.

    Raises Dom0Error, OSError of the disk.
    """
    membership = join.read(state)
    if membership is None or not membership.name:
        yield
        return
    write_atomic(state / FILE, msgspec.json.encode(RebootRequest(boot=this_boot())))
    server = pin.parse(f"{membership.address}:{membership.fingerprint}")
    client, last = join.ServerClient(state, server), ""
    try:
        while why := await _ask(client, membership, "/v1/pre-reboot"):
            if why != last:
                tell(f"{membership.name} waits before it restarts: {why}")
            last = why
            await asyncio.sleep(AGAIN)
        yield
    except BaseException:
        await give_back(state, client, membership)
        raise
    finally:
        await client.close()


def has_rebooted(state: Path) -> bool:
    """Since it asked for the lock."""
    try:
        asked = msgspec.json.decode((state / FILE).read_bytes(), type=RebootRequest)
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):  # what is not held is given back in vain
        return True
    return asked.boot != this_boot()


def this_boot() -> str:
    return BOOT_ID.read_text().strip()


async def give_back(state: Path, client: Client, membership: Membership) -> None:
    """Where the server does not answer it is to be called again. Raises Unwritable."""
    if not await _ask(client, membership, "/v1/steady-state"):
        with writing(state / FILE):
            (state / FILE).unlink(missing_ok=True)
            sync(state)


async def _ask(client: Client, membership: Membership, path: str) -> str:
    """Why it is refused, "" where it is not."""
    body = msgspec.json.encode({"client_params": {"id": membership.name, "group": membership.role}})
    fleet_lock = {"fleet-lock-protocol": "true"}
    try:
        status, said = await join.ask(client, path, membership.secret, body, headers=fleet_lock)
        return "" if status == 200 else excerpt(msgspec.json.decode(said, type=dict[str, str])["value"])
    except (OSError, Malformed) as error:
        return f"the farm's server does not answer: {str(error) or 'nothing came'}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return "the answer is not one of a farm's server"
