"""The bodies that clients send, closed: every key that may have a value, with its type. Names are of the API 1.45.

What real clients send was recorded (docs/socketproxy.md). A key that is not here is refused when it has a value.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import UNSET, Struct, UnsetType, field

Texts = list[str]


class Model(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal", forbid_unknown_fields=True):
    IGNORED: ClassVar[tuple[str, ...]] = ()  # keys that clients send back from an inspection, and that ask for nothing


class Nothing(Model, frozen=True):
    """Of calls that take no body: whatever is there must be empty."""


class Health(Model, frozen=True):
    test: Texts | UnsetType = UNSET
    interval: int = 0  # nanoseconds, as the next ones
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RestartPolicy(Model, frozen=True):
    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Model, frozen=True):
    type: str = ""
    config: dict[str, str] = {}


class Ulimit(Model, frozen=True):
    name: str
    soft: int = 0
    hard: int = 0


class PortBinding(Model, frozen=True):
    host_ip: str = ""
    host_port: str = ""


class IpamConfig(Model, frozen=True):
    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: Texts = field(name="LinkLocalIPs", default=[])


class Endpoint(Model, frozen=True):
    """Of one network."""

    IGNORED: ClassVar[tuple[str, ...]] = (
        "DNSNames",
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "NetworkID",
    )

    aliases: Texts = []
    links: Texts = []
    ipam_config: IpamConfig | None = field(name="IPAMConfig", default=None)
    mac_address: str = ""


class Networking(Model, frozen=True):
    endpoints_config: dict[str, Endpoint | None] = {}


class VolumeOptions(Model, frozen=True):
    labels: dict[str, str] = {}
    no_copy: bool = False
    subpath: str = ""


class TmpfsOptions(Model, frozen=True):
    mode: int = 0
    size_bytes: int = 0


class BindOptions(Model, frozen=True):
    """Known, so that a bind is refused as one that is not granted."""

    create_mountpoint: bool = False
    propagation: str = ""


class Mount(Model, frozen=True):
    bind_options: BindOptions | None = None
    consistency: str = ""
    read_only: bool = False
    source: str = ""
    target: str = ""
    tmpfs_options: TmpfsOptions | None = None
    type: str = ""
    volume_options: VolumeOptions | None = None


class HostConfig(Model, frozen=True):
    auto_remove: bool = False
    binds: Texts = []
    blkio_weight: int = 0
    cap_add: Texts = []
    cap_drop: Texts = []
    cgroupns_mode: str = ""
    console_size: list[int] = []
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    dns: Texts = []
    dns_options: Texts = []
    dns_search: Texts = []
    extra_hosts: Texts = []
    group_add: Texts = []
    init: bool | UnsetType = UNSET
    ipc_mode: str = ""
    isolation: str = ""
    links: Texts = []
    log_config: LogConfig = LogConfig()
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int = -1
    mounts: list[Mount] = []
    nano_cpus: int = 0
    network_mode: str = ""
    oom_score_adj: int = 0
    pid_mode: str = ""
    pids_limit: int = 0
    port_bindings: dict[str, list[PortBinding] | None] = {}
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    restart_policy: RestartPolicy = RestartPolicy()
    runtime: str = ""
    security_opt: Texts = []
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    ulimits: list[Ulimit] = []
    userns_mode: str = ""
    uts_mode: str = field(name="UTSMode", default="")
    volumes_from: Texts = []


class Container(Model, frozen=True):
    args_escaped: bool = False
    attach_stderr: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    cmd: Texts | UnsetType = UNSET
    domainname: str = ""
    entrypoint: Texts | UnsetType = UNSET
    env: Texts = []
    exposed_ports: dict[str, Nothing] = {}
    healthcheck: Health | None = None
    host_config: HostConfig = HostConfig()
    hostname: str = ""
    image: str = ""
    labels: dict[str, str] = {}
    mac_address: str = ""
    network_disabled: bool = False
    networking_config: Networking = Networking()
    open_stdin: bool = False
    shell: Texts = []
    stdin_once: bool = False
    stop_signal: str = ""
    stop_timeout: int | UnsetType = UNSET
    tty: bool = False
    user: str = ""
    volumes: dict[str, Nothing] = {}
    working_dir: str = ""


class Update(Model, frozen=True):
    """Of a container that is there."""

    blkio_weight: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    nano_cpus: int = 0
    pids_limit: int | UnsetType = UNSET
    restart_policy: RestartPolicy = RestartPolicy()


class Exec(Model, frozen=True):
    IGNORED: ClassVar[tuple[str, ...]] = ("Container", "detachKeys")
    attach_stderr: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    cmd: Texts = []
    console_size: list[int] = []
    detach: bool = False
    detach_keys: str = ""
    env: Texts = []
    tty: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStart(Model, frozen=True):
    console_size: list[int] = []
    detach: bool = False
    tty: bool = False


class IpamPool(Model, frozen=True):
    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class Ipam(Model, frozen=True):
    driver: str = ""
    config: list[IpamPool] | None = None
    options: dict[str, str] | None = None


class Network(Model, frozen=True):
    name: str
    attachable: bool = False
    check_duplicate: bool = False
    driver: str = ""
    enable_ipv4: bool | UnsetType = field(name="EnableIPv4", default=UNSET)
    enable_ipv6: bool | UnsetType | None = field(name="EnableIPv6", default=UNSET)
    internal: bool = False
    ipam: Ipam | None = field(name="IPAM", default=None)
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    scope: str = ""


class Connect(Model, frozen=True):
    container: str
    endpoint_config: Endpoint | None = None


class Disconnect(Model, frozen=True):
    container: str
    force: bool = False


class Volume(Model, frozen=True):
    driver: str = ""
    labels: dict[str, str] = {}
    name: str = ""
