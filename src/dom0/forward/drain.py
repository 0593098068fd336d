"""What is still to be done to the connections from before a rewire: kept in the state file, told in State. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from dom0.forward.table import Listener, Protocol, Target

Udp = Literal["move", "keep"]


class Drain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is due to connections of one listener with a generation in [since, until), except those to `spared`.

    Unanswered connects are sent on, UDP moves if `udp` says so, and from `cut_at` on the rest is cut. It stays in the
    file until `over_at`, for what was under way in the kernel while we looked.
    """

    receipt: int
    listener: Listener
    since: int
    until: int
    spared: tuple[Target, ...] = ()
    udp: Udp = "move"
    cut_at: float | None = None  # ticks; None: they go on until they end
    over_at: float = 0.0  # ticks
    left: int = -1  # connections counted when it began; -1: not counted yet

    def concerns(self, generation: int, protocol: Protocol, port: int, target: Target) -> bool:
        return (
            self.since <= generation < self.until
            and (protocol, port) == (self.listener.protocol, self.listener.port)
            and all((target.address, target.port) != (spared.address, spared.port) for spared in self.spared)
        )
