"""What an ambassador is told to do, as a value: `x-dom0.ambassador` of a service, the variable DOM0_AMBASSADOR. No I/O.

docs/reference/x-dom0.md describes every key. Link variables say the same in another way (variables.py).
"""

from __future__ import annotations

import msgspec

from dom0.forward.table import Udp

STATE_DIRECTORY = "/var/lib/dom0-ambassador"  # what it keeps over restarts: the agent mounts a volume there
Existing = str  # keep | cut | drain=DURATION
DownPolicy = str  # last | refuse | hold | hold=DURATION


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class HealthSettings(_Part, frozen=True, kw_only=True):
    """A target is up while a TCP connection to it is accepted. Durations as in Compose: 500ms, 2s."""

    interval: str = "2s"
    timeout: str = "1s"
    fall: int = 3  # failures in a row until it counts as down
    rise: int = 2


class WeightedTarget(_Part, frozen=True, kw_only=True):
    target: str
    weight: int = 1


class Listen(_Part, frozen=True, kw_only=True):
    """`to` names sources: `HOST:PORT` (an address or a DNS name), `container:NAME:PORT`, `service:NAME:PORT`,
    `label:KEY=VALUE:PORT`, `node:NODE/service:NAME:PORT`. The last four are found by the dom0 agent, all others by the
    ambassador itself. `plaintext`: to another node they lead by the network as it is, not by the encrypted tunnel.
    """

    to: tuple[str | WeightedTarget, ...]
    existing: Existing = "keep"
    udp: Udp = "move"
    down: DownPolicy = "last"
    health: HealthSettings | None = None
    plaintext: bool = False


class Settings(_Part, frozen=True, kw_only=True):
    """`listen`: `6379`, `53/udp`, `7000-7005` -> where to; a port range goes to as many ports from the target's on.

    `metrics` is where Prometheus may ask: `9180` or `ADDRESS:9180`; nobody may if it is empty.
    """

    listen: dict[str, Listen]
    metrics: str | int = ""
    shortcut: bool = True  # the agent may place the rules in the consumers' namespaces as well
