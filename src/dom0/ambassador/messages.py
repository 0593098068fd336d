"""The documents of the control socket, one JSON document a line: requests, answers, the state. No I/O.

A connection carries any number of requests, one answer each, in order. Whoever connects to the watch socket instead
gets `State` at once and again after every change, and says nothing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dom0.ambassador.settings import Existing
from dom0.forward.dataplane import Flow
from dom0.forward.drain import Drain
from dom0.forward.table import Table, Udp
from dom0.health import Problem

RUN_DIRECTORY = "/run/dom0-ambassador"
CONTROL = f"{RUN_DIRECTORY}/control.sock"
WATCH = f"{RUN_DIRECTORY}/watch.sock"


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    pass


class Show(_Request, frozen=True, kw_only=True, tag="show"):
    pass


class Rewire(_Request, frozen=True, kw_only=True, tag="rewire"):
    """`to`: sources as in settings.Listen. A source without a port takes each listener's present target port.

    Without `listener` it is the only one, or all of them when `to` names no port. `existing` and `udp`: what the
    listener's settings say unless given. `hold`: hold new connections until the new target accepts one, at most
    `hold_timeout`; if it does not in that time, the old table is in force again and the answer is an error.
    `plan`: change nothing, answer which flows it concerns.
    """

    to: tuple[str, ...]
    listener: str = ""
    existing: Existing = ""
    udp: Udp | None = None
    hold: bool = False
    hold_timeout: str = "30s"
    plan: bool = False


class Undo(_Request, frozen=True, kw_only=True, omit_defaults=True, tag="undo"):
    """Back to the targets before the last rewire; `existing` and `udp` are for the flows made since. `receipt`: that of
    the rewire that is meant, where another one is refused; 0: whichever is the last. An ambassador older than the field
    is not told of it unless it is given.
    """

    listener: str = ""
    existing: Existing = ""
    udp: Udp | None = None
    receipt: Annotated[int, msgspec.Meta(ge=0)] = 0


class History(_Request, frozen=True, kw_only=True, tag="history"):
    pass


class Flows(_Request, frozen=True, kw_only=True, tag="flows"):
    listener: str = ""
    generation: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0  # 0: all


class Follow(_Request, frozen=True, kw_only=True, omit_defaults=True, tag="follow"):
    """What the dom0 agent found: `container:NAME`, `service:NAME`, `label:KEY=VALUE`, with or without the port that
    stands behind it in the settings -> addresses; `node:NODE/service:NAME:PORT`, or the same after `plaintext:` ->
    ADDRESS:PORT of each. Replaces what it said before, but of what is on other nodes: where that is left out nobody
    knows, and all stays as it was.

    `identities`: the same keys -> IDs of the containers. An address that another container has now is another target.
    `awaited`: keys without an address whose last container is about to be stopped, and another one or the same comes.
    What is already awaited stays so until it has an address.
    """

    found: dict[str, tuple[str, ...]]
    identities: dict[str, str] = {}
    awaited: tuple[str, ...] = ()


Request = Show | Rewire | Undo | History | Flows | Follow


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rewire did. Counts are flows; `switch_ms`: milliseconds that setting the table took."""

    number: int  # of this ambassador's rewires, from 1
    at: float  # seconds since the epoch
    cause: str  # rewire, undo, settings, dns, container, health
    listeners: tuple[str, ...]
    generations: tuple[int, ...]  # the new ones, one a listener
    before: tuple[str, ...]  # targets
    after: tuple[str, ...]
    existing: Existing
    udp: Udp
    switch_ms: float
    kept: int = 0  # old connections that go on
    ended: int = 0  # that ended by themselves while they were drained
    cut: int = 0
    rescued: int = 0  # unanswered connects that were sent on
    moved: int = 0  # UDP flows
    draining: float = 0.0  # until when, seconds since the epoch; 0: is over, or was none
    undone: bool = False


class ListenerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    listener: str
    generation: int
    sources: tuple[str, ...]  # as they were asked for
    targets: tuple[str, ...]  # in force
    unhealthy: tuple[str, ...] = ()
    down: str = ""  # refuse, hold: what new connections meet now
    rewired: bool = False  # the sources are a rewire's, not the settings'
    flows: int = 0
    plaintext: bool = False  # on the way to other nodes


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"drains": "treatments"}):
    """`table` is what the plane was given last; `revision` grows with every change of it."""

    version: str
    plane: str
    revision: int
    table: Table
    listeners: tuple[ListenerState, ...]
    existing: dict[str, Existing]  # policy of each listener
    shortcut: bool = True
    problems: tuple[Problem, ...] = ()
    receipts: int = 0
    drains: tuple[Drain, ...] = ()  # of the last hour; the agent does the same in shortcuts
    old: dict[str, tuple[int, ...]] = {}  # listener -> its former generations that may have connections yet
    undone: tuple[int, ...] = ()  # receipts whose drains were cancelled


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a rewire with `plan` would concern."""

    receipt: Receipt  # as it would be; `number` 0
    flows: tuple[Flow, ...]


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    error: str
    hint: str = ""
    exit_code: int = 1
