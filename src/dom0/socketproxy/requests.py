"""The bodies that clients send, closed: the keys that dom0 writes (`engine.bodies`), and those that others add.

What real clients send was recorded; a key that is not here is refused when it has a value. What a key may say is
decided in `rules`.
"""

from msgspec import Struct, field

from dom0.engine import bodies
from dom0.engine.bodies import Body

# No `from __future__ import annotations`, as in engine.bodies: the first body would be decoded in three times the time.


class LogConfig(bodies.LogConfig, frozen=True, kw_only=True):
    type: str = ""
    config: dict[str, str] = field(default_factory=dict)


class HostConfig(bodies.HostConfig, frozen=True, kw_only=True):
    auto_remove: bool = False
    console_size: tuple[int, ...] = ()
    cpuset_mems: str = ""
    log_config: LogConfig | None = None
    publish_all_ports: bool = False
    volume_driver: str = ""


class Networking(bodies.NetworkingConfig, frozen=True, kw_only=True):
    endpoints_config: dict[str, bodies.EndpointSettings] = field(default_factory=dict)


class Container(bodies.ContainerBody, frozen=True, kw_only=True):
    args_escaped: bool = False
    attach_stdin: bool = False
    host_config: HostConfig = HostConfig()
    mac_address: str = ""
    networking_config: Networking | None = None
    shell: tuple[str, ...] = ()
    stdin_once: bool = False


class Update(bodies.UpdateBody, frozen=True, kw_only=True):
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


class Budget(Body, frozen=True, kw_only=True):
    """Of a scope inside, for all of its containers together; 0 is not limited."""

    scope: str = ""  # its path: /team
    containers: dict[str, int] = field(default_factory=dict)  # granted to those around it, by their paths
    memory: int = 0  # bytes
    nano_cpus: int = 0
    pids_limit: int = 0


class Exec(Body, frozen=True, kw_only=True):
    attach_stderr: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    cmd: tuple[str, ...] = ()
    console_size: tuple[int, ...] = ()
    detach: bool = False
    detach_keys: str = ""
    env: tuple[str, ...] = ()
    tty: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStart(Body, frozen=True, kw_only=True):
    console_size: tuple[int, ...] = ()
    detach: bool = False
    tty: bool = False


class RegistryAuth(Body, frozen=True, kw_only=True, rename="lower"):
    """The header X-Registry-Auth: base64 of this."""

    auth: str = ""
    email: str = ""
    identitytoken: str = ""
    password: str = ""
    registrytoken: str = ""
    serveraddress: str = ""
    username: str = ""


class Ipam(bodies.Ipam, frozen=True, kw_only=True):
    options: dict[str, str] = field(default_factory=dict)


class Network(bodies.NetworkBody, frozen=True, kw_only=True):
    ipam: Ipam | None = field(name="IPAM", default=None)
    scope: str = ""


class Connect(Body, frozen=True, kw_only=True):
    container: str
    endpoint_config: bodies.EndpointSettings | None = None


class Disconnect(Body, frozen=True, kw_only=True):
    container: str
    force: bool = False


IGNORED: dict[type[Struct], tuple[str, ...]] = {
    Exec: ("Container", "detachKeys"),
    bodies.EndpointSettings: (
        *("DNSNames", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen"),
        *("IPv6Gateway", "NetworkID"),
    ),
}
"""Keys that clients send back from an inspection, and that ask for nothing."""
