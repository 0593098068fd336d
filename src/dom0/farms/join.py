"""What a machine does to become a node of a farm, and what it keeps of that: on its data disk, for root alone.

The secret is on the disk before it is told to anybody, and only told to the server that it was made for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0 import flock
from dom0.durable import write_atomic
from dom0.errors import Dom0Error
from dom0.farms import epoch, pin
from dom0.farms.nodes import MachineInfo, NodeState, Standing
from dom0.farms.pin import Pin
from dom0.host import on_host
from dom0.http.channel import Malformed
from dom0.http.client import Answer, Body, Client
from dom0.names import FARM_FILE
from dom0.wording import excerpt

AGAIN = 2.0  # seconds between two questions of one that waits
LONGEST_PAUSE = 60.0  # seconds between two attempts to reach a server that does not answer
ANSWER_WITHIN = 30.0  # seconds
MOST_ANSWER = 64 << 10  # bytes
TICKET = Path("/proc/1/root/medium/dom0/ticket")  # on the base OS, also from the root container
_TICKET = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """`secret` is this machine's, for the server with `fingerprint` alone; the rest is what that said last."""

    fingerprint: str
    secret: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    address: str = ""  # HOST:PORT of the server
    farm: str = ""
    name: str = ""
    role: str = ""
    epoch: str = ""  # the highest that was heard of


class ServerClient(Client):
    """Asks the server of the farm that this machine is in: not one that another copy of it has superseded (`epoch`)."""

    def __init__(self, state: Path, server: Pin) -> None:
        super().__init__(lambda: pin.connect(server), f"{server.host}:{server.port}")
        self._state = state

    @asynccontextmanager
    async def ask(
        self, method: str, target: str, *, headers: Mapping[str, str] = {}, body: Body = None
    ) -> AsyncIterator[Answer]:
        """As its own. Raises ConnectionError too where another copy has to be asked."""
        membership = read(self._state)
        known = membership.epoch if membership else ""
        headers = {**headers, epoch.HEADER: known} if known else headers
        async with super().ask(method, target, headers=headers, body=body) as answer:
            heard = answer.headers.get(epoch.HEADER)
            if answer.status == epoch.SUPERSEDED or epoch.is_older(heard, known):
                raise ConnectionError("another copy of it was promoted, and is the farm's server")
            if membership is not None and heard != known:
                kept = read(self._state)  # the answer took its time
                if kept is not None and kept.secret == membership.secret:
                    keep(self._state, kept, replace(kept, epoch=heard))
            yield answer


def read(state: Path) -> Membership | None:
    """Raises Dom0Error where the file is not what we wrote, OSError."""
    try:
        return msgspec.json.decode((state / FARM_FILE).read_bytes(), type=Membership)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Dom0Error(
            f"{state / FARM_FILE}: is damaged: {error}", hint="remove it: the machine waits then, and is approved again"
        ) from error


def known_server(state: Path) -> str:
    """HOST:PORT:FINGERPRINT of the farm that this machine is in, or waits to be; "" where it is in none."""
    found = read(state)
    return f"{found.address}:{found.fingerprint}" if found else ""


def prepare(state: Path, server: Pin, *, leave: bool) -> Membership:
    """What this machine is for `server`. `leave`: not for another one any more. Raises Dom0Error, OSError."""
    before = found = read(state)
    if found is not None and found.fingerprint != server.fingerprint:
        if not leave:
            raise Dom0Error(
                f"this machine is in the farm {found.farm or 'of another server'}, at {found.address}",
                hint="--leave gives that up: what it is there cannot be had back",
            )
        found = None
    if found is None:
        found = Membership(fingerprint=server.fingerprint, secret=secrets.token_hex(32))
    return keep(state, before, replace(found, address=f"{server.host}:{server.port}"))


async def join(
    state: Path, server: Pin, membership: Membership, tell: Callable[[str], None], *, patient: bool = False
) -> Standing:
    """Wait until a person has approved this machine; `tell` what to do for that.

    Raises NotTheServer, Dom0Error; OSError where the server does not answer the first time, unless it is `patient`.
    """
    client = ServerClient(state, server)
    body, last, pause = msgspec.json.encode({**msgspec.structs.asdict(describe()), "ticket": _ticket()}), None, AGAIN
    try:
        while True:
            _check_kept(state, membership)
            try:
                standing = await _ask_standing(client, membership.secret, body)
            except (OSError, Malformed) as error:
                if last is None and not patient:
                    raise
                pause = min(pause * 2, LONGEST_PAUSE)
                said = f"the farm's server does not answer: {str(error) or 'nothing came'}; asked again until it does"
            else:
                if standing.state is not NodeState.WAITING:
                    told = read(state) or membership  # with the epoch
                    told = replace(told, farm=standing.farm, name=standing.name, role=standing.role)
                    keep(state, membership, told)
                    return standing
                said = f"code {standing.code}: on the server of the farm {standing.farm}, dom0 farm approve"
                said += f" {standing.code} --as NAME --role ROLE"
                pause = AGAIN
            if said != last:
                tell(said)
            last = said
            await asyncio.sleep(pause)
    finally:
        await client.close()


async def follow(state: Path, named: str) -> None:
    """Join the farm that the boot contract has `named`, however long it takes; log and console say how it goes."""
    try:
        server = pin.parse(named)
        membership = prepare(state, server, leave=False)
        standing = await join(state, server, membership, _tell, patient=True)
    except (Dom0Error, OSError) as error:  # the machine runs without it
        _tell(f"the farm of the boot contract: {error}", logging.WARNING)
    else:
        _tell(f"{standing.name}: a node of the farm {standing.farm}, with the role {standing.role}")


def _tell(text: str, level: int = logging.INFO) -> None:
    log.log(level, "%s", text)
    on_host.tell_console(text)


def _ticket() -> str:
    """Which the loader of this machine was given when it was approved there; "" where there is none."""
    try:
        found = TICKET.read_text(errors="replace").strip()
    except OSError:
        return ""
    return found if _TICKET.fullmatch(found) else ""


def describe() -> MachineInfo:
    """What this machine is, for the person who approves it."""
    of = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hostname = re.sub("[^A-Za-z0-9._-]", "", of.nodename)[:64]
    return MachineInfo(hostname=hostname, architecture=of.machine, memory=memory)


async def ask(
    client: Client,
    path: str,
    secret: str,
    body: bytes,
    *,
    headers: Mapping[str, str] = {},
    within: float = ANSWER_WITHIN,
    most: int = MOST_ANSWER,
) -> tuple[int, bytes]:
    """What the server answers to a POST: the status, and at most so many bytes. Raises OSError, Malformed."""
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json", **headers}
    said = bytearray()
    async with asyncio.timeout(within), client.ask("POST", path, headers=headers, body=body) as answer:
        async for piece in answer.chunks():
            said += piece
            if len(said) > most:
                raise ConnectionError("the answer is too long")
        return answer.status, bytes(said)


async def _ask_standing(client: Client, secret: str, body: bytes) -> Standing:
    """Raises Dom0Error where the server refuses, OSError, Malformed."""
    status, said = await ask(client, "/v1/hello", secret, body)
    try:
        if status == 200:
            return msgspec.json.decode(said, type=Standing)
        message = msgspec.json.decode(said, type=dict[str, str])["message"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise ConnectionError("the answer is not one of a farm's server") from error
    if status == 429 or status >= 500:
        raise ConnectionError(f"it says: {excerpt(message)}")
    raise Dom0Error(f"the farm's server refuses: {excerpt(message)}", hint="on the server: dom0 farm nodes")


def keep(state: Path, before: Membership | None, after: Membership) -> Membership:
    """What the machine is in its farm from now on.

    Raises Dom0Error where another process has put another secret there since `before` was read, OSError.
    """
    if after != before:
        lock = state / ".farm.lock"  # of its own: the agent has that of the directory
        lock.mkdir(mode=0o700, parents=True, exist_ok=True)
        locked = flock.open_locked(lock)
        try:
            _check_kept(state, before)
            write_atomic(state / FARM_FILE, msgspec.json.encode(after))
        finally:
            os.close(locked)
    return after


def _check_kept(state: Path, before: Membership | None) -> None:
    kept = read(state)
    if (kept and kept.secret) != (before and before.secret):
        raise Dom0Error(
            "another process has made this machine join or leave a farm meanwhile", hint="where it is: dom0 farm join"
        )
