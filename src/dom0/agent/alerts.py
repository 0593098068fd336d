"""Which messages a machine's problems lead to: one when a problem has lasted, and one when it is over. Pure.

A problem that comes and goes is reported less and less often: each time it has to be gone for longer until it is over.
All that is due goes into one message, and two messages are some time apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from dom0 import times
from dom0.health import Problem

HOLD = 30.0  # seconds that a problem lasts before it is told
CALM, LONGEST_CALM = 120.0, 3600.0  # seconds that it is gone before that is told, growing with each relapse
BETWEEN = 60.0  # seconds between two messages
GONE = -1.0
FORGET = 86400.0  # seconds after which one that came and went is a new one
MOST_SHOWN = 20  # problems in a message
MOST_KNOWN = 1000


class ActiveAlert(msgspec.Struct, frozen=True, kw_only=True):
    problem: Problem
    began: float  # GONE: it came back before, and is not there now
    seen: float  # last
    is_told: bool = False
    relapses: int = 0


class Message(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    text: str
    time: float
    is_bad: bool  # something is wrong now
    problems: tuple[Problem, ...] = ()
    over: tuple[Problem, ...] = ()


class KnownAlerts(msgspec.Struct, frozen=True, kw_only=True):
    """By code and subject."""

    standing: dict[str, ActiveAlert] = {}
    told: float = 0.0  # when the last message was made


def resumed(known: KnownAlerts, now: float) -> KnownAlerts:
    """Nobody has looked for a while: that is no time for which a problem was gone."""
    return replace(known, standing={key: replace(one, seen=now) for key, one in known.standing.items()})


def look(
    known: KnownAlerts, problems: Iterable[Problem], machine: str, now: float
) -> tuple[KnownAlerts, Message | None]:
    """Of `problems` that there are `now`; `machine` is what it is called."""
    standing, present = dict(known.standing), set()
    for problem in problems:
        key = f"{problem.code} {problem.subject}"
        present.add(key)
        before = standing.get(key) or ActiveAlert(problem=problem, began=GONE, seen=now)
        began = now if before.began == GONE else min(before.began, now)
        standing[key] = replace(before, problem=problem, began=began, seen=now)
    for key in [key for key, one in standing.items() if key not in present and not one.is_told]:
        if standing[key].relapses and 0 <= now - standing[key].seen < FORGET:
            standing[key] = replace(standing[key], began=GONE)
        else:
            del standing[key]
    absent = {key: one for key, one in standing.items() if one.is_told and key not in present}
    over = [key for key, one in absent.items() if not 0 <= now - one.seen < _calm(one)]
    due = [key for key, one in standing.items() if not one.is_told and key in present and now - one.began >= HOLD]
    kept = dict(list(standing.items())[-MOST_KNOWN:])
    if not (due or over) or 0 <= now - known.told < BETWEEN:
        return replace(known, standing=kept), None
    message = _message([standing[key] for key in due], [standing[key] for key in over], machine, now)
    kept |= {key: replace(kept[key], is_told=True) for key in due if key in kept}
    kept |= {
        key: replace(kept[key], is_told=False, began=GONE, relapses=kept[key].relapses + 1)
        for key in over
        if key in kept
    }
    return KnownAlerts(standing=kept, told=now), message


def _calm(one: ActiveAlert) -> float:
    return min(CALM * 2.0 ** min(one.relapses, 10), LONGEST_CALM)


def _message(due: list[ActiveAlert], over: list[ActiveAlert], machine: str, now: float) -> Message:
    lines = [line for one in due[:MOST_SHOWN] for line in one.problem.lines()]
    if due[MOST_SHOWN:]:
        lines.append(f"  and {len(due) - MOST_SHOWN} more")
    lines += [
        f"  over {one.problem.subject}: it was wrong for {times.ago(one.seen - one.began)}  [{one.problem.code}]"
        for one in over[:MOST_SHOWN]
    ]
    told = due or over
    title = told[0].problem.title + (f", and {len(told) - 1} more" if len(told) > 1 else "")
    return Message(
        title=f"{machine}: {title}" if due else f"{machine}: over: {title}",
        text="\n".join(lines),
        time=now,
        is_bad=bool(due),
        problems=tuple(one.problem for one in due[:MOST_SHOWN]),
        over=tuple(one.problem for one in over[:MOST_SHOWN]),
    )
