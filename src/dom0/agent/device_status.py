"""Documents of the devices that may look at the page over the network."""

from __future__ import annotations

from typing import Annotated

import msgspec

NAME = r"^[a-z0-9][a-z0-9_-]{0,30}$(?!\n)"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds since the epoch."""

    name: str
    operates: bool  # else it only looks
    paired: float
    seen: float  # to the day
    address: str  # that it had then


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """`address` and `fingerprint`: of the page, where it is served now."""

    devices: tuple[Device, ...]
    address: str = ""
    fingerprint: str = ""


class PairRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`operates`: the device may do what `dom0 web --operate` may, else it only looks."""

    name: Annotated[str, msgspec.Meta(pattern=NAME)]
    operates: bool = False


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """`code` pairs one device, once, before `until` (seconds since the epoch)."""

    name: str
    operates: bool
    address: str  # URL of the page
    fingerprint: str  # SHA-256 of its certificate, as browsers show it
    code: str
    until: float
