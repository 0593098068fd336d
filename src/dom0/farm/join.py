"""What a machine does to become a node of a farm, and what it keeps of that: on its data disk, for root alone.

The secret is on the disk before it is told to anybody, and only told to the server that it was made for.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0.durable import write_atomic
from dom0.errors import Dom0Error
from dom0.farm import pin
from dom0.farm.nodes import Machine, NodeState
from dom0.farm.pin import Pin
from dom0.farm.serve import Standing
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.wording import excerpt

AGAIN = 2.0  # seconds between two questions of one that waits
ANSWER_WITHIN = 30.0  # seconds
MOST_ANSWER = 64 << 10  # bytes
FILE = "farm.json"


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """`secret` is this machine's, for the server with `fingerprint` alone; the rest is what that said last."""

    fingerprint: str
    secret: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    address: str = ""  # HOST:PORT of the server
    farm: str = ""
    name: str = ""
    role: str = ""


def read(state: Path) -> Membership | None:
    """Raises Dom0Error where the file is not what we wrote, OSError."""
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=Membership)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Dom0Error(
            f"{state / FILE}: is damaged: {error}", hint="remove it: the machine waits then, and is approved again"
        ) from error


def prepare(state: Path, server: Pin, *, leave: bool) -> Membership:
    """What this machine is for `server`. `leave`: not for another one any more. Raises Dom0Error, OSError."""
    found = read(state)
    if found is not None and found.fingerprint != server.fingerprint:
        if not leave:
            raise Dom0Error(
                f"this machine is in the farm {found.farm or 'of another server'}, at {found.address}",
                hint="--leave gives that up: what it is there cannot be had back",
            )
        found = None
    if found is None:
        found = Membership(fingerprint=server.fingerprint, secret=secrets.token_hex(32))
    return _keep(state, found, replace(found, address=f"{server.host}:{server.port}"))


async def join(state: Path, server: Pin, membership: Membership, tell: Callable[[str], None]) -> Standing:
    """Wait until a person has approved this machine; `tell` what to do for that.

    Raises NotTheServer, Dom0Error; OSError where the server does not answer the first time.
    """
    client = Client(lambda: pin.connect(server), f"{server.host}:{server.port}")
    body, last = msgspec.json.encode(describe()), None
    try:
        while True:
            try:
                standing = await _ask(client, membership.secret, body)
            except (OSError, Malformed) as error:
                if last is None:
                    raise
                said = f"the farm's server does not answer: {error or 'nothing came'}; asked again until it does"
            else:
                if standing.state is not NodeState.WAITING:
                    told = replace(membership, farm=standing.farm, name=standing.name, role=standing.role)
                    _keep(state, membership, told)
                    return standing
                said = f"code {standing.code}: on the server of the farm {standing.farm}, dom0 farm approve"
                said += f" {standing.code} --as NAME --role ROLE"
            if said != last:
                tell(said)
            last = said
            await asyncio.sleep(AGAIN)
    finally:
        await client.close()


def describe() -> Machine:
    """What this machine is, for the person who approves it."""
    of = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hostname = re.sub("[^A-Za-z0-9._-]", "", of.nodename)[:64]
    return Machine(hostname=hostname, architecture=of.machine, memory=memory)


async def _ask(client: Client, secret: str, body: bytes) -> Standing:
    """Raises Dom0Error where the server refuses, OSError, Malformed."""
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    said = bytearray()
    async with asyncio.timeout(ANSWER_WITHIN), client.ask("POST", "/v1/hello", headers=headers, body=body) as answer:
        async for piece in answer.chunks():
            said += piece
            if len(said) > MOST_ANSWER:
                raise ConnectionError("the answer is too long")
        status = answer.status
    try:
        if status == 200:
            return msgspec.json.decode(said, type=Standing)
        message = msgspec.json.decode(said, type=dict[str, str])["message"]
    except (msgspec.DecodeError, KeyError) as error:
        raise ConnectionError("the answer is not one of a farm's server") from error
    if status == 429 or status >= 500:
        raise ConnectionError(f"it says: {excerpt(message)}")
    raise Dom0Error(f"the farm's server refuses: {excerpt(message)}", hint="on the server: dom0 farm nodes")


def _keep(state: Path, before: Membership, after: Membership) -> Membership:
    if after != before:
        write_atomic(state / FILE, msgspec.json.encode(after))
    return after
