"""Request bodies of the Engine API: what a container, a network and a volume may be asked for. Types only.

They hold the keys that dom0 writes and are closed: decoding refuses any other key. A field with its default is not
sent. The default is None where an empty value means something else than none: an empty `Cmd` clears the image's,
`Init: false` overrides the daemon's setting, and `docker inspect` shows `[]` instead of `null`.

Source: Docker Engine API 1.41 to 1.51.

Without `from __future__ import annotations`: evaluating as many of them would double the time of the first decoding.
"""

import msgspec
from msgspec import field


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="pascal"):
    """A body, or an object in one."""


class Empty(Body, frozen=True, kw_only=True):
    """`{}`: the API writes a set as an object of these."""


# containers


class HealthConfig(Body, frozen=True, kw_only=True):
    """Times in nanoseconds; what is not set is the image's."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RestartPolicy(Body, frozen=True, kw_only=True):
    name: str
    maximum_retry_count: int = 0


class LogConfig(Body, frozen=True, kw_only=True):
    type: str
    config: dict[str, str]


class PortBinding(Body, frozen=True, kw_only=True):
    host_ip: str = ""
    host_port: str = ""


class BindOptions(Body, frozen=True, kw_only=True):
    propagation: str = ""
    create_mountpoint: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Body, frozen=True, kw_only=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    subpath: str = ""


class TmpfsOptions(Body, frozen=True, kw_only=True):
    size_bytes: int = 0
    mode: int = 0


class Mount(Body, frozen=True, kw_only=True):
    type: str
    target: str
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Ulimit(Body, frozen=True, kw_only=True):
    name: str
    soft: int
    hard: int


class DeviceMapping(Body, frozen=True, kw_only=True):
    path_on_host: str
    path_in_container: str
    cgroup_permissions: str


class DeviceRequest(Body, frozen=True, kw_only=True):
    driver: str = ""
    count: int = 0
    device_ids: tuple[str, ...] = field(name="DeviceIDs", default=())
    capabilities: tuple[tuple[str, ...], ...] = ()
    options: dict[str, str] = {}


class WeightDevice(Body, frozen=True, kw_only=True):
    path: str
    weight: int


class ThrottleDevice(Body, frozen=True, kw_only=True):
    path: str
    rate: int


class ResourceLimits(Body, frozen=True, kw_only=True):
    """The numbers that `docker update` can change."""

    blkio_weight: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpu_shares: int = 0
    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    nano_cpus: int = 0
    pids_limit: int = 0


class Resources(ResourceLimits, frozen=True, kw_only=True):
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    blkio_device_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_read_iops: tuple[ThrottleDevice, ...] = field(name="BlkioDeviceReadIOps", default=())
    blkio_device_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_iops: tuple[ThrottleDevice, ...] = field(name="BlkioDeviceWriteIOps", default=())
    cgroup_parent: str = ""
    cpu_count: int = 0
    cpu_percent: int = 0
    cpuset_cpus: str = ""
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    memory_swappiness: int = 0
    oom_kill_disable: bool | None = None
    ulimits: tuple[Ulimit, ...] = ()


class HostConfig(Resources, frozen=True, kw_only=True):
    annotations: dict[str, str] = {}
    binds: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroupns_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] | None = None
    group_add: tuple[str, ...] = ()
    init: bool | None = None
    ipc_mode: str = ""
    isolation: str = ""
    links: tuple[str, ...] = ()
    log_config: LogConfig | None = None
    masked_paths: tuple[str, ...] | None = None
    mounts: tuple[Mount, ...] | None = None
    network_mode: str = ""
    oom_score_adj: int = 0
    pid_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...]] | None = None  # by container port, `80/tcp`
    privileged: bool = False
    readonly_paths: tuple[str, ...] | None = None
    readonly_rootfs: bool = False
    restart_policy: RestartPolicy | None = None
    runtime: str = ""
    security_opt: tuple[str, ...] = ()
    shm_size: int = 0
    storage_opt: dict[str, str] = {}
    sysctls: dict[str, str] = {}
    tmpfs: dict[str, str] = {}  # target -> options
    userns_mode: str = ""
    uts_mode: str = field(name="UTSMode", default="")
    volumes_from: tuple[str, ...] = ()


class EndpointIpamConfig(Body, frozen=True, kw_only=True):
    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: tuple[str, ...] = field(name="LinkLocalIPs", default=())


class EndpointSettings(Body, frozen=True, kw_only=True):
    """Of one container in one network."""

    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0
    ipam_config: EndpointIpamConfig | None = field(name="IPAMConfig", default=None)
    links: tuple[str, ...] = ()
    mac_address: str = ""


class NetworkingConfig(Body, frozen=True, kw_only=True):
    endpoints_config: dict[str, EndpointSettings]  # by network


class ContainerBody(Body, frozen=True, kw_only=True):
    """Of `POST /containers/create`."""

    image: str = ""
    attach_stderr: bool = False
    attach_stdout: bool = False
    cmd: tuple[str, ...] | None = None
    domainname: str = ""
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    exposed_ports: dict[str, Empty] = {}
    healthcheck: HealthConfig | None = None
    hostname: str = ""
    labels: dict[str, str] = {}
    network_disabled: bool = False
    open_stdin: bool = False
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    tty: bool = False
    user: str = ""
    volumes: dict[str, Empty] = {}  # targets of anonymous ones
    working_dir: str = ""
    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig | None = None


class UpdateBody(ResourceLimits, frozen=True, kw_only=True):
    """Of `POST /containers/{id}/update`. What is not set stays as it is."""

    restart_policy: RestartPolicy | None = None


# networks and volumes


class IpamPool(Body, frozen=True, kw_only=True):
    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class Ipam(Body, frozen=True, kw_only=True):
    driver: str = ""
    config: tuple[IpamPool, ...] = ()


class NetworkBody(Body, frozen=True, kw_only=True):
    """Of `POST /networks/create`."""

    name: str = ""
    attachable: bool = False
    check_duplicate: bool = False
    driver: str = ""
    enable_ipv4: bool | None = field(name="EnableIPv4", default=None)
    enable_ipv6: bool = field(name="EnableIPv6", default=False)
    internal: bool = False
    ipam: Ipam | None = field(name="IPAM", default=None)
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


class VolumeBody(Body, frozen=True, kw_only=True):
    """Of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}
