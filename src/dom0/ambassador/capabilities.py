"""What this container may do, and what each right is for; so a missing one is named before something fails.

Reads /proc, changes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from dom0.ambassador.table import Family
from dom0.health import Problem, Severity

_NET_ADMIN, _NET_RAW = 12, 13  # bits, <linux/capability.h>
_FORWARDING: dict[Family, str] = {"ip": "net.ipv4.ip_forward", "ip6": "net.ipv6.conf.all.forwarding"}


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    net_admin: bool  # rules and connection tracking in our own network namespace: the kernel's data plane
    net_raw: bool  # segments and announcements of our own making: `cut`, restarts that nobody notices
    forwards: frozenset[Family]  # families of which this namespace forwards packets


def rights(proc: Path = Path("/proc")) -> Rights:
    """Of this process. Raises OSError."""
    mask = effective((proc / "self/status").read_text())
    return Rights(
        net_admin=bool(mask >> _NET_ADMIN & 1),
        net_raw=bool(mask >> _NET_RAW & 1),
        forwards=frozenset(family for family, name in _FORWARDING.items() if _is_on(proc / "sys", name)),
    )


def effective(status: str) -> int:
    """The bits of `CapEff` in the text of /proc/PID/status."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return int(match[1], 16) if match else 0


def problems(rights: Rights, families: frozenset[Family]) -> tuple[Problem, ...]:
    """What an ambassador with targets of `families` cannot promise, and what to run it with instead."""
    if not rights.net_admin:
        return (
            _problem(
                "ambassador-relay",
                "NET_ADMIN",
                "without the capability NET_ADMIN connections are copied by socat instead of forwarded by the kernel",
                "docker run --cap-add NET_ADMIN",
            ),
        )
    found = []
    if not rights.net_raw:
        found.append(
            _problem(
                "ambassador-no-raw",
                "NET_RAW",
                "without the capability NET_RAW `cut` does not reach silent peers, and a restart ends connections",
                "docker run without --cap-drop NET_RAW",
            )
        )
    for family in sorted(families - rights.forwards):
        name = _FORWARDING[family]
        found.append(
            _problem(
                "ambassador-not-forwarding",
                name,
                f"{name} is off: this container does not forward {'IPv6' if family == 'ip6' else 'IPv4'}",
                f"docker run --sysctl {name}=1",
                Severity.ERROR,
            )
        )
    return tuple(found)


def _problem(code: str, subject: str, title: str, hint: str, severity: Severity = Severity.WARNING) -> Problem:
    return Problem(code=code, subject=subject, title=title, hint=hint, severity=severity)


def _is_on(sysctls: Path, name: str) -> bool:
    path = sysctls / name.replace(".", "/")
    return path.is_file() and path.read_text().strip() == "1"
