"""One container of the fake Engine: what its create body asked for and what has become of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dom0.engine import resources
from dom0.engine.values import Body, Container, ContainerSummary, Endpoint, Health, Image, Mount, PublishedPort, State
from dom0.testing.fake_process import Process

FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 60.0  # seconds before the Engine restarts it; doubles each time
RAN_WELL = 10.0  # seconds of running after which the first backoff is due again


@dataclass(frozen=True)
class HealthCheck:
    """Of the create body or the image; times in seconds."""

    argv: tuple[str, ...]
    interval: float
    retries: int
    start_period: float
    start_interval: float


@dataclass
class FakeEndpoint:
    aliases: tuple[str, ...] = ()
    network_id: str = ""  # once it was started
    ip_address: str = ""


@dataclass
class FakeContainer:
    id: str
    name: str
    image: str
    image_id: str
    labels: dict[str, str]
    created: float
    command: list[str]
    env: list[str]
    host: dict[str, Any]
    mounts: dict[str, Mount]
    endpoints: dict[str, FakeEndpoint]
    health_check: HealthCheck | None
    stop_grace: float
    files: dict[str, bytes] = field(default_factory=dict)
    log: list[tuple[float, str, str]] = field(default_factory=list)  # of each start: when, output, errors among it
    state: State = State.CREATED
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    error: str = ""
    pid: int = 0
    process: Process | None = None
    health: Health = Health.NONE
    health_output: str = ""
    probes: int = 0
    failed_probes: int = 0  # in a row
    restart_count: int = 0
    backoff: float = FIRST_BACKOFF
    no_restart: bool = False  # stopped, killed or signalled since it was started: its policy rests
    by_hand: bool = False  # the same, remembered over a restart of the Engine for `unless-stopped`
    stopping: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def runs(self) -> bool:
        return self.state in (State.RUNNING, State.PAUSED)

    @property
    def policy(self) -> tuple[str, int]:
        policy = self.host.get("RestartPolicy") or {}
        return policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0

    def wants_restart(self) -> bool:
        name, most = self.policy
        match name:
            case "always":
                return True
            case "unless-stopped":
                return not self.by_hand
            case "on-failure":
                return self.exit_code != 0 and (most == 0 or self.restart_count < most)
        return False

    def cancel_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def ports(self) -> tuple[PublishedPort, ...]:
        """The fixed ones."""
        found = set()
        for key, hosts in (self.host.get("PortBindings") or {}).items():
            for host in hosts:
                if (host.get("HostPort") or "0") != "0":
                    ip = host.get("HostIp") or ""
                    found.add(PublishedPort(key.partition("/")[2] or "tcp", int(host["HostPort"]), ip))
        return tuple(sorted(found))

    def summary(self) -> ContainerSummary:
        return ContainerSummary(
            id=self.id,
            name=self.name,
            image_id=self.image_id,
            state=self.state,
            labels=dict(self.labels),
            mounts=tuple(self.mounts[target] for target in sorted(self.mounts) if self.mounts[target].type != "tmpfs"),
        )

    def value(self) -> Container:
        policy, retries = self.policy
        return Container(
            id=self.id,
            name=self.name,
            image_id=self.image_id,
            image=self.image,
            labels=dict(self.labels),
            state=self.state,
            created=self.created,
            started=self.started,
            finished=self.finished,
            exit_code=self.exit_code,
            error=self.error,
            pid=self.pid,
            health=self.health,
            health_output=self.health_output,
            restart_count=self.restart_count,
            restart_policy=policy,
            restart_retries=retries,
            stop_grace=self.stop_grace,
            resources=resources.updatable(self.host),
            network_mode=self.host.get("NetworkMode") or "bridge",
            ipc_mode=self.host.get("IpcMode") or "private",
            pid_mode=self.host.get("PidMode") or "",
            volumes_from=tuple(self.host.get("VolumesFrom") or ()),
            endpoints=tuple(
                Endpoint(network=name, network_id=e.network_id, aliases=e.aliases, ip_address=e.ip_address)
                for name, e in sorted(self.endpoints.items())
            ),
            mounts=tuple(self.mounts[target] for target in sorted(self.mounts)),
            ports=self.ports(),
        )


def requested_endpoints(body: Body) -> dict[str, FakeEndpoint]:
    """The named endpoints; without any, the one that NetworkMode means."""
    asked: Mapping[str, Any] = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    mode = str((body.get("HostConfig") or {}).get("NetworkMode") or "default")
    if mode.startswith("container:"):
        return {}
    if not asked:
        return {"bridge" if mode == "default" else mode: FakeEndpoint()}
    return {name: FakeEndpoint(tuple((endpoint or {}).get("Aliases") or ())) for name, endpoint in asked.items()}


def requested_mounts(body: Body) -> dict[str, Mount]:
    """Binds, mounts and tmpfs. A volume without a name has the name "" until the Engine gives it one."""
    host = body.get("HostConfig") or {}
    mounts: dict[str, Mount] = {}
    for bind in host.get("Binds") or ():
        source, target, *mode = str(bind).split(":")
        writable = "ro" not in ",".join(mode).split(",")
        mounts[target] = _mount("bind" if source.startswith("/") else "volume", target, source, writable=writable)
    for mount in host.get("Mounts") or ():
        writable = not mount.get("ReadOnly")
        mounts[mount["Target"]] = _mount(mount["Type"], mount["Target"], mount.get("Source") or "", writable=writable)
    for target in host.get("Tmpfs") or ():
        mounts[target] = Mount(type="tmpfs", target=target)
    return mounts


def _mount(kind: str, target: str, source: str, *, writable: bool) -> Mount:
    if kind == "volume":
        return Mount(type=kind, target=target, name=source, writable=writable)
    return Mount(type=kind, target=target, source=source, writable=writable)


def requested_health(body: Body, image: Image) -> HealthCheck | None:
    config = body.get("Healthcheck") or {}
    test = tuple(config.get("Test") or image.healthcheck_test)
    if not test or test[0] == "NONE":
        return None
    argv = ("/bin/sh", "-c", test[1]) if test[0] == "CMD-SHELL" else test[1:]
    return HealthCheck(
        argv=argv,
        interval=_seconds(config.get("Interval"), 30.0),
        retries=config.get("Retries") or 3,
        start_period=_seconds(config.get("StartPeriod"), 0.0),
        start_interval=_seconds(config.get("StartInterval"), 5.0),
    )


def _seconds(nanoseconds: int | None, default: float) -> float:
    return nanoseconds / 1e9 if nanoseconds else default
