"""What a create body may ask for: a rule for each key that reaches beyond the container. Pure: a body in, a body out.

A rule returns the value as the Engine gets it, or refuses it with the field, the value and the smallest grant that
would allow it. Keys without a rule say what is inside the container only, and pass.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from dom0.engine import bodies
from dom0.names import ENGINE_SOCKET, ENGINE_SOCKET_INSIDE
from dom0.socketproxy import logs, paths, requests
from dom0.socketproxy.cgroup import PERIOD
from dom0.socketproxy.grants import CAPABILITIES, MOST_CPUS, Device, Grants, Ports, Subnet, is_within
from dom0.socketproxy.hostpath import normal
from dom0.socketproxy.paths import BoundPath
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, Refused, check_size, never, not_granted
from dom0.socketproxy.scope import Scope

ULIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc", "rss", "sigpending", "stack"),
)
"""No nice and rtprio: a process of real time, or before those of others, takes more than its group's share."""
NO_NEW_PRIVILEGES = ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true")
OWN_NAMESPACES = {
    "PidMode": ("",),
    "UTSMode": ("",),
    "IpcMode": ("", "private", "shareable", "none"),
    "UsernsMode": ("",),
    "CgroupnsMode": ("", "private"),
}
_PART = r"[a-zA-Z0-9_@:-]+"
SYSCTLS = re.compile(  # a dot in the name of a device is written as a slash
    rf"net\.{_PART}([./]{_PART})*|kernel\.(shm[a-z_]+|msg[a-z_]+|sem)|fs\.mqueue\.[a-z_]+"
)
TMPFS_OPTION = re.compile(
    r"(size|nr_blocks|nr_inodes|mode|uid|gid)=[0-9a-zA-Z]+%?|ro|rw|noexec|exec|nosuid|nodev|noatime"
)
SOCKETS = (ENGINE_SOCKET, ENGINE_SOCKET_INSIDE)
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
MOST_PORTS = 1_000  # of a container, its image's too: each is in lists
MOST_CHOSEN_PORTS = 20  # of a container: for each the host has a process
LARGEST_LISTED = 256 << 10  # bytes of JSON: what lists and events can say of a container
LARGEST_ENVIRONMENT = 256 << 10
LARGEST_NETWORK = 16 << 10
PORT = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?")


PASS = frozenset(
    {
        *("blkio_weight", "cpu_period", "cpu_quota", "cpu_shares", "cpuset_cpus", "cpuset_mems", "nano_cpus"),
        *("memory", "memory_reservation", "memory_swap", "pids_limit", "shm_size"),
        *("auto_remove", "cap_drop", "console_size", "group_add", "init", "readonly_rootfs", "restart_policy"),
        *("dns", "dns_options", "dns_search", "extra_hosts"),
    }
)
"""Keys of HostConfig that say what is inside the container only, or take something away."""
NEVER = frozenset(
    {
        *("blkio_device_read_bps", "blkio_device_read_iops", "blkio_device_write_bps", "blkio_device_write_iops"),
        *("blkio_weight_device", "device_cgroup_rules", "device_requests", "storage_opt"),
        *("annotations", "cgroup_parent", "masked_paths", "privileged", "readonly_paths"),
        *("cpu_count", "cpu_percent", "cpu_realtime_period", "cpu_realtime_runtime", "oom_kill_disable"),
    }
)
"""Those that are refused with any value. All others have a rule below."""
UNMASKED_BY_NONE = ("masked_paths", "readonly_paths")  # an empty list hides nothing of the host's /proc


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What the references of a body mean, by what was written: IDs of containers, names of networks and volumes in the
    Engine.
    """

    image: str
    image_labels: Mapping[str, str] = {}
    image_command: Sequence[str] = ()
    image_environment: Sequence[str] = ()  # and its health check
    image_ports: int = 0
    socket: str = ""  # the scope's own, in place of the Engine's
    cgroup_parent: str = ""  # of the scope
    containers: Mapping[str, str]
    named: Mapping[str, str]  # of the same, their names in the Engine
    networks: Mapping[str, str]
    volumes: Mapping[str, str]
    anonymous: Sequence[str] = ()  # targets of the volumes that nobody names


class References(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be looked up before a body can be judged."""

    containers: frozenset[str]
    networks: frozenset[str]
    volumes: frozenset[str]


def references(body: requests.Container) -> References:
    host = body.host_config
    modes = (host.network_mode, host.pid_mode, host.ipc_mode)
    shared = {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}
    volumes = {source.partition(":")[0] for source in host.volumes_from}
    endpoints = (body.networking_config or requests.Networking()).endpoints_config
    asked = [*host.links, *(link for endpoint in endpoints.values() for link in endpoint.links)]
    links = {link.partition(":")[0] for link in asked}
    networks = set(endpoints)
    if not host.network_mode.startswith("container:"):
        networks.add(host.network_mode)
    networks -= {"none", "host"}
    named = {bind.partition(":")[0] for bind in host.binds} | {
        m.source for m in host.mounts or () if m.type == "volume"
    }
    return References(
        containers=frozenset(shared | volumes | links),
        networks=frozenset(networks),
        volumes=frozenset(name for name in named if VOLUME_NAME.fullmatch(name)),
    )


def anonymous(body: requests.Container, image: Iterable[str], inherited: Iterable[str]) -> list[str]:
    """Targets of the volumes that the Engine would make without a name, and so without an owner.

    `image`: those that the image asks for; `inherited`: targets of volumes of other containers. Raises Refused.
    """
    host = body.host_config
    taken = {*inherited, *host.tmpfs, *(mount.target for mount in host.mounts or ())}
    taken |= {bind.split(":")[1] for bind in host.binds if ":" in bind}
    wanted = {*body.volumes, *image}
    if odd := sorted(target for target in wanted if not normal(target)):
        raise Refused(BAD_REQUEST, f"{odd[0]!r}: no path of a volume", field="Volumes")
    return sorted(set(map(normal, wanted)) - set(map(normal, taken)))


def container(
    body: requests.Container, scope: Scope, grants: Grants, resolved: Resolved, name: str
) -> requests.Container:
    """`body` as the Engine gets it. Raises Refused."""
    host = _host_config(body.host_config, scope, grants, resolved)
    written = {normal(asked.mount.target): asked.written for asked in host_mounts(body.host_config)}
    bound = body.host_config.port_bindings or {}
    exposed = len(set(body.exposed_ports) - set(bound)) + resolved.image_ports
    if exposed + sum(map(len, bound.values())) > MOST_PORTS:
        what = f"ExposedPorts: more than {MOST_PORTS}, with those that are published and its image's: expose fewer"
        raise Refused(BAD_REQUEST, what, field="ExposedPorts")
    for port in (*body.exposed_ports, *bound):
        if not PORT.fullmatch(port):
            raise Refused(BAD_REQUEST, f"{port}: no port", field="ExposedPorts")
    labels = scope.stamped_container(body.labels, resolved.image_labels, paths.stamped(body.labels, written))
    checked = replace(
        body,
        image=resolved.image,
        labels=labels,
        host_config=host,
        networking_config=_networking(body, scope, resolved, host.network_mode, name),
    )
    environment = (body.env, body.healthcheck, resolved.image_environment)
    remedy = "put what is so long into a file, in its image or a volume"
    check_size("Env and Healthcheck, of its image too", environment, LARGEST_ENVIRONMENT, remedy)
    listed = (replace(checked, env=(), healthcheck=None), resolved.image_command)
    check_size("the body, and its image's command", listed, LARGEST_LISTED, remedy)
    return checked


def execution(asked: requests.Exec) -> requests.Exec:
    """Raises Refused: an event says the whole command."""
    check_size("the exec", asked, LARGEST_LISTED, "put what is so long into a file")
    return asked


def _host_config(host: requests.HostConfig, scope: Scope, grants: Grants, resolved: Resolved) -> requests.HostConfig:
    _check_never(host, "HostConfig.")
    _check_values(host)
    _check_ports(host, grants)
    _check_cpus(host, grants, "HostConfig.")
    _check_devices(host, grants)
    return replace(
        host,
        binds=tuple(_bind(bind, resolved) for bind in host.binds if not _is_path(bind)),
        cap_add=tuple(_capability(name, grants) for name in host.cap_add),
        cgroup_parent=resolved.cgroup_parent,
        cgroupns_mode=_namespace("CgroupnsMode", host.cgroupns_mode, resolved) or "private",  # else, on cgroup v1, host
        ipc_mode=_namespace("IpcMode", host.ipc_mode, resolved),
        isolation="",
        links=(),
        log_config=logs.checked(host.log_config, scope),
        memory_swappiness=0,
        mounts=(
            # Clients ask for the Engine's socket by its usual path; what they get is the scope's. As a mount: a bind
            # would make a directory where the socket is missing. To read: its mode and owner stay.
            *(
                bodies.Mount(type="bind", source=resolved.socket, target=asked.mount.target, read_only=True)
                for asked in _asked(host)
                if asked.mount.source in SOCKETS
            ),
            *(_bound(asked, scope, grants) for asked in host_mounts(host)),
            *(_mount(mount, scope, resolved) for mount in host.mounts or () if mount.type != "bind"),
            *(_mount(bodies.Mount(type="volume", target=target), scope, resolved) for target in resolved.anonymous),
        ),
        network_mode=_network_mode(host.network_mode, resolved),
        pid_mode=_namespace("PidMode", host.pid_mode, resolved),
        runtime="",
        userns_mode=_namespace("UsernsMode", host.userns_mode, resolved),
        uts_mode=_namespace("UTSMode", host.uts_mode, resolved),
        volume_driver="",
        volumes_from=tuple(_volumes_from(source, resolved) for source in host.volumes_from),
    )


def _bind(bind: str, resolved: Resolved) -> str:
    """`volume:/target:options`, of a volume of the scope's."""
    source, _, rest = bind.partition(":")
    target, _, options = rest.partition(":")
    if not VOLUME_NAME.fullmatch(source) or not target.startswith("/"):
        raise Refused(BAD_REQUEST, f"{bind}: no volume and its target", field="HostConfig.Binds")
    kept = [option for option in options.split(",") if option not in ("", "z", "Z")]  # labels are the host's business
    if unknown := [option for option in kept if option not in ("ro", "rw", "nocopy", "rprivate")]:
        raise never("HostConfig.Binds", unknown[0])
    return ":".join((resolved.volumes[source], target, *([",".join(kept)] if kept else [])))


class HostMount(NamedTuple):
    """A path of the host that is asked for: in which field, as what was written there."""

    field: str
    written: str
    mount: bodies.Mount


def host_mounts(host: requests.HostConfig) -> list[HostMount]:
    """Without the Engine's socket. Raises Refused."""
    return [asked for asked in _asked(host) if asked.mount.source not in SOCKETS]


def _asked(host: requests.HostConfig) -> list[HostMount]:
    binds = [HostMount("HostConfig.Binds", bind, _read_bind(bind)) for bind in host.binds if _is_path(bind)]
    mounts = [mount for mount in host.mounts or () if mount.type == "bind"]
    return [*binds, *(HostMount("HostConfig.Mounts", mount.source, mount) for mount in mounts)]


def _is_path(bind: str) -> bool:
    return ":" not in bind or bind.startswith(("/", ".", "~"))


def _read_bind(bind: str) -> bodies.Mount:
    """`/source:/target:options`. A source that is not there becomes a directory."""
    source, _, rest = bind.partition(":")
    target, _, options = rest.partition(":")
    for option in options.split(","):
        if option not in ("", "ro", "rw", "z", "Z", "rprivate", "cached", "consistent", "delegated"):
            raise never("HostConfig.Binds", option)
    creates = bodies.BindOptions(create_mountpoint=True)
    return bodies.Mount(
        type="bind", source=source, target=target, read_only="ro" in options.split(","), bind_options=creates
    )


def bound(asked: HostMount, grants: Grants) -> BoundPath:
    """Raises Refused for what was not granted."""
    source, options = asked.mount.source, asked.mount.bind_options or bodies.BindOptions()
    path = normal(source)
    if not path or not asked.mount.target.startswith("/"):
        raise Refused(BAD_REQUEST, f"{asked.written}: no path of the host and its target", field=asked.field)
    found = paths.find(grants.host_paths, path, creates=options.create_mountpoint)
    if found is None:
        try:
            grant = Grants(paths=(f"{path}:ro" if asked.mount.read_only else path,))
        except ValueError:  # it has something of the whole machine in it
            raise never(asked.field, source) from None
        raise not_granted(asked.field, source, grant)
    if options.propagation not in ("", "rprivate"):
        raise never(f"{asked.field}.BindOptions.Propagation", options.propagation)
    if options.read_only_non_recursive and found.read_only:
        raise never(f"{asked.field}.BindOptions.ReadOnlyNonRecursive", True)
    return found


def _bound(asked: HostMount, scope: Scope, grants: Grants) -> bodies.Mount:
    """The granted path as it is, what is below it as a part of a volume; `paths` says why."""
    found = bound(asked, grants)
    mount = replace(asked.mount, read_only=asked.mount.read_only or found.read_only, consistency="")
    if found.is_host_path:
        options = replace(mount.bind_options or bodies.BindOptions(), create_mountpoint=found.creates)
        return replace(mount, source=found.root, bind_options=options, volume_options=None)
    part = bodies.VolumeOptions(no_copy=True, subpath=found.rest)
    return replace(mount, type="volume", source=paths.volume(scope, found.root), bind_options=None, volume_options=part)


def _mount(mount: bodies.Mount, scope: Scope, resolved: Resolved) -> bodies.Mount:
    if mount.type not in ("volume", "tmpfs"):
        raise never("HostConfig.Mounts.Type", mount.type)
    if mount.type == "tmpfs":
        return replace(mount, bind_options=None, volume_options=None, source="")
    if mount.source and not VOLUME_NAME.fullmatch(mount.source):
        raise Refused(BAD_REQUEST, f"{mount.source}: no name of a volume", field="HostConfig.Mounts")
    options = mount.volume_options or bodies.VolumeOptions()
    options = replace(options, labels=scope.stamped(options.labels))
    source = resolved.volumes[mount.source] if mount.source else ""
    return replace(mount, source=source, volume_options=options, bind_options=None)


def update(asked: requests.Update, grants: Grants) -> requests.Update:
    _check_never(asked, "")
    _check_cpus(asked, grants, "")
    return asked


def _check_never(asked: requests.HostConfig | requests.Update, where: str) -> None:
    for field in msgspec.structs.fields(asked):
        value = getattr(asked, field.name)
        if field.name in NEVER and (value or (field.name in UNMASKED_BY_NONE and value is not None)):
            raise never(f"{where}{field.encode_name}", value)


def _check_values(host: requests.HostConfig) -> None:
    too_much: dict[str, Sequence[object]] = {
        "Isolation": [host.isolation] if host.isolation not in ("", "default") else [],
        "MemorySwappiness": [host.memory_swappiness] if host.memory_swappiness not in (0, -1) else [],
        "OomScoreAdj": [host.oom_score_adj] if host.oom_score_adj < 0 else [],
        "Runtime": [host.runtime] if host.runtime not in ("", "runc") else [],
        "SecurityOpt": [option for option in host.security_opt if option not in NO_NEW_PRIVILEGES],
        "Sysctls": [key for key in host.sysctls if not SYSCTLS.fullmatch(key)],
        "Ulimits": [limit.name for limit in host.ulimits if limit.name not in ULIMITS],
        "VolumeDriver": [host.volume_driver] if host.volume_driver not in ("", "local") else [],
        "Tmpfs": [
            text
            for text in host.tmpfs.values()
            if not all(TMPFS_OPTION.fullmatch(option) for option in text.split(",") if option)
        ],
    }
    for key, values in too_much.items():
        if values:
            raise never(f"HostConfig.{key}", values[0])


def _check_ports(host: requests.HostConfig, grants: Grants) -> None:
    if host.publish_all_ports:
        raise never("HostConfig.PublishAllPorts", True)
    for port, bindings in (host.port_bindings or {}).items():
        protocol = port.partition("/")[2] or "tcp"
        for binding in bindings:
            address = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
            wanted = f"{address and f'{address}:'}{binding.host_port or 0}/{protocol}"
            try:
                asked = Ports.read(wanted)
            except ValueError:
                raise never("HostConfig.PortBindings", f"{port} at {wanted}") from None
            if not grants.may_publish(asked):
                raise not_granted("HostConfig.PortBindings", wanted, Grants(ports=(wanted,)))
    if (chosen := chosen_ports(host.port_bindings)) > MOST_CHOSEN_PORTS:
        what = (
            f"HostConfig.PortBindings: {chosen} ports that the Engine chooses, of {MOST_CHOSEN_PORTS} in one container"
        )
        raise Refused(FORBIDDEN, f"{what}: publish fewer, or say which", field="HostConfig.PortBindings")


def chosen_ports(port_bindings: Mapping[str, Any] | None) -> int:
    """How many of them the Engine chooses. As in a body, or as the Engine inspects them."""
    bound = [one for bindings in (port_bindings or {}).values() for one in bindings or ()]
    ports = [one.host_port if isinstance(one, bodies.PortBinding) else one["HostPort"] for one in bound]
    return sum(not port.strip("0-") for port in ports)


def _check_cpus(asked: requests.HostConfig | requests.Update, grants: Grants, where: str) -> None:
    """Control groups of version 1 have none with more than the one that it is in."""
    quota = asked.cpu_quota / (asked.cpu_period or PERIOD)
    for key, wanted in (("NanoCpus", asked.nano_cpus / 1e9), ("CpuQuota", quota)):
        if grants.cpus is not None and wanted > grants.cpus:
            raise not_granted(f"{where}{key}", wanted, Grants(cpus=min(wanted, MOST_CPUS)))


def _check_devices(host: requests.HostConfig, grants: Grants) -> None:
    for device in host.devices:
        wanted = f"{device.path_on_host}:{device.cgroup_permissions or 'rwm'}".removesuffix(":rwm")
        try:
            asked = Device.read(wanted)
        except ValueError:
            raise never("HostConfig.Devices", wanted) from None
        if not grants.may_have(asked):
            raise not_granted("HostConfig.Devices", wanted, Grants(devices=(wanted,)))


def _capability(name: str, grants: Grants) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain not in CAPABILITIES:
        raise never("HostConfig.CapAdd", name)
    if plain not in grants.capabilities:
        raise not_granted("HostConfig.CapAdd", name, Grants(capabilities=(plain,)))
    return plain


def _namespace(key: str, value: str, resolved: Resolved) -> str:
    if value.startswith("container:") and key in ("PidMode", "IpcMode"):
        return f"container:{resolved.containers[value.removeprefix('container:')]}"
    if value not in OWN_NAMESPACES[key]:
        raise never(f"HostConfig.{key}", value)
    return value


def _network_mode(mode: str, resolved: Resolved) -> str:
    if mode == "none":
        return mode
    if mode == "host":
        raise never("HostConfig.NetworkMode", mode)
    if mode.startswith("container:"):
        return f"container:{resolved.containers[mode.removeprefix('container:')]}"
    return resolved.networks[mode]


def _volumes_from(source: str, resolved: Resolved) -> str:
    name, _, mode = source.partition(":")
    if mode not in ("", "ro", "rw"):
        raise never("HostConfig.VolumesFrom", source)
    return f"{resolved.named[name]}:{mode}" if mode else resolved.named[name]


def _networking(
    body: requests.Container, scope: Scope, resolved: Resolved, mode: str, name: str
) -> requests.Networking:
    """On its own networks a container has the name that the scope calls it."""
    asked = (body.networking_config or requests.Networking()).endpoints_config
    if "host" in asked:
        raise never("NetworkingConfig.EndpointsConfig", "host")
    if mode == "none" or mode.startswith("container:"):
        if set(asked) - {"none"}:
            raise never("NetworkingConfig.EndpointsConfig", sorted(asked))
        return requests.Networking()
    endpoints = {resolved.networks[key]: endpoint for key, endpoint in asked.items() if key != "none"}
    primary = endpoints.get(mode, bodies.EndpointSettings())
    endpoints[mode] = replace(primary, links=(*primary.links, *body.host_config.links))
    for network in endpoints:
        if not scope.owns_name(network):
            check_nameless(network, hostname=body.hostname, mac_address=body.mac_address)
    return requests.Networking(
        endpoints_config={
            network: endpoint_of(endpoint, resolved, name if scope.owns_name(network) else "")
            for network, endpoint in endpoints.items()
        }
    )


def check_nameless(network: str, *, hostname: str, mac_address: str = "") -> None:
    """On a `network` of others nobody's name or address can be taken over: the Engine's DNS answers to hostnames too.

    Raises Refused.
    """
    for key, value in {"Hostname": hostname, "MacAddress": mac_address}.items():
        if value:
            what = f"{key}: {value!r}: not on {network}, which is not only this scope's: leave out the one or the other"
            raise Refused(FORBIDDEN, what, field=key, value=value)


def endpoint_of(endpoint: bodies.EndpointSettings, resolved: Resolved, name: str) -> bodies.EndpointSettings:
    """Of a network of the scope's, for a container that it calls `name`; "": of somebody else's network.

    There it has the name that the Engine gives it, and the address.
    """
    if endpoint.driver_opts:
        raise never("EndpointsConfig.DriverOpts", endpoint.driver_opts)
    if not name and (endpoint.mac_address or endpoint.ipam_config not in (None, bodies.EndpointIpamConfig())):
        raise never("EndpointsConfig.IPAMConfig", "an address of one's own on a network that others have too")
    return replace(
        endpoint,
        aliases=tuple(dict.fromkeys((*endpoint.aliases, name))) if name else (),
        # By name, as DNS knows no IDs; with an alias in any case: else it would be the name in the Engine.
        links=tuple(
            f"{resolved.named[other]}:{alias or other}"
            for other, _, alias in (link.partition(":") for link in endpoint.links)
        ),
    )


NETWORK_OPTIONS = (
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.driver.mtu",
)


def network(asked: requests.Network, scope: Scope, grants: Grants) -> requests.Network:
    """A bridge of the scope's. Addresses that were not granted may be somebody's on this host."""
    if asked.driver not in ("", "bridge"):
        raise never("Driver", asked.driver)
    if asked.scope not in ("", "local"):
        raise never("Scope", asked.scope)
    for option in asked.options:
        if option not in NETWORK_OPTIONS:
            raise never("Options", option)
    if asked.ipam is not None and (asked.ipam.driver not in ("", "default") or asked.ipam.options):
        raise never("IPAM.Driver", asked.ipam.driver)
    pools = () if asked.ipam is None else tuple(pool for pool in asked.ipam.config if pool != bodies.IpamPool())
    for pool in pools:
        _check_pool(pool, grants)
    made = replace(
        asked,
        check_duplicate=True,
        ipam=requests.Ipam(config=pools) if pools else None,
        labels=scope.stamped(asked.labels),
        name=scope.long(asked.name),
        scope="",
    )
    check_size("the network", made, LARGEST_NETWORK, "ask for less in one network")
    return made


def _check_pool(pool: bodies.IpamPool, grants: Grants) -> None:
    try:
        subnet = ipaddress.ip_network(pool.subnet)
        inner: list[Subnet] = [ipaddress.ip_network(pool.ip_range)] if pool.ip_range else []
        inner += [ipaddress.ip_network(text) for text in (pool.gateway, *pool.auxiliary_addresses.values()) if text]
    except ValueError as error:
        raise Refused(BAD_REQUEST, f"IPAM.Config: {error}", field="IPAM.Config") from error
    if not grants.may_take(subnet):
        raise not_granted("IPAM.Config.Subnet", pool.subnet, Grants(subnets=(pool.subnet,)))
    for addresses in inner:
        if not is_within(addresses, subnet):
            raise Refused(BAD_REQUEST, f"IPAM.Config: {addresses} is not in {subnet}", field="IPAM.Config")


def volume(asked: bodies.VolumeBody, scope: Scope) -> bodies.VolumeBody:
    if asked.driver not in ("", "local"):
        raise never("Driver", asked.driver)
    if asked.driver_opts:  # any directory of the host can be one
        raise never("DriverOpts", asked.driver_opts)
    name = scope.long(asked.name) if asked.name else ""  # the Engine's choice: 64 letters of an ID
    return replace(asked, labels=scope.stamped(asked.labels), name=name)
