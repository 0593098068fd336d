"""What every data plane can do: the kernel's (kernel.py) and the relay's (relay.py).

A plane takes whole tables. It knows no names, no health and no policies: whoever makes the table does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol as Interface

import msgspec

from dom0.forward.table import Listener, Protocol, Table, Target


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A connection, or a UDP flow, that goes through a plane now."""

    protocol: Protocol
    generation: int
    client: Target  # who connected, as we see it (weight means nothing here)
    listener: Target  # what it connected to: our address, the listener's port
    near: Target  # our address and port towards the target
    target: Target
    state: str = ""  # TCP's word: SYN_SENT, ESTABLISHED, CLOSE_WAIT…; empty for UDP
    sent: int = 0  # bytes from the client, where the kernel counts them
    received: int = 0  # bytes to the client
    expires: int = 0  # seconds until it is forgotten if nothing comes
    number: int = 0  # the kernel's ID of it, made from its memory address; 0 where there is none

    @property
    def came_by(self) -> Listener:
        return Listener(self.protocol, self.listener.port)


class DataPlane(Interface):
    @property
    def name(self) -> str:
        """`kernel`, `relay`: what `show` prints."""

    async def set(self, table: Table) -> None:
        """Forward by `table` and nothing else from now on, in one step; what is established goes on as it is.

        The same table again changes nothing. Raises Dom0Error, and then the former table is in force.
        """

    async def read(self) -> Table | None:
        """The table in force, read back from the kernel or the processes; None if there is none of ours."""

    async def flows(self, generations: Collection[int] | None = None) -> list[Flow]:
        """All, or those of some generations."""

    async def forget(self, flows: Collection[Flow]) -> int:
        """Delete the state of `flows` without telling either end: UDP goes where the table says with the next
        datagram, an unanswered SYN with its next retransmission. Returns how many were there.
        """

    async def cut(self, flows: Collection[Flow]) -> int:
        """End `flows` and reset both ends now, also idle ones. Returns how many were there."""
