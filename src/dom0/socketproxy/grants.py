"""What a scope was granted. Pure. Nothing granted: containers of its own, of images that it may use, and no more."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import msgspec

from dom0 import sizes
from dom0.errors import UsageError
from dom0.names import SCOPED_IMAGES
from dom0.socketproxy.hostpath import HostPath, normal
from dom0.wording import flaw

PREDEFINED = ("", "bridge", "default", "host", "none")  # networks of the Engine itself
Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 -- compared, not bound
LEAST_MEMORY, MOST_MEMORY = 6 << 20, 1 << 62  # bytes; the least is the Engine's own, for one container
LEAST_CPUS, MOST_CPUS = 0.01, 8192  # the kernel's
MOST_PIDS = 1 << 22  # the kernel's
CAPABILITIES = frozenset(
    {
        *("AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN"),
        *("DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE"),
        *("LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST"),
        *("NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT"),
        *("SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME"),
        *("SYS_TTY_CONFIG", "WAKE_ALARM"),
    }
)
"""capabilities(7), which are those of Docker 26."""
_DEVICE = re.compile(r"(?P<path>/dev/[^:\s]+)(:(?P<permissions>r?w?m?))?")
_PORTS = re.compile(
    r"((?P<address>[0-9.]+|\[[0-9a-fA-F:.]+\]):)?(?P<first>[0-9]{1,5})(-(?P<last>[0-9]{1,5}))?(/(?P<protocol>tcp|udp|sctp))?"
)


class Images(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Patterns of names: `busybox` is every tag of it, `busybox:1.36` that one, `guest/*` all below `guest/`."""

    use: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()  # to use them too
    build: bool = False
    own: int = 100  # names that it may give to images, at a time

    def __post_init__(self) -> None:
        if self.own < 0:
            raise ValueError(f"own: {self.own} is no number of names")


class Ports(msgspec.Struct, frozen=True):
    """A range of ports of the host, at one of its addresses or ("") at any that is told from others; 0 is one that the
    Engine chooses.
    """

    first: int
    last: int
    protocol: str
    address: str

    @classmethod
    def read(cls, text: str) -> Ports:
        """From `[ADDRESS:]PORT[-PORT][/PROTOCOL]`, tcp where none is said. Raises ValueError."""
        found = _PORTS.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not [ADDRESS:]PORT[-PORT][/tcp|udp|sctp]")
        first = int(found["first"])
        last = int(found["last"] or first)
        if not (0 < first <= last < 65536 or first == last == 0):
            raise ValueError(f"{text!r}: no ports")
        address = (found["address"] or "").strip("[]")
        return cls(first, last, found["protocol"] or "tcp", "" if address in EVERY_ADDRESS else address)

    def holds(self, other: Ports) -> bool:
        return (
            self.protocol == other.protocol
            and (self.address == other.address or (not self.address and not _is_spare(other.address)))
            and self.first <= other.first
            and other.last <= self.last
        )


def _is_spare(address: str) -> bool:
    """Whether it is one of the millions that the host has beside 127.0.0.1, each with all ports."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback and str(found) not in ("127.0.0.1", "::1")


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What all containers of a scope may use together; None is not limited."""

    memory: int | None = None  # bytes
    cpus: float | None = None
    pids: int | None = None

    def asked(self) -> tuple[str, ...]:
        return tuple(key for key in self.__struct_fields__ if getattr(self, key) is not None)


class Device(msgspec.Struct, frozen=True):
    path: str
    permissions: str

    @classmethod
    def read(cls, text: str) -> Device:
        """From `/dev/NAME[:PERMISSIONS]`, `rwm` where none are said. Raises ValueError."""
        found = _DEVICE.fullmatch(text)
        if found is None or normal(found["path"]) != found["path"]:
            raise ValueError(f"{text!r} is not /dev/NAME[:rwm]")
        return cls(found["path"], found["permissions"] or "rwm")

    def holds(self, other: Device) -> bool:
        return self.path == other.path and set(other.permissions) <= set(self.permissions)


class Grants(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, dict=True):
    images: Images = Images()
    capabilities: tuple[str, ...] = ()  # as `NET_ADMIN`
    containers: int = 100  # at a time
    networks: int = 8  # at a time; an Engine has addresses for some thirty
    volumes: int = 100
    connections: int = 256  # to the socket, at a time
    devices: tuple[str, ...] = ()  # of the host, see Device
    join: tuple[str, ...] = ()  # names of networks that are not the scope's
    paths: tuple[str, ...] = ()  # of the host, see HostPath
    ports: tuple[str, ...] = ()  # of the host, see Ports
    subnets: tuple[str, ...] = ()  # that its networks may have, as `10.1.0.0/16`
    memory: str | int | None = None  # as `512m`; this and the next two: of all its containers together
    cpus: float | None = None
    pids: int | None = None

    def __post_init__(self) -> None:
        for name in self.capabilities:
            if name not in CAPABILITIES:
                raise ValueError(f"capabilities: {name!r} is none that can be granted, as NET_ADMIN")
        for key in ("containers", "networks", "volumes", "connections"):
            if (count := getattr(self, key)) < 0:
                raise ValueError(f"{key}: {count} is no number of them")
        if self.memory is not None and not LEAST_MEMORY <= sizes.parse(str(self.memory)) <= MOST_MEMORY:
            raise ValueError(f"memory: {self.memory} is not from 6m, which one container needs, to 4096p")
        if self.cpus is not None and not LEAST_CPUS <= self.cpus <= MOST_CPUS:
            raise ValueError(f"cpus: {self.cpus} is no number of processors, as 0.5 or 2")
        if self.pids is not None and not 0 < self.pids <= MOST_PIDS:
            raise ValueError(f"pids: {self.pids} is no number of processes, as 200")
        self._check_host()

    def _check_host(self) -> None:
        for name in self.join:
            if name in PREDEFINED:
                raise ValueError(f"join: {name} is everybody's, and no network to join")
        readers: dict[str, Callable[[str], object]] = {
            "devices": Device.read,
            "paths": HostPath.read,
            "ports": Ports.read,
            "subnets": ipaddress.ip_network,
        }
        for key, read_one in readers.items():
            try:
                for text in getattr(self, key):
                    read_one(text)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error

    @cached_property
    def host_paths(self) -> tuple[HostPath, ...]:
        return tuple(HostPath.read(text) for text in self.paths)

    @property
    def budget(self) -> Budget:
        memory = None if self.memory is None else sizes.parse(str(self.memory))
        return Budget(memory=memory, cpus=self.cpus, pids=self.pids)

    def may_use(self, image: str) -> bool:
        """`image` with its tag or digest."""
        return any(_matches(image, pattern) for pattern in self.images.use + self.images.pull)

    def may_pull(self, image: str) -> bool:
        """`image` with its tag or digest."""
        return any(_matches(image, pattern) for pattern in self.images.pull)

    def may_have(self, wanted: Device) -> bool:
        return any(Device.read(text).holds(wanted) for text in self.devices)

    def may_publish(self, wanted: Ports) -> bool:
        return any(Ports.read(text).holds(wanted) for text in self.ports)

    def may_take(self, subnet: Subnet) -> bool:
        return any(is_within(subnet, ipaddress.ip_network(text)) for text in self.subnets)


def is_within(subnet: Subnet, other: Subnet) -> bool:
    """Of addresses of both versions."""
    if isinstance(subnet, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and subnet.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and subnet.subnet_of(other)


def _matches(image: str, pattern: str) -> bool:
    """What another scope calls its own is meant by no `*` in front."""
    if image.startswith(f"{SCOPED_IMAGES}/") and not pattern.startswith(f"{SCOPED_IMAGES}/"):
        return False
    has_tag = ":" in pattern.rpartition("/")[2] or "@" in pattern
    head, slash, last = image.partition("@")[0].rpartition("/")
    return fnmatchcase(image if has_tag else head + slash + last.partition(":")[0], pattern)


def read(file: Path) -> Grants:
    """Raises UsageError, OSError."""
    import yaml  # which only a file needs: every agent knows grants

    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Grants | None) or Grants()
    except msgspec.ValidationError as error:
        found = flaw(error, Grants)
        place = "/".join((str(file), *found.steps))
        raise UsageError(f"{place}: {found.what}", hint=found.hint or "docs/socketproxy.md lists the grants") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: no YAML: {error}", hint="docs/socketproxy.md has an example") from error
