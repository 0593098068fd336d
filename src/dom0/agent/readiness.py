"""What the machine knows of its containers and the Engine does not say: which of their starts count as ready."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class ReadyStarts(msgspec.Struct, frozen=True):
    """Of the containers of `project` ("" before the first generation), by ID.

    `gated`: the start for which its health gate has passed. `post_started`, of those that have hooks: the start for
    which they have succeeded (0: none yet). `ending`: starts up to then do not count, because it is about
    to be stopped.
    """

    project: str = ""
    gated: Mapping[str, float] = {}
    post_started: Mapping[str, float] = {}
    ending: Mapping[str, float] = {}


class Readiness:
    """The machine sets `now` when it goes on with a generation and after every plan; ambassadors read it."""

    def __init__(self) -> None:
        self.now = ReadyStarts()
