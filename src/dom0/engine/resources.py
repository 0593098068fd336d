"""The numbers of a HostConfig that `docker update` can change, in one form for what was asked and what was found.

Both sides of a comparison go through `updatable`: the create body (plan) and the inspect answer (engine).
`CpusetCpus` and `CpusetMems` are text and are not among them.

No update takes a limit away: 0 means "as it is", and -1 is refused for most. UNLIMITED is what limits nothing instead
(seen on Docker 26.1); for the number of processors that depends on the host.
"""

from __future__ import annotations

from dom0.engine.bodies import ResourceLimits
from dom0.engine.wire import HostConfig

KEYS = dict(zip(ResourceLimits.__struct_fields__, ResourceLimits.__struct_encode_fields__, strict=True))
"""Field -> the API's key of it."""
UNLIMITED = {
    "Memory": 1 << 62,
    "MemorySwap": (1 << 63) - 4096,  # more than Memory: on cgroup v2 the difference is what may be swapped
    "CpuShares": 1024,
    "CpuQuota": -1,
    "PidsLimit": -1,
}


def updatable(host_config: ResourceLimits | HostConfig) -> dict[str, int]:
    """Return the set numbers of `host_config` by the API's keys; what only says the Engine's default is left out."""
    found: dict[str, int] = {}
    for field, key in KEYS.items():
        value = getattr(host_config, field)
        if value not in (None, 0, UNLIMITED.get(key)):
            found[key] = value
    if found.get("PidsLimit", 0) < 0:  # -1 is "no limit", as is leaving it out
        del found["PidsLimit"]
    if found.get("MemorySwap") == 2 * found.get("Memory", 0):  # what the Engine fills in beside a Memory
        del found["MemorySwap"]
    return found
