"""What the Engine answers, as frozen values. Nothing here does I/O.

Times are seconds since the epoch (0.0: never), sizes are bytes, IDs are the Engine's full ones
(64 hex digits; images with the `sha256:` prefix). Source of every field: Docker Engine API 1.41 to 1.51.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class State(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


RUNNING = (State.RUNNING, State.PAUSED, State.RESTARTING)


class Health(StrEnum):
    NONE = "none"  # the container has no health check
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment of a container to a network."""

    network: str  # name
    network_id: str
    aliases: tuple[str, ...] = ()
    ip_address: str = ""
    ipv6_address: str = ""  # not the link-local one

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.ip_address, self.ipv6_address)))


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    type: str  # bind, volume, tmpfs
    target: str
    source: str = ""  # host path of a bind or volume
    name: str = ""  # volume name
    writable: bool = True


class PublishedPort(msgspec.Struct, frozen=True, order=True):
    protocol: str  # tcp, udp, sctp
    port: int
    ip: str = ""  # "" is every address

    @classmethod
    def at(cls, protocol: str, port: int, ip: str) -> PublishedPort:
        """`::` and `0.0.0.0` are one family only, but what a person means by either is every address."""
        return cls(protocol, port, "" if ip in ("0.0.0.0", "::") else ip)  # noqa: S104 -- compared, not bound


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One `GET /containers/{id}/json`, reduced to what is compared or shown."""

    id: str
    name: str  # without the leading slash
    image_id: str
    image: str  # as written at create
    labels: dict[str, str]
    state: State
    created: float
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    error: str = ""  # why the Engine could not start it
    oom_killed: bool = False
    pid: int = 0
    health: Health = Health.NONE
    health_output: str = ""  # of the last probe
    restart_count: int = 0
    restart_policy: str = "no"
    restart_retries: int = 0
    stop_grace: float = 10.0  # seconds
    resources: dict[str, int] = {}  # the HostConfig numbers that `docker update` can change; zero values left out
    network_mode: str = ""
    ipc_mode: str = ""
    pid_mode: str = ""
    volumes_from: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PublishedPort, ...] = ()  # host side, as configured (also while stopped)
    published: Mapping[str, tuple[PublishedPort, ...]] = {}  # the same by the container's port, as `80/tcp`

    @property
    def running(self) -> bool:
        return self.state in RUNNING


class ContainerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `GET /containers/json?all=1`."""

    id: str
    name: str
    image_id: str
    state: State
    labels: dict[str, str]
    mounts: tuple[Mount, ...] = ()  # without tmpfs
    ports: tuple[PublishedPort, ...] = ()  # host side, while it runs

    @property
    def running(self) -> bool:
        return self.state in RUNNING


class Network(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    driver: str
    labels: dict[str, str]
    created: float = 0.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a container uses, and has used since its start; 0 where its control group does not say it."""

    read: float = 0.0  # when that was, in seconds since the epoch
    memory: int = 0  # bytes, without what the kernel may drop, as `docker stats` shows it
    processor: float = 0.0  # seconds, of all processors together
    received: int = 0  # bytes, over all its networks but the host's
    sent: int = 0


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    driver: str
    labels: dict[str, str]
    mountpoint: str = ""
    options: dict[str, str] = {}  # of the driver
    created: float = 0.0


class Image(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    created: float = 0.0
    size: int = 0  # unpacked
    layers: tuple[str, ...] = ()  # digests of their tars ("diff IDs"), the lowest first
    volumes: tuple[str, ...] = ()  # VOLUME paths
    env: tuple[str, ...] = ()
    user: str = ""
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    has_healthcheck: bool = False
    healthcheck_test: tuple[str, ...] = ()


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    version: str
    api_version: str  # the one negotiated
    cpus: int
    memory: int
    storage_driver: str
    root_dir: str
    cgroup_version: str
    operating_system: str
    machine: str = ""  # as uname says: x86_64, aarch64
    insecure_registries: tuple[str, ...] = ()  # hosts, and networks as 127.0.0.0/8
    mirrors: tuple[str, ...] = ()  # of docker.io: URLs, in the order in which they are asked
    cgroup_driver: str = "cgroupfs"  # or systemd, which makes them then
    labels: tuple[str, ...] = ()  # KEY=VALUE, of the Engine itself
    swarm_active: bool = False
    containerd_store: bool = False  # images are kept by containerd, not by a driver of the Engine's own


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `GET /events`. `type` is container, network, volume, image, daemon…; `time` in seconds."""

    type: str
    action: str  # "die", "health_status: healthy", …
    id: str
    attributes: dict[str, str]
    time: float


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    exit_code: int
    output: str  # standard output and error in the order they came, at most 64 KiB


class PullProgress(msgspec.Struct, frozen=True, kw_only=True):
    layer: str
    status: str
    current: int = 0
    total: int = 0
