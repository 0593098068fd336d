"""The machines of a farm, and which of them are its nodes. No I/O: values in, values out.

A machine has a secret that it made itself. Who brings a secret that is not known yet waits, with a code that is drawn
here and shown on its screen; a person who approves the code makes the secret's owner a node. Nothing else does: not
what a machine says of itself, not its address, and no name.

    waiting ── approve ─▶ approved ── the machine has asked, and was told ─▶ enrolled
       └ silent for WAITING_FOR: forgotten          any ── remove ─▶ not known

One that waits in its firmware's network loader can make no secret; the server gives it one, its pass. When it has been
approved, the pass is worth a ticket, once, which its base OS finds; the ticket is worth that the OS's own secret is the
node's (`loading`, then `enrolled`), once and for TICKET_FOR. What its network card says makes no machine a node.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0.errors import Busy, Dom0Error, UsageError
from dom0.wording import did_you_mean, excerpt

WAITING_FOR = 600.0  # seconds without a heartbeat, after which one that waits is forgotten; it asks every few seconds
MOST_WAITING = 64
MOST_WAITING_EACH = 8  # from one address
AGAIN_AFTER = 2.0  # seconds from one boot of a machine to the next; its loader asks again after three
TICKET_FOR = 900.0  # seconds from the end of loading until the base OS has asked
SEEN_EACH = 60.0  # seconds: what is noted of when a machine was heard of, so that not every heartbeat is a write
MOST_MEMORY = 1 << 50  # bytes
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # of farms, nodes and roles: as a host's
_CODE = re.compile(r"[0-9a-f]{6}")
_BEARER = re.compile(r"Bearer ([0-9a-f]{64})")


class NodeState(StrEnum):
    WAITING = "waiting"
    APPROVED = "approved"
    LOADING = "loading"
    ENROLLED = "enrolled"


class MachineInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine says of itself, for people to recognise it by. Nothing is decided by it."""

    hostname: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}\Z")] = ""
    architecture: Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,16}\Z")] = ""  # the kernel's word
    memory: Annotated[int, Meta(ge=0, le=MOST_MEMORY)] = 0  # bytes


class Firmware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a network loader says: the network card that it starts from, and the UUID of the board."""

    mac: Annotated[str, Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")]
    uuid: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`key` is the hash of its secret, pass or ticket, `code` what it shows while it waits; times are of the server's
    clock. `firmware`: of one that was approved in its network loader. `until`: when its ticket ends.
    """

    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    state: NodeState
    code: str = ""
    name: str = ""
    role: str = ""
    machine: MachineInfo
    address: str
    first: float
    last: float
    firmware: Firmware | None = None
    until: float = 0.0

    @property
    def is_in_loader(self) -> bool:
        """Whether `key` is of a pass or a ticket, which make no node."""
        return self.firmware is not None and self.state is not NodeState.ENROLLED


class Nodes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    nodes: tuple[Node, ...] = ()

    def named(self, name: str) -> Node:
        """Raises UsageError."""
        for node in self.nodes:
            if name and node.name == name:
                return node
        hint = did_you_mean(name, (node.name for node in self.nodes if node.name)) or "dom0 farm nodes lists them"
        raise UsageError(f"{excerpt(name)}: is no node of this farm", hint=hint)

    def waiting(self, code: str) -> Node:
        """Raises UsageError."""
        for node in self.nodes:
            if code and node.code == code:
                return node
        raise UsageError(
            f"{excerpt(code)}: no machine waits with this code",
            hint="dom0 farm nodes lists those that do; one that is silent for ten minutes gets another code",
        )

    def put(self, node: Node) -> Nodes:
        """With `node` in the place of the one that has its key, or as one more."""
        if any(one.key == node.key for one in self.nodes):
            return Nodes(nodes=tuple(node if one.key == node.key else one for one in self.nodes))
        return Nodes(nodes=(*self.nodes, node))


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is told that it is. `code` where it waits, `name` and `role` where it is a node."""

    farm: str
    state: NodeState
    code: str = ""
    name: str = ""
    role: str = ""


class NotAdmitted(Dom0Error):
    """A pass or a ticket that is worth nothing: unknown, used or late."""


class TooMany(Busy):
    """Of machines that wait, or of boots of one."""


def key_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer(authorization: Sequence[str]) -> str:
    """The key of the machine's secret that came as a bearer token, "" where none did; in two headers there is none."""
    secret = _BEARER.fullmatch(authorization[0]) if len(authorization) == 1 else None
    return key_of(secret[1]) if secret else ""


def draw_code() -> str:
    return secrets.token_hex(3)


def hear(
    nodes: Nodes,
    key: str,
    machine: MachineInfo,
    address: str,
    now: float,
    draw: Callable[[], str],
    firmware: Firmware | None = None,
) -> tuple[Nodes, Node]:
    """What there is, and what the owner of `key` is, after a heartbeat of it. `draw` makes codes; `now` is not before
    any heartbeat that is in `nodes`.

    Raises TooMany.
    """
    known = next((node for node in nodes.nodes if node.key == key), None)
    nodes = _without_silent(nodes, key, now)
    if known is None and firmware is not None:  # the same machine, switched off and on
        again = (NodeState.WAITING, firmware, address)
        before = [node for node in nodes.nodes if (node.state, node.firmware, node.address) == again]
        if any(0 <= now - node.last < AGAIN_AFTER for node in before):
            raise TooMany("this machine has begun to wait a moment ago", hint="it asks again by itself")
        nodes = Nodes(nodes=tuple(node for node in nodes.nodes if node not in before))
    if known is None:
        _check_room(nodes, address)
        taken = {node.code for node in nodes.nodes}
        code = next(code for code in iter(draw, "") if code not in taken)
        known = Node(key=key, state=NodeState.WAITING, code=code, machine=machine, address=address, first=now, last=now)
        known = replace(known, firmware=firmware)
    if known.state is NodeState.APPROVED and not known.is_in_loader:
        known = replace(known, state=NodeState.ENROLLED)
    last = known.last if 0 <= now - known.last < SEEN_EACH else now
    known = replace(known, machine=machine, address=address, last=last)
    return nodes.put(known), known


def load(nodes: Nodes, key: str, ticket: str, now: float) -> tuple[Nodes, Node]:
    """The owner of the pass with `key`, if it was approved, has the ticket with the key `ticket` from now on, and the
    pass is worth nothing any more. Raises NotAdmitted.
    """
    node = next((node for node in nodes.nodes if node.key == key), None)
    if node is None or not node.is_in_loader or node.state is not NodeState.APPROVED:
        raise NotAdmitted("this pass is worth no ticket: it is not approved, or was used")
    loading = replace(node, key=ticket, state=NodeState.LOADING, until=now + TICKET_FOR, last=now)
    return Nodes(nodes=tuple(loading if one is node else one for one in nodes.nodes)), loading


def enroll(nodes: Nodes, ticket: str, key: str, now: float) -> tuple[Nodes, Node]:
    """The owner of the secret with `key` is the node that the ticket with the key `ticket` was given to; the ticket is
    worth nothing any more. Raises NotAdmitted.
    """
    node = next((node for node in nodes.nodes if node.key == ticket), None)
    if node is None or node.state is not NodeState.LOADING or not 0 < node.until - now <= TICKET_FOR:
        raise NotAdmitted("this ticket is worth nothing: it is not known, was used, or came too late")
    enrolled = replace(node, key=key, state=NodeState.ENROLLED, until=0.0, last=now)
    others = tuple(one for one in nodes.nodes if one is not node and one.key != key)
    return Nodes(nodes=(*others, enrolled)), enrolled


def of_firmware(nodes: Nodes, firmware: Firmware) -> Node | None:
    """The enrolled node that was approved in a loader that said the same. Anybody can say it."""
    found = (node for node in nodes.nodes if node.firmware == firmware and node.state is NodeState.ENROLLED)
    return next(found, None)


def approve(nodes: Nodes, code: str, name: str, role: str) -> tuple[Nodes, Node]:
    """The machine that waits with `code` is the node `name` from now on. Raises UsageError, Dom0Error."""
    node = nodes.waiting(code)
    if not NAME.fullmatch(name) or _CODE.fullmatch(name):
        hint = "small letters, digits and dashes, at most 63; nothing that could be a code"
        raise UsageError(f"--as {excerpt(name)}: is no name for a node", hint=hint)
    if any(other.name == name for other in nodes.nodes):
        raise Dom0Error(
            f"--as {name}: there is a node of this name", hint=f"take another, or first: dom0 farm remove {name}"
        )
    approved = replace(node, state=NodeState.APPROVED, code="", name=name, role=role)
    return nodes.put(approved), approved


def assign(nodes: Nodes, name: str, role: str) -> tuple[Nodes, Node]:
    """Raises UsageError."""
    node = replace(nodes.named(name), role=role)
    return nodes.put(node), node


def remove(nodes: Nodes, which: str) -> tuple[Nodes, Node]:
    """A node by its name, or one that waits by its code. Raises UsageError."""
    found = next((node for node in nodes.nodes if which and node.code == which), None) or nodes.named(which)
    return Nodes(nodes=tuple(node for node in nodes.nodes if node is not found)), found


def _without_silent(nodes: Nodes, key: str, now: float) -> Nodes:
    """Those that wait are told by their heartbeats; one from the future is of a clock that was wrong."""
    kept = tuple(
        node
        for node in nodes.nodes
        if node.key == key or node.state is not NodeState.WAITING or 0 <= now - node.last < WAITING_FOR
    )
    return nodes if len(kept) == len(nodes.nodes) else Nodes(nodes=kept)


def _check_room(nodes: Nodes, address: str) -> None:
    """Raises TooMany."""
    waiting = [node.address for node in nodes.nodes if node.state is NodeState.WAITING]
    if len(waiting) >= MOST_WAITING:
        raise TooMany(f"{len(waiting)} machines wait already", hint="approve or remove some: dom0 farm nodes")
    if waiting.count(address) >= MOST_WAITING_EACH:
        raise TooMany(f"{MOST_WAITING_EACH} machines wait at this address already", hint="dom0 farm nodes")
