"""Ambassadors that say what a test wants, in place of the conversation through the Engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from dom0.agent.conversation import Unanswered
from dom0.ambassador.messages import (
    Flows,
    Follow,
    History,
    ListenerState,
    Planned,
    Receipt,
    Request,
    Rewire,
    Show,
    State,
)
from dom0.errors import Dom0Error
from dom0.forward.dataplane import Flow
from dom0.forward.table import Protocol, Table, Target

T = TypeVar("T")


def make_state(*sources: str, **fields: Any) -> State:
    """With one listener; without the shortcut, which is not for the fake Engine's containers."""
    listener = ListenerState(listener="80/tcp", generation=1, sources=sources, targets=())
    defaults: dict[str, Any] = {
        "version": "1",
        "plane": "kernel",
        "revision": 1,
        "table": Table(),
        "listeners": (listener,),
        "existing": {"80/tcp": "keep"},
        "shortcut": False,
    }
    return State(**{**defaults, **fields})


def make_receipt(**fields: Any) -> Receipt:
    defaults: dict[str, Any] = {
        "number": 1,
        "at": 1000.0,
        "cause": "rewire",
        "listeners": ("80/tcp",),
        "generations": (2,),
        "before": ("10.0.0.4:80",),
        "after": ("10.0.0.5:80",),
        "existing": "keep",
        "udp": "move",
        "switch_ms": 1.5,
    }
    return Receipt(**{**defaults, **fields})


def make_flow(target: str) -> Flow:
    near, listener = Target("10.0.0.9", 40000), Target("10.0.0.9", 80)
    return Flow(
        protocol=Protocol.TCP,
        generation=1,
        client=Target("10.0.0.3", 40000),
        listener=listener,
        near=near,
        target=Target(target, 80),
        state="ESTABLISHED",
    )


@dataclass
class FakeTalk:
    """One ambassador, whatever its container. `refusal` is what it answers to a rewire."""

    state: State | None  # None: nobody answers
    asked: list[Request] = field(default_factory=list)
    refusal: Dom0Error | None = None
    asked_of: list[str] = field(default_factory=list)  # container IDs, one for every request
    hangs: bool = False  # it takes a request, and says nothing
    hangs_at: type[Request] | None = None  # the same, for requests of this kind alone
    flows: tuple[Flow, ...] = ()
    watched: list[str] = field(default_factory=list)  # container IDs, one for every start of a watcher
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def told(self) -> list[dict[str, tuple[str, ...]]]:
        """What the agent said where containers are, one entry each time."""
        return [request.found for request in self.asked if isinstance(request, Follow)]

    def say(self, state: State | None) -> None:
        self.state = state
        self._changed.set()

    async def ask(self, container_id: str, request: Request, answer: type[T]) -> T:
        self.asked_of.append(container_id)
        await asyncio.sleep(0)
        if self.hangs or (self.hangs_at and isinstance(request, self.hangs_at)):
            await asyncio.Event().wait()
        if self.state is None:
            raise Unanswered("nobody in it listens")
        self.asked.append(request)
        if isinstance(request, Rewire) and self.refusal:
            raise self.refusal
        return msgspec.convert(self._answer(request), answer)

    async def watch(self, container_id: str) -> AsyncGenerator[State, None]:
        self.watched.append(container_id)
        while self.state is not None:
            yield self.state
            self._changed.clear()
            await self._changed.wait()
        raise Unanswered("nobody in it listens")

    def _answer(self, request: Request) -> Any:
        match request:
            case Show() | Follow():
                return self.state
            case Rewire(plan=True):
                return Planned(receipt=make_receipt(number=0, kept=2), flows=())
            case History():
                return (make_receipt(),)
            case Flows():
                return self.flows
            case _:
                return make_receipt(kept=2)
