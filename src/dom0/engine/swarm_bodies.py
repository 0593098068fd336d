"""Request bodies of the Engine API for Swarm mode: services, their networks, configs and secrets. Types only, as in
`bodies`. Times are nanoseconds.

Source: Docker Engine API 1.41 to 1.51.
"""

from typing import Literal

from msgspec import field

from dom0.engine.bodies import Body, Empty, HealthConfig, Ipam, TmpfsOptions, Ulimit

FileKind = Literal["secret", "config"]


class Driver(Body, frozen=True, kw_only=True):
    name: str
    options: dict[str, str] = field(default_factory=dict)


class SwarmVolumeOptions(Body, frozen=True, kw_only=True):
    no_copy: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    subpath: str = ""
    driver_config: Driver | None = None


class SwarmMount(Body, frozen=True, kw_only=True):
    type: str
    target: str
    source: str = ""
    read_only: bool = False
    volume_options: SwarmVolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class DnsConfig(Body, frozen=True, kw_only=True):
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class FileTarget(Body, frozen=True, kw_only=True):
    name: str  # its path in the container
    uid: str = field(name="UID")
    gid: str = field(name="GID")
    mode: int


class SecretUse(Body, frozen=True, kw_only=True):
    """`secret_id`: of the secret with that name; whoever creates the service looks it up."""

    file: FileTarget
    secret_name: str
    secret_id: str = field(name="SecretID", default="")


class ConfigUse(Body, frozen=True, kw_only=True):
    file: FileTarget
    config_name: str
    config_id: str = field(name="ConfigID", default="")


class ContainerSpec(Body, frozen=True, kw_only=True):
    image: str
    labels: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] | None = None  # Compose's entrypoint
    args: tuple[str, ...] | None = None  # Compose's command
    hostname: str = ""
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = field(name="TTY", default=False)
    open_stdin: bool = False
    read_only: bool = False
    mounts: tuple[SwarmMount, ...] = ()
    stop_signal: str = ""
    stop_grace_period: int | None = None
    healthcheck: HealthConfig | None = None
    hosts: tuple[str, ...] = ()  # `address name`
    dns_config: DnsConfig | None = field(name="DNSConfig", default=None)
    secrets: tuple[SecretUse, ...] = ()
    configs: tuple[ConfigUse, ...] = ()
    init: bool | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()


class TaskResources(Body, frozen=True, kw_only=True):
    nano_cpus: int = field(name="NanoCPUs", default=0)
    memory_bytes: int = 0
    pids: int = 0


class TaskRequirements(Body, frozen=True, kw_only=True):
    limits: TaskResources | None = None
    reservations: TaskResources | None = None


class TaskRestartPolicy(Body, frozen=True, kw_only=True):
    """`delay`: None is the Engine's own, five seconds."""

    condition: str
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class Spread(Body, frozen=True, kw_only=True):
    spread_descriptor: str


class Preference(Body, frozen=True, kw_only=True):
    spread: Spread


class Placement(Body, frozen=True, kw_only=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[Preference, ...] = ()
    max_replicas: int = 0


class NetworkUse(Body, frozen=True, kw_only=True):
    """`target`: ID or name of the network."""

    target: str
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = field(default_factory=dict)


class TaskSpec(Body, frozen=True, kw_only=True):
    container_spec: ContainerSpec
    resources: TaskRequirements | None = None
    restart_policy: TaskRestartPolicy | None = None
    placement: Placement | None = None
    networks: tuple[NetworkUse, ...] = ()
    log_driver: Driver | None = None


class Replicated(Body, frozen=True, kw_only=True):
    replicas: int | None = None  # None is 1


class Mode(Body, frozen=True, kw_only=True):
    """One of both."""

    replicated: Replicated | None = None
    global_: Empty | None = field(name="Global", default=None)


class UpdateRules(Body, frozen=True, kw_only=True):
    """`parallelism`: 0 is all at once. `failure_action`: pause, continue, rollback."""

    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int = 0
    max_failure_ratio: float = 0.0
    order: str = ""


class PortConfig(Body, frozen=True, kw_only=True):
    """`published_port`: 0 is one that Swarm chooses. `publish_mode`: ingress, host."""

    name: str = ""
    protocol: str
    target_port: int
    published_port: int = 0
    publish_mode: str


class EndpointSpec(Body, frozen=True, kw_only=True):
    """`mode`: vip, dnsrr."""

    mode: str = ""
    ports: tuple[PortConfig, ...] = ()


class ServiceBody(Body, frozen=True, kw_only=True):
    """Of `POST /services/create` and `/services/{id}/update`."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    task_template: TaskSpec
    mode: Mode
    update_config: UpdateRules | None = None
    rollback_config: UpdateRules | None = None
    endpoint_spec: EndpointSpec | None = None


class SwarmNetworkBody(Body, frozen=True, kw_only=True):
    """Of `POST /networks/create`, for a network of the whole Swarm."""

    name: str
    driver: str
    check_duplicate: bool
    attachable: bool = False
    internal: bool = False
    enable_ipv6: bool = field(name="EnableIPv6", default=False)
    ipam: Ipam | None = field(name="IPAM", default=None)
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


class FileBody(Body, frozen=True, kw_only=True):
    """Of `POST /secrets/create` and `/configs/create`. `data`: in base64, as JSON has bytes."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    data: bytes


class MemberBody(Body, frozen=True, kw_only=True):
    """Of `POST /nodes/{id}/update`, which replaces all of it. `role`: worker, manager; `availability`: active, pause,
    drain.
    """

    name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    role: str
    availability: str


class SwarmSpec(Body, frozen=True, kw_only=True):
    labels: dict[str, str] = field(default_factory=dict)


class InitBody(Body, frozen=True, kw_only=True):
    listen_addr: str
    advertise_addr: str
    spec: SwarmSpec


class JoinBody(Body, frozen=True, kw_only=True):
    listen_addr: str
    advertise_addr: str
    remote_addrs: tuple[str, ...]
    join_token: str
