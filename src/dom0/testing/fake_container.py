"""One container of the fake Engine: what its create body asked for and what has become of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dom0.engine import resources
from dom0.engine.bodies import ContainerBody, HealthConfig, HostConfig, RestartPolicy
from dom0.engine.values import Container, ContainerSummary, Endpoint, Health, Image, Mount, PublishedPort, State
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
    host: HostConfig
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
        policy = self.host.restart_policy or RestartPolicy(name="no")
        return policy.name or "no", policy.maximum_retry_count

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

    def published(self) -> dict[str, tuple[PublishedPort, ...]]:
        """The fixed ones."""
        found = dict[str, tuple[PublishedPort, ...]]()
        for key, bindings in (self.host.port_bindings or {}).items():
            for binding in bindings:
                if (binding.host_port or "0") != "0":
                    port = PublishedPort(key.partition("/")[2] or "tcp", int(binding.host_port), binding.host_ip)
                    found[key] = tuple(sorted({*found.get(key, ()), port}))
        return found

    def ports(self) -> tuple[PublishedPort, ...]:
        return tuple(sorted({port for ports in self.published().values() for port in ports}))

    def summary(self) -> ContainerSummary:
        return ContainerSummary(
            id=self.id,
            name=self.name,
            image_id=self.image_id,
            state=self.state,
            labels=dict(self.labels),
            mounts=tuple(self.mounts[target] for target in sorted(self.mounts) if self.mounts[target].type != "tmpfs"),
            ports=self.ports() if self.runs else (),
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
            network_mode=self.host.network_mode or "bridge",
            ipc_mode=self.host.ipc_mode or "private",
            pid_mode=self.host.pid_mode,
            volumes_from=self.host.volumes_from,
            endpoints=tuple(
                Endpoint(network=name, network_id=e.network_id, aliases=e.aliases, ip_address=e.ip_address)
                for name, e in sorted(self.endpoints.items())
            ),
            mounts=tuple(self.mounts[target] for target in sorted(self.mounts)),
            ports=self.ports(),
            published=self.published(),
        )


def requested_endpoints(body: ContainerBody) -> dict[str, FakeEndpoint]:
    """The named endpoints; without any, the one that NetworkMode means."""
    asked = body.networking_config.endpoints_config if body.networking_config else {}
    mode = body.host_config.network_mode or "default"
    if mode.startswith("container:"):
        return {}
    if not asked:
        return {"bridge" if mode == "default" else mode: FakeEndpoint()}
    return {name: FakeEndpoint(endpoint.aliases) for name, endpoint in asked.items()}


def requested_mounts(host: HostConfig) -> dict[str, Mount]:
    """Binds, mounts and tmpfs. A volume without a name has the name "" until the Engine gives it one."""
    mounts: dict[str, Mount] = {}
    for bind in host.binds:
        source, target, *mode = bind.split(":")
        writable = "ro" not in ",".join(mode).split(",")
        mounts[target] = _mount("bind" if source.startswith("/") else "volume", target, source, writable=writable)
    for mount in host.mounts or ():
        mounts[mount.target] = _mount(mount.type, mount.target, mount.source, writable=not mount.read_only)
    for target in host.tmpfs:
        mounts[target] = Mount(type="tmpfs", target=target)
    return mounts


def _mount(kind: str, target: str, source: str, *, writable: bool) -> Mount:
    if kind == "volume":
        return Mount(type=kind, target=target, name=source, writable=writable)
    return Mount(type=kind, target=target, source=source, writable=writable)


def requested_health(body: ContainerBody, image: Image) -> HealthCheck | None:
    config = body.healthcheck or HealthConfig()
    test = config.test or image.healthcheck_test
    if not test or test[0] == "NONE":
        return None
    argv = ("/bin/sh", "-c", test[1]) if test[0] == "CMD-SHELL" else test[1:]
    return HealthCheck(
        argv=argv,
        interval=config.interval / 1e9 or 30.0,
        retries=config.retries or 3,
        start_period=config.start_period / 1e9,
        start_interval=config.start_interval / 1e9 or 5.0,
    )
