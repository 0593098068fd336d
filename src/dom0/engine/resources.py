"""The numbers of a HostConfig that `docker update` can change, in one form for what was asked and what was found.

Both sides of a comparison go through `updatable`: the create body (plan) and the inspect answer (engine).
`CpusetCpus` and `CpusetMems` are text and are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = (
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
)


def updatable(host_config: Mapping[str, Any]) -> dict[str, int]:
    """Return the set numbers of `host_config`; what only says the Engine's default is left out."""
    found: dict[str, int] = {}
    for key in KEYS:
        value = host_config.get(key)
        if isinstance(value, int) and value != 0:
            found[key] = value
    if found.get("PidsLimit", 0) < 0:  # -1 is "no limit", as is leaving it out
        del found["PidsLimit"]
    if found.get("MemorySwap") == 2 * found.get("Memory", 0):  # what the Engine fills in beside a Memory
        del found["MemorySwap"]
    return found
