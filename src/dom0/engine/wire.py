"""The parts of the Engine's JSON that are read, spelled as the Engine does. Types only; `parse` makes values of them.

Go writes `null` for an empty list or map, so every one of them may be None here. Field names: Docker Engine API 1.41 to
1.51, seen on Engine 26.1 and 28.5.

Annotations are not postponed, as in `engine/bodies`.
"""

from typing import Any

import msgspec

from dom0.engine.values import Health, State


class Wire(msgspec.Struct, rename="pascal"):
    """A part of an answer, spelled as the Engine does."""


class Created(Wire):
    id: str


class Message(Wire):
    message: str = ""


class Waited(Wire):
    status_code: int
    error: Message | None = None


class ExecState(Wire):
    running: bool
    exit_code: int | None = None


class Tty(Wire):
    tty: bool = False


class Terminal(Wire):
    """Of `GET /containers/{id}/json`: whether its log has frames."""

    config: Tty


class Top(Wire):
    titles: list[str] | None = None
    processes: list[list[str]] | None = None


class MemoryStats(msgspec.Struct, frozen=True):
    usage: int = 0
    stats: dict[str, int] | None = None


class CpuUsage(msgspec.Struct, frozen=True):
    total_usage: int = 0  # nanoseconds


class CpuStats(msgspec.Struct, frozen=True):
    cpu_usage: CpuUsage = CpuUsage()


class NetworkStats(msgspec.Struct, frozen=True):
    rx_bytes: int = 0
    tx_bytes: int = 0


class Stats(msgspec.Struct, frozen=True):
    read: str = ""
    memory_stats: MemoryStats = MemoryStats()
    cpu_stats: CpuStats = CpuStats()
    networks: dict[str, NetworkStats] | None = None


class ErrorResponse(msgspec.Struct):
    message: str


class Probe(Wire):
    output: str = ""


class HealthDetail(Wire):
    status: Health | None = None
    log: list[Probe] | None = None


class StateDetail(Wire):
    status: State
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = msgspec.field(name="OOMKilled", default=False)
    pid: int = 0
    health: HealthDetail | None = None


class HostPort(Wire):
    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Wire):
    name: str = ""
    maximum_retry_count: int = 0


class HostConfig(Wire):
    blkio_weight: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_realtime_period: int | None = None
    cpu_realtime_runtime: int | None = None
    cpu_shares: int | None = None
    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    nano_cpus: int | None = None
    pids_limit: int | None = None
    network_mode: str = ""
    ipc_mode: str = ""
    pid_mode: str = ""
    volumes_from: list[str] | None = None
    port_bindings: dict[str, list[HostPort] | None] | None = None
    restart_policy: RestartPolicy | None = None
    tmpfs: dict[str, str] | None = None


class Mount(Wire):
    type: str
    destination: str
    source: str = ""
    name: str = ""
    rw: bool = msgspec.field(name="RW", default=True)


class Config(Wire):
    image: str = ""
    labels: dict[str, str] | None = None
    stop_timeout: int | None = None


class Endpoint(Wire):
    network_id: str = msgspec.field(name="NetworkID", default="")
    aliases: list[str] | None = None
    ip_address: str = msgspec.field(name="IPAddress", default="")
    global_ipv6_address: str = msgspec.field(name="GlobalIPv6Address", default="")


class NetworkSettings(Wire):
    networks: dict[str, Endpoint | None] | None = None


class Container(Wire):
    id: str
    name: str
    image: str
    created: str
    state: StateDetail
    config: Config
    host_config: HostConfig
    restart_count: int = 0
    network_settings: NetworkSettings | None = None
    mounts: list[Mount] | None = None


class ListedPort(Wire):
    ip: str = msgspec.field(name="IP", default="")
    public_port: int = 0  # 0: exposed only
    type: str = "tcp"


class Row(Wire):
    id: str
    image_id: str = msgspec.field(name="ImageID")
    state: State
    names: list[str] | None = None
    labels: dict[str, str] | None = None
    mounts: list[Mount] | None = None
    ports: list[ListedPort] | None = None


class Network(Wire):
    id: str
    name: str
    driver: str
    created: str = ""
    labels: dict[str, str] | None = None
    containers: dict[str, Any] | None = None  # by ID; lists leave it out


class Volume(Wire):
    name: str
    driver: str
    labels: dict[str, str] | None = None
    mountpoint: str = ""
    options: dict[str, str] | None = None
    created_at: str = ""


class Volumes(Wire):
    volumes: list[Volume] | None = None


class ImageRow(Wire):
    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    labels: dict[str, str] | None = None
    created: int = 0
    size: int = 0


class HealthConfig(Wire):
    test: list[str] | None = None


class ImageConfig(Wire):
    labels: dict[str, str] | None = None
    volumes: dict[str, Any] | None = None
    env: list[str] | None = None
    user: str = ""
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    healthcheck: HealthConfig | None = None


class RootFS(Wire):
    layers: list[str] | None = None


class Image(Wire):
    id: str
    repo_tags: list[str] | None = None
    repo_digests: list[str] | None = None
    created: str | None = None
    size: int = 0
    config: ImageConfig | None = None
    root_fs: RootFS | None = msgspec.field(name="RootFS", default=None)


class Swarm(Wire):
    local_node_state: str = ""


class IndexConfig(Wire):
    secure: bool = True


class RegistryConfig(Wire):
    insecure_registry_cidrs: list[str] | None = msgspec.field(name="InsecureRegistryCIDRs", default=None)
    index_configs: dict[str, IndexConfig] | None = None
    mirrors: list[str] | None = None


class Info(Wire):
    id: str = msgspec.field(name="ID")
    name: str
    server_version: str
    ncpu: int = msgspec.field(name="NCPU")
    mem_total: int
    driver: str
    docker_root_dir: str
    operating_system: str
    architecture: str = ""
    driver_status: list[list[str]] | None = None
    cgroup_driver: str = "cgroupfs"
    labels: list[str] | None = None
    cgroup_version: str = "1"
    registry_config: RegistryConfig | None = None
    swarm: Swarm | None = None


class Actor(Wire):
    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] | None = None


class Event(Wire):
    type: str = msgspec.field(name="Type")
    action: str = msgspec.field(name="Action")
    time_nano: int = msgspec.field(name="timeNano")
    actor: Actor | None = None


class ErrorDetail(msgspec.Struct):
    message: str = ""


class StreamLine(msgspec.Struct, rename="camel"):
    """Of a pull, build or load. `error` repeats what `errorDetail` says, and is deprecated since API 1.48."""

    error: str = ""
    error_detail: ErrorDetail | None = None

    @property
    def failure(self) -> str:
        return (self.error_detail.message if self.error_detail else "") or self.error


class PullDetail(msgspec.Struct):
    current: int = 0
    total: int = 0


class BuiltImage(msgspec.Struct):
    id: str = msgspec.field(default="", name="ID")


class BuildLine(StreamLine, rename="camel"):
    """What BuildKit does is text in `aux`, protobuf in base64; the last line but one says what it made."""

    aux: BuiltImage | str | None = None


class LoadLine(StreamLine, rename="camel"):
    stream: str = ""  # words for people


class PullLine(StreamLine, rename="camel"):
    id: str = ""
    status: str = ""
    progress_detail: PullDetail | None = None
