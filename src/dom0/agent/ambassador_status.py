"""Documents of the agent's API about ambassadors, beside those in `status`. Used by the CLI too.

Receipt, Rewire, Undo, State and Flow are in dom0.ambassador.
"""

from __future__ import annotations

import msgspec

from dom0.ambassador.messages import Receipt, State
from dom0.forward.dataplane import Flow
from dom0.forward.drain import Counts


class Lead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Rewire that leads nowhere but to a service of the project: all that the page may ask for."""

    service: str
    listener: str = ""
    plan: bool = False


class ShortcutStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one consumer. `reason`: why it has none, or not for all listeners."""

    consumer: str  # container
    listeners: tuple[str, ...] = ()  # that it has the shortcut for; without any it has none
    reason: str = ""


class AmbassadorStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    service: str
    container: str
    container_id: str
    running: bool
    error: str = ""  # why it cannot be asked
    state: State | None = None  # the last one that it told
    shortcuts: tuple[ShortcutStatus, ...] = ()
    addresses: dict[str, str] = {}  # of running containers on its networks: whose each is


class PlacedFlow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    flow: Flow
    consumer: str = ""  # through its shortcut; empty: through the ambassador


class InShortcuts(Counts, frozen=True, kw_only=True):
    """The part of a receipt's counts that was in shortcuts."""

    consumers: int = 0


class Rewired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`receipt` counts ambassador and shortcuts together. `flows`: those concerned, of a plan only."""

    receipt: Receipt
    shortcuts: InShortcuts = InShortcuts()
    flows: tuple[PlacedFlow, ...] = ()
    refused: tuple[str, ...] = ()  # shortcuts that could not be switched: what is wrong with each
