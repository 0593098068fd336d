"""Repeats a request over an unreliable line until it is answered, or patience runs out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dom0.errors import EngineError, Temporary
from dom0.registry.fetch import GaveUp, Terms
from dom0.registry.patience import pause
from dom0.registry.progress import Meter, Waiting

T = TypeVar("T")

_ANSWER, _LONGEST_ANSWER = 10.0, 120.0  # seconds for one of some kB: each try at least, the longest
_WORKER = -1  # which one asks, as a meter sees it


async def patiently(ask: Callable[[], Awaitable[T]], terms: Terms, meter: Meter, *, most: float = 0.0) -> T:
    """Try again until there is an answer. `most`: seconds of a try, else of one for some kB. Raises GaveUp."""
    clock = asyncio.get_running_loop().time
    began, misses = clock(), 0
    try:
        while True:
            meter.works(_WORKER)
            left = max(_ANSWER, began + terms.patience - clock())
            try:
                async with asyncio.timeout(most or min(_ANSWER * 2 ** min(misses, 9), _LONGEST_ANSWER, left)):
                    return await ask()
            except (Temporary, EngineError, OSError) as error:
                if isinstance(error, EngineError) and not error.transient:
                    raise
                why = str(error) or "no answer"
                asked = error.retry_after if isinstance(error, Temporary) else None
                wait = max(pause(misses, clock() - began, random.random()), asked or 0.0)  # noqa: S311 -- no secret
                if clock() + wait - began >= terms.patience:
                    raise GaveUp(f"{why}; nothing else for {terms.patience:g} s") from error
                meter.waits(_WORKER, Waiting(why, time.time() + wait))
            await asyncio.sleep(wait)
            misses += 1
    finally:
        meter.ends(_WORKER)
