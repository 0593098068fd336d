"""Which machine is what in the farm's Swarm: who makes it, who joins, who is a manager, who writes there, who is
forgotten. Pure: what nodes say goes in, what each of them is told comes out.

    began ── its Engine says which Swarm it made ─▶ cluster ── one leads it, and says so ─▶ that one writes
       all that were managers say that they are in no Swarm: begin anew

The farm's Swarm has the farm's name as its label since it was made: one that others made is never taken for it. All
join as workers; the one that writes makes managers of some, so that no token for managers leaves a manager. Tokens are
rotated when one that knows them is no node any more. What has to outlive the server is on its disk before anybody is
told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from dom0.engine.swarm import Member, SwarmState
from dom0.farms.float_content import FARM, NODE, ROLE, FloatProject, image_label
from dom0.farms.float_steps import FloatObject
from dom0.farms.revisions import MOST_REASON, FarmImage

SILENT = 180.0  # seconds without a report, after which a machine makes no Swarm
NOTED_EACH = 60.0  # seconds: when a machine reported last is on the disk, so that not every report is a write
GONE = 90.0  # seconds without a report, of a manager, which asks every few
SOON, LATER, IDLE = 1.0, 5.0, 45.0  # seconds until a node asks again: there is something to do, nothing, no float
MANAGERS_LATER = 3.0  # they hear first what has changed in the Swarm
_INACTIVE, _ACTIVE = "inactive", "active"
_NO_MAJORITY = (
    "what runs goes on, and nothing is changed until most managers are back; are they gone for ever, or back for "
    "minutes: docker swarm init --force-new-cluster, on one that says this"
)
_STAYS_OUT = "if that stays so for minutes, there: docker swarm leave --force"
MANAGER, _WORKER = "manager", "worker"


class FloatReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says. `images`: names of ours that its Engine has; `in_memory`: it keeps nothing on a disk; `token`,
    `members` and `objects`: of a manager; `written`: digests of services that it has just made or changed, by their
    names; `failed`: why it could not do what it was told; `since`: when the server heard that first, `last`: when last,
    to the minute.
    """

    place: SwarmState
    images: tuple[str, ...] = ()
    in_memory: bool = False
    token: str = ""
    members: tuple[Member, ...] = ()
    objects: tuple[FloatObject, ...] = ()
    written: dict[str, str] = {}
    failed: Annotated[str, Meta(max_length=MOST_REASON)] = ""
    since: float = 0.0
    last: float = 0.0

    @property
    def is_alone(self) -> bool:
        """Whether it is a manager that does not hear most others."""
        return self.place.is_manager and self.place.state == _ACTIVE and not self.place.cluster

    @property
    def leads(self) -> bool:
        return any(member.id == self.place.node and member.is_leader for member in self.members)


class FloatNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the farm. `last`: when it was heard of."""

    key: str
    name: str
    role: str
    address: str
    last: float
    is_drained: bool = False
    report: FloatReport | None = None


class FloatState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to outlive the server. `began`: key of the node that makes the Swarm; `cluster`: the Swarm's ID;
    `members`: IDs in it by the keys of nodes; `managers`: keys of those that are or are to be managers; `told`: keys of
    those that may know its token, which has the digest `token`; `tried`: digests of services that ran there.
    """

    began: str = ""
    cluster: str = ""
    members: dict[str, str] = {}
    managers: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    token: str = ""
    tried: dict[str, str] = {}


class JoinOrder(msgspec.Struct, frozen=True, kw_only=True):
    managers: tuple[str, ...]
    token: str


class MemberOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is to be in the Swarm. `labels`: those of ours."""

    role: str
    labels: dict[str, str]
    is_drained: bool


class WriteOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`members` by their IDs; `forget`: IDs of those that are none of the farm's nodes any more, `rotate` the tokens
    before one is.
    """

    projects: dict[str, FloatProject]
    tried: dict[str, str]
    members: dict[str, MemberOrder]
    forget: tuple[str, ...] = ()
    rotate: bool = False


class FloatOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is told. `address`: its own, as the server sees it. `images`: to have; `keep`: names of ours that may
    stay, None: all. `again`: in how many seconds to ask.
    """

    farm: str
    address: str
    again: float
    images: tuple[FarmImage, ...] = ()
    keep: tuple[str, ...] | None = None
    init: bool = False
    join: JoinOrder | None = None
    write: WriteOrder | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """`orders` by the keys of nodes; `why`: by their names, what they do to get into the Swarm, or what keeps them;
    `writer`: name of the one that writes, "" where there is none.
    """

    state: FloatState
    orders: dict[str, FloatOrder]
    why: dict[str, str]
    writer: str = ""
    objects: tuple[FloatObject, ...] = ()


def decide(
    farm: str,
    declared: Sequence[str],
    projects: Mapping[str, FloatProject],
    images: Collection[FarmImage],
    nodes: Sequence[FloatNode],
    state: FloatState,
    now: float,
) -> Decision:
    """`declared`: names of those that may be managers, the first one makes the Swarm."""
    if not projects and not state.began:
        idle = {node.key: FloatOrder(farm=farm, address=node.address, again=IDLE) for node in nodes}
        return Decision(state=state, orders=idle, why={})
    by_key = {node.key: node for node in nodes}
    state = _with_cluster(farm, state, by_key)
    if not state.began and (first := _find_first(declared, images, nodes, now)):
        state = replace(state, began=first.key, managers=(first.key,))
    writer = _find_writer(state, nodes, now)
    members = {member.id: member for member in writer.report.members} if writer and writer.report else {}
    write, keep = None, None
    if writer is not None and writer.report is not None:
        state = _with_members(state, nodes, members)
        chosen = _choose_managers(declared, nodes, members, state) or tuple(filter(by_key.__contains__, state.managers))
        now_managers = (key for key, id_ in state.members.items() if id_ in members and members[id_].role == MANAGER)
        state = replace(state, managers=tuple(sorted({*chosen, *now_managers})))
        state = replace(state, tried=_tried(state.tried, projects, writer.report))
        token = writer.report.token and hashlib.sha256(writer.report.token.encode()).hexdigest()
        if token not in ("", state.token):
            state = replace(state, token=token, told=())
        in_use = {name for one in writer.report.objects for name in one.images}
        keep = tuple(sorted(in_use | {image.reference for image in images}))
        write = _write(farm, projects, keep, nodes, members, state, chosen)
    orders, why = {}, {}
    for node in nodes:
        orders[node.key], said = _order(farm, images, keep, node, state, writer, members, write)
        if said and _may_join_anew(node, state, writer, now):
            said = f"{said}; {_STAYS_OUT}"
        if node.name in declared and node.report and node.report.in_memory:
            said = "keeps all in memory, and cannot be a manager: take it out of float.managers"
        if said:
            why[node.name] = said
    if writer is not None:
        joining = (key for key, order in orders.items() if order.join)
        state = replace(state, told=tuple(sorted({*state.told, *state.managers, *joining})))
    objects = writer.report.objects if writer and writer.report else ()
    return Decision(state=state, orders=orders, why=why, writer=writer.name if writer else "", objects=objects)


def _with_cluster(farm: str, state: FloatState, nodes: Mapping[str, FloatNode]) -> FloatState:
    """Known as soon as who made it says so; gone where all managers of it are in no Swarm, or no nodes any more."""
    began = nodes.get(state.began)
    if not state.cluster:
        place = began.report.place if began and began.report else None
        if began is None:
            return FloatState(tried=state.tried)
        if place and place.state == _ACTIVE and place.cluster and place.labels.get(FARM) == farm:
            return replace(state, cluster=place.cluster, members={began.key: place.node})
        return state
    left = [nodes[key] for key in state.managers if key in nodes]
    if all(node.report is not None and node.report.place.state == _INACTIVE for node in left):
        return FloatState(tried=state.tried)
    return state


def _find_first(
    declared: Sequence[str], images: Collection[FarmImage], nodes: Sequence[FloatNode], now: float
) -> FloatNode | None:
    by_name = {node.name: node for node in nodes}
    for name in declared:
        node = by_name.get(name)
        if node is None or node.report is None or now - node.last >= SILENT:
            continue
        is_able = node.report.place.state == _INACTIVE and not node.report.in_memory and not _is_loopback(node.address)
        if is_able and not _missing(images, node):
            return node
    return None


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _find_writer(state: FloatState, nodes: Sequence[FloatNode], now: float) -> FloatNode | None:
    """Of the managers that hear each other the one that leads, and has said so last: the one before may not have said
    that it does not any more, or be no node of the farm any more. A node that was not made a manager is none, whatever
    it says. Where one says that it hears no majority, those that say nothing any more are not believed to have one.
    """
    managers = [node.report for node in nodes if node.key in state.managers and node.report]
    alone = max((report.last for report in managers if report.is_alone), default=0.0)
    able = [
        (node.report.leads, node.report.since, node.name, node)
        for node in nodes
        if node.key in state.managers and node.report and node.report.members
        if node.report.place.cluster == state.cluster != ""
        if not (alone > node.report.last and now - node.report.last >= GONE)
    ]
    return max(able)[3] if able else None


def _with_members(state: FloatState, nodes: Sequence[FloatNode], members: Mapping[str, Member]) -> FloatState:
    """A machine that says it is what another one is known as is not believed."""
    found: dict[str, str] = {}
    whose = {id_: key for key, id_ in state.members.items()}
    for node in nodes:
        place = node.report.place if node.report else None
        is_there = place is not None and place.state == _ACTIVE and place.node in members
        if place is not None and is_there and whose.setdefault(place.node, node.key) == node.key:
            found[node.key] = place.node
        elif node.key in state.members:
            found[node.key] = state.members[node.key]
    return replace(state, members=found)


def _choose_managers(
    declared: Sequence[str], nodes: Sequence[FloatNode], members: Mapping[str, Member], state: FloatState
) -> tuple[str, ...]:
    """An odd number: an even one bears the loss of no more. Those that are there, and those that are managers already,
    come first.
    """

    def order(node: FloatNode) -> tuple[bool, bool, int]:
        member = members[state.members[node.key]]
        return member.state != "ready", member.role != MANAGER, declared.index(node.name)

    able = [
        node
        for node in nodes
        if node.name in declared and state.members.get(node.key) in members
        if not (node.report and node.report.in_memory)
    ]
    count = next((number for number in (5, 3, 1) if len(able) >= number), 0)
    return tuple(node.key for node in sorted(able, key=order)[:count])


def _tried(before: Mapping[str, str], projects: Mapping[str, FloatProject], report: FloatReport) -> dict[str, str]:
    """What runs has been tried, and what was written, which may have been rolled back from already; that stays known
    until another one runs.
    """
    objects = report.objects
    running = {one.name: one.digest for one in objects if one.kind == "service" and one.digest}
    rolled_back = {one.name for one in objects if one.update.startswith("rollback")}
    known = {service.name for project in projects.values() for service in project.services}
    return {
        name: report.written.get(name) or (before[name] if name in rolled_back and name in before else digest)
        for name, digest in running.items()
        if name in known
    }


def _write(
    farm: str,
    projects: Mapping[str, FloatProject],
    keep: Collection[str],
    nodes: Sequence[FloatNode],
    members: Mapping[str, Member],
    state: FloatState,
    managers: Collection[str],
) -> WriteOrder:
    told = {}
    for node in nodes:
        if (id_ := state.members.get(node.key, "")) in members:
            has = {image_label(name): "here" for name in (node.report.images if node.report else ()) if name in keep}
            told[id_] = MemberOrder(
                role=MANAGER if node.key in managers else _WORKER,
                labels={FARM: farm, NODE: node.name, ROLE: node.role, **has},
                is_drained=node.is_drained,
            )
    known, keys = set(state.members.values()), {node.key for node in nodes}
    gone = [one for one in members.values() if one.labels.get(FARM) == farm and one.id not in known]
    return WriteOrder(
        projects=dict(projects),
        tried=state.tried,
        members=told,
        forget=tuple(sorted(one.id for one in gone)),
        rotate=not keys.issuperset(state.told) and not any(one.manager for one in gone),  # who manages reads new ones
    )


def _order(
    farm: str,
    images: Collection[FarmImage],
    keep: tuple[str, ...] | None,
    node: FloatNode,
    state: FloatState,
    writer: FloatNode | None,
    members: Mapping[str, Member],
    write: WriteOrder | None,
) -> tuple[FloatOrder, str]:
    """What a node is told, and what keeps it from being in the Swarm."""
    order = FloatOrder(farm=farm, address=node.address, again=SOON, images=tuple(images), keep=keep)
    if node.report is None:
        return order, "has not said what it is in Swarm mode"
    place = node.report.place
    if place.state == _ACTIVE and (state.members.get(node.key) == place.node or place.node in members):
        is_writer = writer is not None and writer.key == node.key
        again = MANAGERS_LATER if place.is_manager else LATER
        said = node.report.failed or place.error[:MOST_REASON]
        said += f"; {_NO_MAJORITY}" if said and writer is None and node.key in state.managers else ""
        return replace(order, write=write if is_writer else None, again=again), said
    if place.state not in (_ACTIVE, _INACTIVE) and node.key in {*state.members, *state.told}:
        return order, place.error[:MOST_REASON] or f"its Engine is {place.state} in the Swarm"
    if place.state != _INACTIVE:
        what = place.error[:MOST_REASON] or f"its Engine is {place.state} in a Swarm that this farm did not make"
        return replace(order, images=()), f"{what}; there: docker swarm leave"
    if _is_loopback(node.address):
        what = f"is known by {node.address}, where no other node reaches it"
        return order, f"{what}; there: dom0 farm join, with the server's address in the network"
    if missing := _missing(images, node):
        return order, node.report.failed or f"fetches {missing} image{'s' if missing > 1 else ''}"
    if state.began == node.key and not state.cluster:
        return replace(order, init=True), node.report.failed or "makes the Swarm"
    if writer is None or writer.report is None:
        return order, "no manager answers" if state.cluster else "no node of float.managers has made the Swarm"
    managers = tuple(sorted(one.manager for one in members.values() if one.is_reachable and one.manager))
    join = JoinOrder(managers=managers, token=writer.report.token) if managers and writer.report.token else None
    return replace(order, join=join), node.report.failed or "joins"


def _may_join_anew(node: FloatNode, state: FloatState, writer: FloatNode | None, now: float) -> bool:
    """Of one whose Engine does not come back into the farm's Swarm: a manager that crashed within the second in which
    it was made one may have nothing of the Swarm's log, and is none ever again. Most others have to hear each other
    without it, and have just said so.
    """
    is_out = node.report is not None and node.report.place.state in ("pending", "error")
    is_led = writer is not None and writer.report is not None and now - writer.report.last < GONE
    return is_out and is_led and node.key in {*state.members, *state.told}


def _missing(images: Collection[FarmImage], node: FloatNode) -> int:
    has = node.report.images if node.report else ()
    return sum(image.reference not in has for image in images)
