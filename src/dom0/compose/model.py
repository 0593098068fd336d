"""The resolved Compose project, field by field as `docker compose config` of Compose 2.26 prints it.

Only shapes live here: no parsing of files, no defaults of Compose's own, no I/O. The loader converts each section of
the printed YAML with `msgspec.convert(section, type, strict=False)` (Compose prints byte sizes as quoted numbers); it
has taken out every `x-*` key but `x-dom0` and undone the doubled `$` before. Durations stay as Compose spells them
(`1m30s`), `durations` reads them.

Every field has a default that is omitted from the canonical JSON: a field that is added later changes no hash.
Source: compose-go 2.4.8 `types/types.go`, which is what Debian's Compose 2.26.1 is built with.

Annotations are not postponed, as in `engine/bodies`.
"""

from functools import cache
from typing import Any

import msgspec

from dom0.compose.findings import Locations
from dom0.compose.x_dom0 import MachineSettings, ServiceSettings


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Options of every struct below; mypy wants `frozen` repeated, msgspec `kw_only`."""


class WeightDevice(_Part, frozen=True, kw_only=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(_Part, frozen=True, kw_only=True):
    path: str = ""
    rate: int = 0  # bytes or operations per second


class BlkioConfig(_Part, frozen=True, kw_only=True):
    weight: int = 0
    weight_device: tuple[WeightDevice, ...] = ()
    device_read_bps: tuple[ThrottleDevice, ...] = ()
    device_read_iops: tuple[ThrottleDevice, ...] = ()
    device_write_bps: tuple[ThrottleDevice, ...] = ()
    device_write_iops: tuple[ThrottleDevice, ...] = ()


class CredentialSpec(_Part, frozen=True, kw_only=True):
    config: str = ""
    file: str = ""
    registry: str = ""


class ServiceDependency(_Part, frozen=True, kw_only=True):
    condition: str = ""
    restart: bool = False
    required: bool = True


class UpdateConfig(_Part, frozen=True, kw_only=True):
    parallelism: int | None = None
    delay: str = ""
    failure_action: str = ""
    monitor: str = ""
    max_failure_ratio: float = 0
    order: str = ""


class DeviceRequest(_Part, frozen=True, kw_only=True):
    capabilities: tuple[str, ...] = ()
    driver: str = ""
    count: int = 0  # -1: all
    device_ids: tuple[str, ...] = ()
    options: dict[str, str] = {}


class DiscreteResource(_Part, frozen=True, kw_only=True):
    kind: str = ""
    value: int = 0


class GenericResource(_Part, frozen=True, kw_only=True):
    discrete_resource_spec: DiscreteResource | None = None


class Resource(_Part, frozen=True, kw_only=True):
    cpus: float = 0
    memory: int = 0
    pids: int = 0
    devices: tuple[DeviceRequest, ...] = ()
    generic_resources: tuple[GenericResource, ...] = ()


class Resources(_Part, frozen=True, kw_only=True):
    limits: Resource | None = None
    reservations: Resource | None = None


class RestartPolicy(_Part, frozen=True, kw_only=True):
    condition: str = ""
    delay: str = ""
    max_attempts: int | None = None
    window: str = ""


class PlacementPreference(_Part, frozen=True, kw_only=True):
    spread: str = ""


class Placement(_Part, frozen=True, kw_only=True):
    constraints: tuple[str, ...] = ()
    preferences: tuple[PlacementPreference, ...] = ()
    max_replicas_per_node: int = 0


class Deploy(_Part, frozen=True, kw_only=True):
    mode: str = ""
    replicas: int | None = None
    labels: dict[str, str] = {}
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    resources: Resources | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    endpoint_mode: str = ""


class DeviceMapping(_Part, frozen=True, kw_only=True):
    source: str = ""
    target: str = ""
    permissions: str = ""


class HealthCheck(_Part, frozen=True, kw_only=True):
    test: tuple[str, ...] = ()
    timeout: str = ""
    interval: str = ""
    retries: int | None = None
    start_period: str = ""
    start_interval: str = ""
    disable: bool = False


class Hook(_Part, frozen=True, kw_only=True):
    command: tuple[str, ...] | None = None
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: dict[str, str | None] = {}


class Logging(_Part, frozen=True, kw_only=True):
    driver: str = ""
    options: dict[str, str] = {}


class ServiceNetwork(_Part, frozen=True, kw_only=True):
    priority: int = 0
    gw_priority: int = 0
    interface_name: str = ""
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}


class Port(_Part, frozen=True, kw_only=True):
    name: str = ""
    mode: str = ""
    host_ip: str = ""
    target: int = 0
    published: str = ""  # "", "8080" or "8080-8089"
    protocol: str = ""
    app_protocol: str = ""


class FileReference(_Part, frozen=True, kw_only=True):
    """A config or secret as a service uses it."""

    source: str = ""
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None


class Ulimit(_Part, frozen=True, kw_only=True):
    soft: int = 0
    hard: int = 0


class Build(_Part, frozen=True, kw_only=True):
    context: str = ""
    dockerfile: str = ""
    dockerfile_inline: str = ""
    entitlements: tuple[str, ...] = ()
    args: dict[str, str | None] = {}
    ssh: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    no_cache: bool = False
    additional_contexts: dict[str, str] = {}
    pull: bool = False
    extra_hosts: tuple[str, ...] = ()
    isolation: str = ""
    network: str = ""
    target: str = ""
    secrets: tuple[FileReference, ...] = ()
    shm_size: int = 0
    tags: tuple[str, ...] = ()
    ulimits: dict[str, int | Ulimit] = {}
    platforms: tuple[str, ...] = ()
    privileged: bool = False
    provenance: str = ""
    sbom: str = ""


class BindOptions(_Part, frozen=True, kw_only=True):
    selinux: str = ""
    propagation: str = ""
    create_host_path: bool = False
    recursive: str = ""


class VolumeOptions(_Part, frozen=True, kw_only=True):
    labels: dict[str, str] = {}
    nocopy: bool = False
    subpath: str = ""


class ImageOptions(_Part, frozen=True, kw_only=True):
    subpath: str = ""


class TmpfsOptions(_Part, frozen=True, kw_only=True):
    size: int = 0
    mode: int = 0


class ServiceVolume(_Part, frozen=True, kw_only=True):
    type: str = ""  # volume, bind, tmpfs, npipe, cluster, image
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind: BindOptions | None = None
    volume: VolumeOptions | None = None
    tmpfs: TmpfsOptions | None = None
    image: ImageOptions | None = None


class Service(_Part, frozen=True, kw_only=True):
    profiles: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    attach: bool | None = None
    build: Build | None = None
    develop: dict[str, Any] | None = None  # for `docker compose watch` alone, nobody here reads it
    blkio_config: BlkioConfig | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroup_parent: str = ""
    cgroup: str = ""
    cpu_count: int = 0
    cpu_percent: float = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cpus: float = 0
    cpuset: str = ""
    cpu_shares: int = 0
    command: tuple[str, ...] | None = None  # (): clears the image's
    configs: tuple[FileReference, ...] = ()
    container_name: str = ""
    credential_spec: CredentialSpec | None = None
    depends_on: dict[str, ServiceDependency] = {}
    deploy: Deploy | None = None
    device_cgroup_rules: tuple[str, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    dns: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    domainname: str = ""
    entrypoint: tuple[str, ...] | None = None  # (): clears the image's
    environment: dict[str, str | None] = {}  # None: taken out of the image's environment
    expose: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # host=address
    group_add: tuple[str, ...] = ()
    gpus: tuple[DeviceRequest, ...] = ()
    hostname: str = ""
    healthcheck: HealthCheck | None = None
    image: str = ""
    init: bool | None = None
    ipc: str = ""
    isolation: str = ""
    labels: dict[str, str] = {}
    links: tuple[str, ...] = ()
    logging: Logging | None = None
    mem_limit: int = 0
    mem_reservation: int = 0
    memswap_limit: int = 0
    mem_swappiness: int = 0
    mac_address: str = ""
    network_mode: str = ""
    networks: dict[str, ServiceNetwork | None] = {}
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    pid: str = ""
    pids_limit: int = 0
    platform: str = ""
    ports: tuple[Port, ...] = ()
    privileged: bool = False
    pull_policy: str = ""
    read_only: bool = False
    restart: str = ""
    runtime: str = ""
    scale: int | None = None
    secrets: tuple[FileReference, ...] = ()
    security_opt: tuple[str, ...] = ()
    shm_size: int = 0
    stdin_open: bool = False
    stop_grace_period: str = ""
    stop_signal: str = ""
    storage_opt: dict[str, str] = {}
    sysctls: dict[str, str] = {}
    tmpfs: tuple[str, ...] = ()
    tty: bool = False
    ulimits: dict[str, int | Ulimit] = {}
    user: str = ""
    userns_mode: str = ""
    uts: str = ""
    volumes: tuple[ServiceVolume, ...] = ()
    volumes_from: tuple[str, ...] = ()
    working_dir: str = ""
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    models: Any = None  # refused, as are the two below
    provider: Any = None
    use_api_socket: bool = False
    pull_refresh_after: str = ""
    x_dom0: ServiceSettings | None = msgspec.field(name="x-dom0", default=None)

    @property
    def replicas(self) -> int:
        if self.scale is not None:
            return self.scale
        if self.deploy is not None and self.deploy.replicas is not None:
            return self.deploy.replicas
        return 1


class IpamPool(_Part, frozen=True, kw_only=True):
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: dict[str, str] = {}


class Ipam(_Part, frozen=True, kw_only=True):
    driver: str = ""
    config: tuple[IpamPool, ...] = ()


class Network(_Part, frozen=True, kw_only=True):
    name: str = ""  # in the Engine
    driver: str = ""
    driver_opts: dict[str, str] = {}
    ipam: Ipam | None = None
    external: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None


class Volume(_Part, frozen=True, kw_only=True):
    name: str = ""  # in the Engine
    driver: str = ""
    driver_opts: dict[str, str] = {}
    external: bool = False
    labels: dict[str, str] = {}


class FileObject(_Part, frozen=True, kw_only=True):
    """A config or secret of the project."""

    name: str = ""
    file: str = ""
    environment: str = ""  # name of a variable, its value is in Project.environment
    content: str = ""
    external: bool = False
    labels: dict[str, str] = {}
    driver: str = ""
    driver_opts: dict[str, str] = {}
    template_driver: str = ""


class Project(_Part, frozen=True, kw_only=True):
    name: str
    services: dict[str, Service] = {}
    networks: dict[str, Network] = {}
    volumes: dict[str, Volume] = {}
    configs: dict[str, FileObject] = {}
    secrets: dict[str, FileObject] = {}
    machine: MachineSettings | None = None  # top-level x-dom0

    disabled: tuple[str, ...] = ()  # services that a profile keeps out
    compose_hashes: dict[str, str] = {}  # service -> what `docker compose config --hash` prints for it
    compose_version: str = ""  # "2.26.1"
    working_dir: str = ""  # for Compose's labels, as are:
    config_files: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()  # all files that it was read from, relative to the project
    env_files: tuple[str, ...] = ()  # those of them that are no Compose files: .env, env and label files
    secret_files: tuple[str, ...] = ()  # as they are written, also of secrets that no service uses
    environment: dict[str, str] = {}  # values of the variables that configs and secrets name
    contents: dict[str, str] = {}  # text of the seccomp profiles, by the path as `security_opt` spells it
    keys: dict[str, str] = {}  # text of the public keys that images are signed with, by the path in `verify`
    digests: dict[str, str] = {}  # absolute path of a config, secret or bind-mounted project file -> sha256 of it
    warnings: tuple[str, ...] = ()  # for people; nothing is decided by them
    lines: dict[str, dict[str, int]] = {}  # for people: Compose file -> dotted key -> the line that it stands on
    extends: dict[str, dict[str, tuple[str, str]]] = {}  # as `lines`: see Locations

    @property
    def locations(self) -> Locations:
        return Locations(self.lines, self.extends)


def canonical(value: Any) -> bytes:
    """The one JSON of a value: keys sorted, defaults left out."""
    return msgspec.json.encode(without_defaults(value), order="sorted")


def without_defaults(value: Any) -> Any:
    """A value as dicts and lists; no field that equals its default is there.

    (`omit_defaults` alone leaves out what *is* the default, not what equals it: a 0.0 that was read stays.)
    """
    if isinstance(value, msgspec.Struct):
        return {
            key: without_defaults(item)
            for name, key, default in _fields(type(value))
            if (item := getattr(value, name)) != default
        }
    if isinstance(value, dict):
        return {key: without_defaults(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [without_defaults(item) for item in value]
    return value


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Name, key in JSON and default of each field. (msgspec evaluates every annotation anew for each call.)"""
    return tuple(
        (f.name, f.encode_name, f.default if f.default_factory is msgspec.NODEFAULT else f.default_factory())
        for f in msgspec.structs.fields(kind)
    )
