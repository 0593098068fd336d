"""The Engine's JSON → values. Pure: unknown keys are ignored, wrong types are refused with their place."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from dom0.engine import resources, wire
from dom0.engine.values import (
    Container,
    ContainerSummary,
    Endpoint,
    EngineInfo,
    Event,
    Health,
    Image,
    Mount,
    Network,
    PublishedPort,
    PullProgress,
    Usage,
    Volume,
)
from dom0.errors import EngineError
from dom0.printable import printable

T = TypeVar("T")

_CONTAINERD_STORE = ["driver-type", "io.containerd.snapshotter.v1"]
_STOP_GRACE = 10.0  # seconds, the Engine's default
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(data: bytes, kind: type[T], where: str) -> T:
    """Read one JSON document. Raises EngineError, naming `where`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except _UNREADABLE as error:
        raise EngineError(f"{where}: the Engine's answer makes no sense: {error}") from error


def container(data: bytes, where: str) -> Container:
    """Read `GET /containers/{id}/json`."""
    found = decode(data, wire.Container, where)
    host = found.host_config
    policy = host.restart_policy or wire.RestartPolicy()
    health = found.state.health or wire.HealthDetail()
    probes = health.log or []
    networks = found.network_settings.networks or {} if found.network_settings else {}
    published = _published(host.port_bindings or {}, where)
    return Container(
        id=found.id,
        name=found.name.removeprefix("/"),
        image_id=found.image,
        image=found.config.image,
        labels=found.config.labels or {},
        state=found.state.status,
        created=_epoch(found.created, where),
        started=_epoch(found.state.started_at, where),
        finished=_epoch(found.state.finished_at, where),
        exit_code=found.state.exit_code,
        error=one_line(found.state.error),
        oom_killed=found.state.oom_killed,
        pid=found.state.pid,
        health=health.status or Health.NONE,
        health_output=printable(probes[-1].output.replace("\r", " "), keep="\n\t") if probes else "",
        restart_count=found.restart_count,
        restart_policy=policy.name or "no",
        restart_retries=policy.maximum_retry_count,
        stop_grace=_STOP_GRACE if found.config.stop_timeout is None else float(found.config.stop_timeout),
        resources=resources.updatable(host),
        network_mode=host.network_mode,
        ipc_mode=host.ipc_mode,
        pid_mode=host.pid_mode,
        volumes_from=tuple(host.volumes_from or ()),
        endpoints=tuple(
            Endpoint(
                network=name,
                network_id=endpoint.network_id,
                aliases=tuple(endpoint.aliases or ()),
                ip_address=endpoint.ip_address,
                ipv6_address=endpoint.global_ipv6_address,
            )
            for name, endpoint in sorted(networks.items())
            if endpoint is not None
        ),
        mounts=_mounts(found.mounts or [], host.tmpfs or {}),
        ports=tuple(sorted({port for ports in published.values() for port in ports})),
        published=published,
    )


def containers(data: bytes, where: str) -> tuple[ContainerSummary, ...]:
    """Read `GET /containers/json`."""
    return tuple(
        ContainerSummary(
            id=row.id,
            # One that others link to has names like `/other/alias` too.
            name=next((name[1:] for name in row.names or [] if name.rfind("/") == 0), ""),
            image_id=row.image_id,
            state=row.state,
            labels=row.labels or {},
            mounts=_mounts(row.mounts or [], {}),
            ports=_held(row.ports or []),
        )
        for row in decode(data, list[wire.Row], where)
    )


def _held(ports: list[wire.ListedPort]) -> tuple[PublishedPort, ...]:
    """Those of the host, each once: the Engine lists both families."""
    return tuple(sorted({PublishedPort.at(port.type, port.public_port, port.ip) for port in ports if port.public_port}))


def top(data: bytes, where: str) -> tuple[str, ...]:
    """Read `GET /containers/{id}/top?ps_args=-eo pid,args`."""
    found = decode(data, wire.Top, where)
    return tuple(row[-1] for row in found.processes or () if row)


def usage(data: bytes, where: str) -> Usage:
    """Read `GET /containers/{id}/stats?stream=0&one-shot=1`."""
    found = decode(data, wire.Stats, where)
    counted, networks = found.memory_stats.stats or {}, (found.networks or {}).values()
    droppable = counted.get("total_inactive_file", counted.get("inactive_file", 0))  # control groups version 1, 2
    return Usage(
        read=_epoch(found.read, where),
        memory=max(0, found.memory_stats.usage - droppable),
        processor=found.cpu_stats.cpu_usage.total_usage / 1e9,
        received=sum(network.rx_bytes for network in networks),
        sent=sum(network.tx_bytes for network in networks),
    )


def networks(data: bytes, where: str) -> tuple[Network, ...]:
    return tuple(_network(found, where) for found in decode(data, list[wire.Network], where))


def network(data: bytes, where: str) -> Network:
    return _network(decode(data, wire.Network, where), where)


def volumes(data: bytes, where: str) -> tuple[Volume, ...]:
    return tuple(_volume(found, where) for found in decode(data, wire.Volumes, where).volumes or ())


def volume(data: bytes, where: str) -> Volume:
    return _volume(decode(data, wire.Volume, where), where)


def images(data: bytes, where: str) -> tuple[Image, ...]:
    """Read `GET /images/json`."""
    return tuple(
        Image(
            id=row.id,
            tags=_names(row.repo_tags),
            digests=_names(row.repo_digests),
            labels=row.labels or {},
            created=float(row.created),
            size=row.size,
        )
        for row in decode(data, list[wire.ImageRow], where)
    )


def image(data: bytes, where: str) -> Image:
    """Read `GET /images/{name}/json`."""
    found = decode(data, wire.Image, where)
    config = found.config or wire.ImageConfig()
    test = tuple((config.healthcheck or wire.HealthConfig()).test or ())
    return Image(
        id=found.id,
        tags=_names(found.repo_tags),
        digests=_names(found.repo_digests),
        labels=config.labels or {},
        created=_epoch(found.created or "", where),
        size=found.size,
        layers=tuple((found.root_fs or wire.RootFS()).layers or ()),
        volumes=tuple(sorted(config.volumes or {})),
        env=tuple(config.env or ()),
        user=config.user,
        cmd=tuple(config.cmd or ()),
        entrypoint=tuple(config.entrypoint or ()),
        has_healthcheck=bool(test) and test[0] != "NONE",
        healthcheck_test=test,
    )


def info(data: bytes, api_version: str, where: str) -> EngineInfo:
    found = decode(data, wire.Info, where)
    registries = found.registry_config or wire.RegistryConfig()
    insecure = sorted(host for host, index in (registries.index_configs or {}).items() if not index.secure)
    return EngineInfo(
        id=found.id,
        name=found.name,
        version=found.server_version,
        api_version=api_version,
        cpus=found.ncpu,
        memory=found.mem_total,
        storage_driver=found.driver,
        root_dir=found.docker_root_dir,
        cgroup_version=found.cgroup_version,
        cgroup_driver=found.cgroup_driver,
        labels=tuple(found.labels or ()),
        operating_system=found.operating_system,
        machine=found.architecture,
        insecure_registries=(*insecure, *(registries.insecure_registry_cidrs or ())),
        mirrors=tuple(registries.mirrors or ()),
        swarm_active=found.swarm is not None and found.swarm.local_node_state == "active",
        containerd_store=_CONTAINERD_STORE in (found.driver_status or ()),
    )


def event(line: bytes, where: str) -> Event:
    found = decode(line, wire.Event, where)
    actor = found.actor or wire.Actor()
    return Event(
        type=found.type,
        action=found.action,
        id=actor.id,
        attributes=actor.attributes or {},
        time=found.time_nano / 1e9,
    )


def pull_progress(line: bytes, where: str) -> PullProgress:
    """Read one line of `POST /images/create`. Raises EngineError for an error in it."""
    found = decode(line, wire.PullLine, where)
    if found.failure:
        raise pull_refusal(where, found.failure)
    detail = found.progress_detail or wire.PullDetail()
    return PullProgress(
        layer=one_line(found.id), status=one_line(found.status), current=detail.current, total=detail.total
    )


def built_image(line: bytes, where: str) -> str:
    """The image's ID from a line of `POST /build`, "" if it is not in this one. Raises EngineError for an error."""
    found = decode(line, wire.BuildLine, where)
    if found.failure:
        raise EngineError(f"{where}: the build failed: {one_line(found.failure)}")
    return found.aux.id if isinstance(found.aux, wire.BuiltImage) else ""


_NOT_UNPACKED = "Error unpacking image "  # containerd's store says so in passing; seen on 28.5


def loaded(line: bytes, where: str) -> None:
    """Of `POST /images/load`. Raises EngineError for an error, which comes after a 200 too."""
    found = decode(line, wire.LoadLine, where)
    if failure := found.failure or (found.stream if found.stream.startswith(_NOT_UNPACKED) else ""):
        raise EngineError(f"{where}: the Docker Engine does not take it: {one_line(failure)}")


PULL_HINT = "check the name of the image and, if its registry wants one, the login"
_PERMANENT = (
    "not found",
    "denied",
    "unauthorized",
    "manifest unknown",
    "no matching manifest",
    "invalid reference",
    "authentication required",
    "no basic auth credentials",
    "no such host",
)


def pull_refusal(where: str, message: str) -> EngineError:
    """Tell a pull that will never succeed from a passing failure, by the Engine's and the registries' words."""
    lowered = message.lower()
    permanent = any(words in lowered for words in _PERMANENT)
    hint = PULL_HINT if permanent else ""
    return EngineError(f"{where}: {one_line(message)}", hint=hint, transient=not permanent)


def refusal_message(data: bytes) -> str:
    """The Engine's own words in the body of an error, on one line and without control characters."""
    try:
        message = msgspec.json.decode(data, type=wire.ErrorResponse).message
    except _UNREADABLE:
        message = data[:1000].decode(errors="replace")
    return one_line(message.strip())


def one_line(text: str) -> str:
    """As a terminal may get it, with a space for each end of a line."""
    return printable(text.translate({ord(end): " " for end in "\r\n\t"}))


def _epoch(text: str, where: str) -> float:
    """RFC 3339 → seconds; the Engine writes the year 1, or nothing, for never."""
    if not text:
        return 0.0
    try:
        when = msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise EngineError(f"{where}: the Engine's answer makes no sense: time {one_line(text)!r}") from error
    return max(0.0, when.timestamp()) if when.tzinfo and when.year > 1 else 0.0


def _names(names: list[str] | None) -> tuple[str, ...]:
    """Before API 1.43 an image without names is called `<none>:<none>`."""
    return tuple(name for name in names or () if not name.startswith("<none>"))


def _mounts(listed: list[wire.Mount], tmpfs: dict[str, str]) -> tuple[Mount, ...]:
    """The Engine lists a tmpfs in `Mounts` only when it was asked for there, not in `HostConfig.Tmpfs`."""
    mounts = {
        found.destination: Mount(
            type=found.type, target=found.destination, source=found.source, name=found.name, writable=found.rw
        )
        for found in listed
    }
    for target in tmpfs:
        mounts.setdefault(target, Mount(type="tmpfs", target=target))
    return tuple(mounts[target] for target in sorted(mounts))


def _published(bindings: dict[str, list[wire.HostPort] | None], where: str) -> dict[str, tuple[PublishedPort, ...]]:
    """Fixed host ports only: one that the Engine chooses (none, 0, or from a range) takes nothing from others."""
    found = {}
    for key, hosts in bindings.items():
        ports = set()
        protocol = key.partition("/")[2] or "tcp"
        for host in hosts or ():
            if host.host_port in ("", "0") or "-" in host.host_port:
                continue
            if not (host.host_port.isascii() and host.host_port.isdigit()) or int(host.host_port) > 65535:
                raise EngineError(f"{where}: the Engine's answer makes no sense: port {one_line(host.host_port)!r}")
            ports.add(PublishedPort.at(protocol, int(host.host_port), host.host_ip))
        if ports:
            found[key] = tuple(sorted(ports))
    return found


def _network(found: wire.Network, where: str) -> Network:
    return Network(
        id=found.id,
        name=found.name,
        driver=found.driver,
        labels=found.labels or {},
        created=_epoch(found.created, where),
    )


def _volume(found: wire.Volume, where: str) -> Volume:
    return Volume(
        name=found.name,
        driver=found.driver,
        labels=found.labels or {},
        mountpoint=found.mountpoint,
        options=found.options or {},
        created=_epoch(found.created_at, where),
    )
