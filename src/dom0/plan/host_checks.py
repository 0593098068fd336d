"""What this host does not have for a project: a free port, a device, so many processors. Pure.

Every refusal is a ProjectError, before anything is changed; the Engine would refuse the same when a container is made
or started. Memory above the host's is none of these: the Engine takes such a limit, and so do people's files.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dom0.compose.findings import UNKNOWN, Finding, Locations, refuse
from dom0.engine.values import PublishedPort
from dom0.errors import ProjectError
from dom0.plan.attachments import overlapping
from dom0.plan.desired import Desired, Slot

SMALLEST_MEMORY = 6 << 20  # bytes; Docker Engine 26.1 `daemon/daemon_unix.go`, linuxMinMemory


class ListeningSocket(msgspec.Struct, frozen=True):
    """A port of the host that a program has."""

    port: PublishedPort
    program: str  # for people, "" where we may not know


class HostFacts(msgspec.Struct, frozen=True):
    """`cpus` 0: not known. `held`: ports of our own containers. `absent`: of `devices_of`, what is not there."""

    cpus: int = 0
    listeners: tuple[ListeningSocket, ...] = ()
    held: tuple[PublishedPort, ...] = ()
    absent: frozenset[str] = frozenset()


def new_ports(desired: Desired, before: Desired | None) -> tuple[PublishedPort, ...]:
    """The host ports that the machine does not publish yet."""
    held = [port for slot in before.slots for port in slot.ports] if before else []
    return tuple(port for slot in desired.slots for port in slot.ports if port not in held)


def check_host(desired: Desired, before: Desired | None, host: HostFacts, locations: Locations = UNKNOWN) -> None:
    """`before`: what the machine is now; `locations`: of the project's keys. Raises ProjectError."""
    wanted = new_ports(desired, before)
    for slot in desired.slots:
        ports = [port for port in slot.ports if port in wanted]
        for listener in host.listeners:
            if (port := overlapping(ports, [listener.port])) and not overlapping([listener.port], host.held):
                by = listener.program or "another program"
                what = f"{port.port}/{port.protocol} is in use by {by}"
                hint = f"end that, or publish another port; who has it: ss -lnp sport = :{port.port}"
                raise refuse([Finding((*slot.path, "ports"), what, hint)], locations)
        if missing := next((path for path in devices_of(slot) if path in host.absent), ""):
            what, hint = f"there is no {missing} on this host", "plug it in, load its driver, or correct the path"
            raise refuse([Finding((*slot.path, "devices"), what, hint)], locations)
        cpus, memory = slot.resources.get("NanoCpus", 0) / 1e9, slot.resources.get("Memory", 0)
        if host.cpus and cpus > host.cpus:
            what = f"{cpus:g} processors are more than this host has, {host.cpus}"
            raise _limit(slot, "cpus", "cpus", what, f"say cpus: {host.cpus} or fewer", locations)
        if 0 < memory < SMALLEST_MEMORY:
            what = f"a memory limit of {memory} bytes is less than the Engine takes, 6 MiB"
            raise _limit(slot, "mem_limit", "memory", what, "write a unit, as in 64m", locations)


def _limit(slot: Slot, key: str, of_deploy: str, what: str, hint: str, locations: Locations) -> ProjectError:
    """At the one of two keys that the service has."""
    path = (*slot.path, "deploy", "resources", "limits", of_deploy)
    if not locations.has(path):
        path = (*slot.path, key)
    return refuse([Finding(path, what, hint)], locations)


def devices_of(slot: Slot) -> Iterator[str]:
    """Paths on the host; names of another kind (CDI) are the Engine's business."""
    paths = (device.path_on_host for device in slot.create.host_config.devices)
    yield from (path for path in paths if path.startswith("/"))
