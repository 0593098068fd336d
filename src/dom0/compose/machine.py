"""What Compose has no word for: the shapes under `x-dom0`, at the top level and in a service. No I/O."""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Ssh(_Part, frozen=True, kw_only=True):
    port: int = 2222
    user: str = "dom0"
    uid: int = 1000
    authorized_keys: tuple[str, ...] = ()


class Home(_Part, frozen=True, kw_only=True):
    volume: str = "home-volume"
    path: str = ""  # "": /home/<user>


class Dev(_Part, frozen=True, kw_only=True):
    image: str = ""
    command: tuple[str, ...] = ()


class RolloutTimes(_Part, frozen=True, kw_only=True):
    timeout: str = "5m"
    monitor: str = "5s"


class Machine(_Part, frozen=True, kw_only=True):
    hostname: str = ""
    ssh: Ssh | None = None
    home: Home | None = None
    dev: Dev | None = None
    rollout: RolloutTimes | None = None


class ServiceMachine(_Part, frozen=True, kw_only=True):
    health_gate: bool = True
