"""Documents of the agent's API about scopes. Light to import; `scope_usage` makes them."""

from __future__ import annotations

import msgspec


class ScopeBudget(msgspec.Struct, frozen=True, kw_only=True):
    kind: str  # `containers`, `networks`, `volumes`, `memory` (bytes), `pids` or `cpus`
    granted: int | float | None  # null: as much as there is
    used: int | None  # null: it is not counted, or cannot be read


class ScopeRefusal(msgspec.Struct, frozen=True, kw_only=True):
    at: float  # seconds since the epoch
    method: str
    path: str
    message: str
    times: int  # in a row


class ScopeStatus(msgspec.Struct, frozen=True, kw_only=True):
    scope: str  # its name
    served: bool
    since: float  # when its server began
    budget: tuple[ScopeBudget, ...]
    refused: int  # requests, as far back as the log goes
    refusals: tuple[ScopeRefusal, ...]  # the last ones, the oldest first
