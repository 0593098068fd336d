"""Which node of a farm goes to which revision, and why the others wait. Pure: values and the time in, values out.

Everybody fetches at once. To run a revision takes a turn, which the server notes on its disk before it tells the node:

    waits ── first of its role, all have fetched ─▶ turn ── good, and for as long as `soak` ─▶ the next `at_once`
      ▲                                               └ failed, or silent: the role is paused, nobody gets a turn
      └────────────────────── resume, or another revision ──────────────────────┘

A node goes back by itself, so what has failed has touched the nodes that had a turn: the first one of a role has it
alone. Who was silent before its turn is passed over, and gets it when it is heard of again. What runs nothing of its
role takes nothing away, and gets what the role had last without a turn: after a power cut all of them at once.

The base OS of a revision goes the same way: who has it not needs a turn, and is good when it runs both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from dom0.farms import boots
from dom0.farms.boots import Boots
from dom0.farms.nodes import Node
from dom0.farms.revisions import NETWORK, SLOTS, NodeReport, Revision, RoleState
from dom0.farms.settings import FarmSettings, RoleSettings
from dom0.times import moment

SILENT = 180.0  # seconds without a heartbeat, after which a node counts as gone; it asks every minute
FETCH_WITHIN = 600.0  # seconds that the first of a role waits for the others to have fetched
TURN_WITHIN = 3600.0  # seconds that a turn may take
REBOOT_WITHIN = 1200.0  # seconds that who has the reboot lock may be silent in its turn: three tries of a base OS


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the server knows it; `last`: its last heartbeat, by the server's clock."""

    name: str
    role: str
    report: NodeReport
    last: float


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node that was told to run a revision. `content`: what of it (`_Role.goal`). `good`: since when it is, 0 while
    it is not. `over`: since when something else is wanted; then it counts until the node has said how it ended.
    """

    number: int
    role: str
    revision: int
    content: str
    since: float
    good: float = 0.0
    over: float = 0.0


class Pause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of a role. `content`: which has failed, until there is another one; "" for any, when a person has paused."""

    why: str
    since: float
    content: str = ""


class Settled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all nodes of a role have come to run last."""

    revision: int
    content: str


class Lock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who reboots (`lock`). `foreign`: it is no node, so its name is another one than a node's."""

    group: str
    id: str
    since: float
    foreign: bool = False


class RolloutState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has to outlive the server. `drawn`: the number of the last turn; keys are nodes and roles."""

    drawn: int = 0
    turns: dict[str, Turn] = {}
    pauses: dict[str, Pause] = {}
    drained: tuple[str, ...] = ()
    settled: dict[str, Settled] = {}
    locks: tuple[Lock, ...] = ()
    boots: Boots = Boots()


class NodeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Of a node: the revisions to fetch and to run (0: stay with what you have), in which turn. `why` is for people."""

    fetch: int = 0
    run: int = 0
    turn: int = 0
    why: str = ""


class RolloutStep(msgspec.Struct, frozen=True, kw_only=True):
    """`roles`: what each of them waits for, "" where it does not; `unwell`: those with a node that has failed, or does
    not run yet what it has a turn for. `due`: when time alone may change something.
    """

    state: RolloutState
    targets: dict[str, NodeTarget]
    roles: dict[str, str]
    unwell: frozenset[str]
    due: float | None


def views(nodes: Iterable[Node], reports: Mapping[str, NodeReport], last: Mapping[str, float]) -> list[NodeView]:
    """Of enrolled nodes, by name; `reports` and the times of their last heartbeats by their keys."""
    return [
        NodeView(name=node.name, role=node.role, report=reports.get(node.key, NodeReport()), last=last[node.key])
        for node in sorted(nodes, key=lambda node: node.name)
    ]


def step(
    state: RolloutState,
    settings: FarmSettings,
    current: Revision | None,
    nodes: Sequence[NodeView],
    now: float,
    *,
    since: float,
) -> RolloutStep:
    """What is now, after any heartbeat or any time; `since` when `current` is the current one, by the clock of whoever
    has said so. To call it again with what it has returned changes nothing.
    """
    by_role: dict[str, list[NodeView]] = {}
    for node in nodes:
        by_role.setdefault(node.role, []).append(node)
    targets: dict[str, NodeTarget] = {}
    turns: dict[str, Turn] = {}
    roles, unwell, dues = {}, set[str](), list[float]()
    for role, members in sorted(by_role.items()):
        if current is None or role not in current.roles:
            targets |= dict.fromkeys((node.name for node in members), NodeTarget(why="no revision has its role"))
            continue
        found = _Role(state, role, settings, current, since, members, now)
        state = found.judge_turns()
        state = found.give_turns(state)
        turns |= found.turns
        roles[role] = found.waits_for(state)
        targets |= found.targets(state, roles[role])
        if found.is_unwell():
            unwell.add(role)
        dues += found.dues
    if turns != state.turns:
        state = replace(state, turns=turns)
    due = min(dues, default=None)
    return RolloutStep(state=state, targets=targets, roles=roles, unwell=frozenset(unwell), due=due)


class _Role:
    """The nodes of one role, in the order of their turns."""

    def __init__(
        self,
        state: RolloutState,
        role: str,
        settings: FarmSettings,
        current: Revision,
        since: float,
        members: Sequence[NodeView],
        now: float,
    ) -> None:
        self._state = state
        self._role = role
        self._settings = settings.roles.get(role, RoleSettings())
        self._boots = (SLOTS, NETWORK) if settings.netboot else (SLOTS,)  # which the base OS is for
        self._revision = current.number
        self._content = current.roles[role].digest
        self._os = current.os
        self._goal = f"{self._content} {current.os.file.digest}" if current.os else self._content
        self._fetch_until = max(current.made, since) + FETCH_WITHIN
        self._now = now
        self._members = {node.name: node for node in members}
        self._drained = frozenset(state.drained)
        self._rebooting = {f"{' ' * lock.foreign}{lock.id}": lock for lock in state.locks if lock.group == role}
        self.turns: dict[str, Turn] = {}
        self.dues: list[float] = []

    def judge_turns(self) -> RolloutState:
        """Which turns go on; the first one that failed pauses the role."""
        state = self._state
        pause = state.pauses.get(self._role)
        if pause is not None and pause.content not in ("", self._goal):
            pause = None
        for name, turn in state.turns.items():
            node = self._members.get(name)
            if node is None or turn.role != self._role or name in self._drained:
                continue
            if turn.over or turn.content != self._goal:
                over = turn.over or self._now
                has_ended = turn.good > 0 or (node.last > over and node.report.state is not RoleState.TRYING)
                if not has_ended and self._now - node.last < SILENT:
                    self.turns[name] = turn if turn.over else replace(turn, over=over)
                    self.dues.append(node.last + SILENT)
                continue
            why, goes_on = self._judge(node, turn)
            if why:
                pause = pause or Pause(why=why, since=self._now, content=self._goal)
            elif goes_on is not None:
                self.turns[name] = goes_on
        pauses = {role: one for role, one in state.pauses.items() if role != self._role}
        if pause is not None:
            pauses[self._role] = pause
        return state if pauses == state.pauses else replace(state, pauses=pauses)

    def _judge(self, node: NodeView, turn: Turn) -> tuple[str, Turn | None]:
        """Why it has failed; else the turn as it goes on, None where it is over."""
        report, now = node.report, self._now
        has_it = report.turn == turn.number
        if has_it and report.state is RoleState.FAILED:
            return f"{node.name} failed: {report.reason or 'it does not say why'}", None
        if report.os_failed == turn.number:
            return f"{node.name} failed: {report.os_reason or 'it did not come up with the base OS'}", None
        may_be_silent = REBOOT_WITHIN if node.name in self._rebooting else SILENT
        if now - node.last >= may_be_silent:  # without a heartbeat in the turn it has begun nothing
            is_lost = has_it or turn.good > 0
            why = f"{node.name} is silent since {_clock(node.last)}, when it had begun with revision {turn.revision}"
            return (why, None) if is_lost else ("", None)
        self.dues.append(node.last + may_be_silent)
        if not self._is_at(node):
            if now - turn.since >= TURN_WITHIN:
                return f"{node.name} has not come to an end with revision {turn.revision} within an hour", None
            self.dues.append(turn.since + TURN_WITHIN)
            return "", turn if turn.good == 0 else replace(turn, good=0.0)
        good = turn.good if 0 < turn.good <= now else now
        if now - good >= self._settings.soak_seconds:
            return "", None
        self.dues.append(good + self._settings.soak_seconds)
        return "", turn if turn.good == good else replace(turn, good=good)

    def give_turns(self, state: RolloutState) -> RolloutState:
        """To those whose turn it is; a role that needs none has settled."""
        self._is_proven = any(self._is_at(node) for name, node in self._members.items() if name not in self.turns)
        self._needing = sorted(  # what has failed first: a person has said that it is to be tried again
            (node for node in self._members.values() if self._needs_turn(node, state)),
            key=lambda node: (
                (node.report.content, node.report.state) != (self._content, RoleState.FAILED)
                and (node.report.os_failed == 0 or self._has_os(node)),
                node.name != self._settings.canary,
                node.name,
            ),
        )
        self._unfetched = [node for node in self._needing if not self._has_fetched(node)]
        followers = (node for name, node in self._members.items() if name not in self._drained)
        self._busy = {node.name for node in followers if self._is_on_its_way(node, state)}
        if self._role in state.pauses:
            return state
        if not self._needing and not self.turns:
            settled = Settled(revision=self._revision, content=self._content)
            before = state.settled.get(self._role)
            if self._is_proven and (before is None or before.content != self._content):
                state = replace(state, settled={**state.settled, self._role: settled})
            return state
        is_early = self._fetch_until - FETCH_WITHIN <= self._now < self._fetch_until
        if self._unfetched and not self._is_proven and not self.turns and is_early:  # the first one waits for all
            self.dues.append(self._fetch_until)
            return state
        most = self._settings.at_once if self._is_proven else 1
        free = most - len(self.turns.keys() | self._rebooting.keys() | self._busy)
        for node in [node for node in self._needing if self._has_fetched(node)][: max(0, free)]:
            state = replace(state, drawn=state.drawn + 1)
            self.turns[node.name] = Turn(
                number=state.drawn, role=self._role, revision=self._revision, content=self._goal, since=self._now
            )
            self.dues.append(node.last + SILENT)
        return state

    def waits_for(self, state: RolloutState) -> str:
        """What keeps those that have no turn, "" where nobody waits."""
        if pause := state.pauses.get(self._role):
            return f"role {self._role} is paused: {pause.why}"
        waiting = [node for node in self._needing if node.name not in self.turns]
        if not waiting:
            return ""
        for name, turn in self.turns.items():
            who = name if self._is_proven else f"canary {name}"
            if turn.good:
                return f"waits: {who} soaks until {_clock(turn.good + self._settings.soak_seconds)}"
            return f"waits: {who} goes to revision {turn.revision}"
        for lock in self._rebooting.values():
            since = _clock(lock.since)
            return f"waits: {lock.id} has the reboot lock since {since}; is it gone: dom0 farm unlock {lock.id}"
        if self._busy:
            return f"waits: {min(self._busy)} comes to an end with what it was told before"
        return f"waits until {_several(self._unfetched)} fetched revision {self._revision}"

    def targets(self, state: RolloutState, waits: str) -> dict[str, NodeTarget]:
        settled = state.settled.get(self._role)
        waiting = NodeTarget(fetch=self._revision, why=waits)
        at_it = NodeTarget(fetch=self._revision, run=self._revision)
        needing = {node.name for node in self._needing}
        found = {}
        for name, node in self._members.items():
            turn = self.turns.get(name)
            if name in self._drained:
                found[name] = NodeTarget(why="drained")
            elif turn is not None and turn.over:
                found[name] = NodeTarget(fetch=self._revision, why=f"comes to an end with revision {turn.revision}")
            elif turn is not None:
                why = f"soaks until {_clock(turn.good + self._settings.soak_seconds)}" if turn.good else "goes there"
                found[name] = NodeTarget(fetch=self._revision, run=turn.revision, turn=turn.number, why=why)
            elif self._is_at(node):
                found[name] = at_it
            elif self._now - node.last >= SILENT:
                found[name] = NodeTarget(fetch=self._revision, why=f"silent since {_clock(node.last)}")
            elif settled is not None and node.report.state is RoleState.NONE:
                found[name] = NodeTarget(fetch=self._revision, run=settled.revision, why="comes to what its role runs")
            elif name in self._rebooting:
                found[name] = NodeTarget(fetch=self._revision, why="has the reboot lock")
            elif name in needing:
                found[name] = waiting
            else:
                found[name] = NodeTarget(fetch=self._revision, why="is busy with what it has been told before")
        return found

    def is_unwell(self) -> bool:
        """Nobody waits for a node that is drained, or that has failed and is silent since."""
        failed = [node for name, node in self._members.items() if name not in self._drained and self._has_failed(node)]
        there = [node.last + SILENT for node in failed if self._now - node.last < SILENT]
        self.dues += there
        return bool(there) or any(turn.good == 0 for turn in self.turns.values())

    def _has_failed(self, node: NodeView) -> bool:
        return node.report.state is RoleState.FAILED or (node.report.os_failed > 0 and not self._has_os(node))

    def _is_on_its_way(self, node: NodeView, state: RolloutState) -> bool:
        """Without a turn: it had one, and was thought to be gone."""
        settled = state.settled.get(self._role)
        comes_back = settled is not None and settled.content == node.report.content
        return node.report.state is RoleState.TRYING and not comes_back and self._now - node.last < SILENT

    def _is_at(self, node: NodeView) -> bool:
        runs_it = node.report.content == self._content and node.report.state is RoleState.GOOD
        return runs_it and self._has_os(node)

    def _has_os(self, node: NodeView) -> bool:
        return node.report.boots not in self._boots or node.report.has_os(self._os)

    def _has_fetched(self, node: NodeView) -> bool:
        os_is_there = (
            self._os is None
            or self._has_os(node)
            or node.report.boots == NETWORK
            or node.report.os_fetched == self._os.file.digest
        )
        return os_is_there and node.report.fetched == self._content

    def _needs_turn(self, node: NodeView, state: RolloutState) -> bool:
        """Whether it is to have one as soon as it may."""
        is_empty = node.report.state is RoleState.NONE
        return (
            node.name not in self.turns
            and node.name not in self._drained
            and node.name not in self._rebooting
            and not self._is_at(node)
            and self._now - node.last < SILENT
            and node.report.state is not RoleState.TRYING
            and not (is_empty and self._role in state.settled)
        )


def pause(state: RolloutState, roles: Iterable[str], now: float) -> RolloutState:
    """By a person: whatever revision comes."""
    found = {role: state.pauses.get(role) or Pause(why="a person has paused it", since=now) for role in roles}
    return replace(state, pauses={**state.pauses, **{role: replace(one, content="") for role, one in found.items()}})


def resume(state: RolloutState, roles: Collection[str]) -> RolloutState:
    """What has failed tries it again, before anybody else; so does who did not come up with the newest base OS."""
    pauses = {role: one for role, one in state.pauses.items() if role not in roles}
    return replace(state, pauses=pauses, boots=boots.forget(state.boots, roles=roles))


def drain(state: RolloutState, name: str) -> RolloutState:
    return replace(state, drained=tuple(sorted({*state.drained, name})))


def undrain(state: RolloutState, name: str) -> RolloutState:
    return replace(state, drained=tuple(one for one in state.drained if one != name))


def forget(state: RolloutState, name: str) -> RolloutState:
    """Of a node that is none any more: another one may get its name."""
    locks = tuple(lock for lock in state.locks if lock.foreign or lock.id != name)
    return replace(undrain(state, name), locks=locks, boots=boots.forget(state.boots, names=[name]))


def _clock(seconds: float) -> str:
    return moment(seconds).partition(" ")[2]


def _several(nodes: Sequence[NodeView]) -> str:
    """As the subject of a sentence."""
    names = [node.name for node in nodes[:3]]
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return f"{', '.join(names)}{more} {'has' if len(nodes) == 1 else 'have'}"
