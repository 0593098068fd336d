"""What a farm's server tells the dom0 of its machine, for the page: what `dom0 farm status` says."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from dom0.agent.served_farms import ServedFarm, ServedNode
from dom0.cli.farms.status import floating_remarks, look, remarks, why
from dom0.cli.places import agent_socket
from dom0.errors import Dom0Error
from dom0.farms.directory import FarmDirectory
from dom0.http.channel import Malformed
from dom0.http.client import Client
from dom0.http.server import JSON

SAY_EACH = 2.0  # seconds
ANSWER_WITHIN = 10.0  # seconds


async def show(farm: FarmDirectory) -> None:
    """To the dom0 of this machine, where there is one that we may ask, until it is cancelled."""
    agent = Client(lambda: asyncio.open_unix_connection(agent_socket()), "dom0")
    try:
        while True:
            with contextlib.suppress(OSError, Malformed, Dom0Error):  # the page says of what age it is
                if agent_socket().exists():
                    body = msgspec.json.encode(await asyncio.to_thread(_served, farm))
                    headers = {"Content-Type": JSON}
                    async with (
                        asyncio.timeout(ANSWER_WITHIN),
                        agent.ask("POST", "/v1/farms/served", headers=headers, body=body),
                    ):
                        pass
            await asyncio.sleep(SAY_EACH)
    finally:
        await agent.close()


def _served(farm: FarmDirectory) -> ServedFarm:
    """Raises Dom0Error."""
    found = look(farm)
    document = found.document
    floating = (
        f"{one.name} floats: {one.running} of {one.wanted} tasks, on {', '.join(one.nodes) or 'no node'}. {one.said}"
        for one in document.floating.services
    )
    return ServedFarm(
        farm=document.farm,
        directory=str(farm.path.resolve()),
        revision=document.revision,
        os=document.os,
        paused=tuple(document.paused),
        remarks=(*remarks(found), *floating, *floating_remarks(document.floating)),
        nodes=tuple(
            ServedNode(
                name=one.name,
                role=one.role,
                revision=one.revision,
                state=one.state,
                os=one.os,
                last_seen=one.last_seen,
                why=why(found, one),
            )
            for one in document.nodes
        ),
    )
