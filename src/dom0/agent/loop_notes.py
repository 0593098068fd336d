"""The journal's part of the loop: what it has done, and what the Engine told it."""

from __future__ import annotations

from dom0.agent import problems
from dom0.agent.events import ENGINE, Kind
from dom0.agent.journal import Journal
from dom0.engine.values import Event
from dom0.errors import EngineError
from dom0.plan.memory import Memory
from dom0.plan.steps import AnyStep
from dom0.plan.text import kind_of, name_of, say_step


class LoopNotes:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._trouble: type[EngineError] | None = None  # that the journal has

    def note_step(self, step: AnyStep, error: EngineError | None) -> None:
        if error is None:
            self._journal.note(kind_of(type(step)), name_of(step), say_step(step), step.reason)
        else:
            self._journal.note(Kind.STEP_REFUSED, name_of(step), f"{say_step(step)}: failed", error.message)

    def note_trouble(self, trouble: EngineError | None) -> None:
        """`trouble`: why the last look at the Engine failed."""
        before, self._trouble = self._trouble, type(trouble) if trouble else None
        if trouble is not None and before is not type(trouble):
            title = problems.of_engine(trouble, 0.0).title
            self._journal.note(Kind.ENGINE_TROUBLE, "engine", title, trouble.message, by=ENGINE)
        elif trouble is None and before is not None:
            self._journal.note(Kind.ENGINE_BACK, "engine", "the Docker Engine answers again", by=ENGINE)

    def note_event(self, event: Event, memory: Memory) -> None:
        """Of one of our containers. `memory` is from before it."""
        name = event.attributes.get("name", event.id)
        by_us = event.id in memory.stopped
        is_told = by_us or event.id in memory.stopped_by_person
        match event.action:
            case "die" if not is_told:
                text = f"{name} exited with code {event.attributes.get('exitCode', 'unknown')}"
                reason = "somebody has sent it a signal" if event.id in memory.signalled else ""
                self._journal.note(Kind.CONTAINER_EXITED, name, text, reason, by=ENGINE)
            case "oom":
                text = f"a process of {name} was killed"
                self._journal.note(Kind.CONTAINER_OOM, name, text, "out of memory", by=ENGINE)
            case "stop" if not by_us:
                self._journal.note(Kind.CONTAINER_STOPPED, name, f"somebody has stopped {name}", by=ENGINE)
            case "pause":
                self._journal.note(Kind.CONTAINER_PAUSED, name, f"somebody has paused {name}", by=ENGINE)
