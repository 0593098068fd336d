"""Networks and ports of a container. Pure. Source: Compose 2.26.1 `pkg/compose/create.go` and `convergence.go`."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from dom0.compose.model import Port, Project, Service
from dom0.engine.bodies import EndpointIpamConfig, EndpointSettings, PortBinding
from dom0.engine.values import PublishedPort
from dom0.plan.desired import Attachment
from dom0.plan.parents import PARENT

INTERFACE_NAME = "com.docker.network.endpoint.ifname"  # option of an endpoint, from Engine 28.0 on


def container_name(project: Project, name: str, number: int) -> str:
    return project.services[name].container_name or f"{project.name}-{name}-{number}"


def networks_by_priority(project: Project, service: Service) -> list[str]:
    """The first one is the primary network: its gateway is the container's."""
    if service.network_mode:
        return []
    if not service.networks:
        return ["default"] if "default" in project.networks else []

    priorities = {key: config.priority if config else 0 for key, config in service.networks.items()}
    return sorted(priorities, key=lambda key: (-priorities[key], key))


def attachments(project: Project, name: str, number: int) -> tuple[Attachment, ...]:
    service, known = project.services[name], links(project, name, number)
    aliases, mac = (container_name(project, name, number), name), service.mac_address
    found: list[Attachment] = []
    for key in networks_by_priority(project, service):
        endpoint = EndpointSettings(aliases=aliases, links=known, mac_address="" if found else mac)
        if config := service.networks.get(key):
            interface = {INTERFACE_NAME: config.interface_name} if config.interface_name else {}
            endpoint = replace(
                endpoint,
                aliases=(*aliases, *config.aliases),
                mac_address=config.mac_address or endpoint.mac_address,
                ipam_config=EndpointIpamConfig(
                    ipv4_address=config.ipv4_address,
                    ipv6_address=config.ipv6_address,
                    link_local_ips=config.link_local_ips,
                ),
                driver_opts=config.driver_opts | interface,
                gw_priority=config.gw_priority,
            )
        found.append(Attachment(network=project.networks[key].name, endpoint=endpoint))
    return tuple(found)


def links(project: Project, name: str, number: int) -> tuple[str, ...]:
    """`container:alias`, three aliases for each container of a linked service, and the external links as they are.

    Compose numbers two of the aliases after the container that links, not the one it links to; so do we.
    """
    service = project.services[name]
    found = []
    for link in service.links:
        target, _, alias = link.partition(":")
        aliases = (alias or target, f"{target}-{number}", f"{project.name}-{target}-{number}")
        linked = project.services.get(target)
        for other in range(1, (linked.replicas if linked else 0) + 1):
            found += [f"{container_name(project, target, other)}:{alias}" for alias in aliases]
    for link in service.external_links:
        target, _, alias = link.partition(":")
        found.append(f"{target}:{alias or target}")
    return tuple(found)


def port_bindings(service: Service) -> dict[str, tuple[PortBinding, ...]]:
    bindings: dict[str, tuple[PortBinding, ...]] = {}
    for port in service.ports:
        key = f"{port.target}/{port.protocol}"
        bindings[key] = (*bindings.get(key, ()), PortBinding(host_ip=port.host_ip, host_port=port.published))
    return bindings


def fixed_ports(service: Service) -> tuple[PublishedPort, ...]:
    """Host ports that only one container can have. A range, an empty port and `0` leave the choice to the Engine."""
    if not _publishes(service):
        return ()
    fixed = (
        PublishedPort.at(port.protocol, first, port.host_ip)
        for port in service.ports
        for first, last in [port_range(port)]
        if first == last != 0
    )
    return tuple(sorted(set(fixed)))


def spare_port_missing(service: Service) -> bool:
    """Whether some published range, such as of one port, has none left for one more container."""
    ranges = (port_range(port) for port in service.ports if _publishes(service))
    return any(first and last - first + 1 <= service.replicas for first, last in ranges)


def port_range(port: Port) -> tuple[int, int]:
    """First and last host port; (0, 0) when the Engine chooses."""
    first, _, last = (port.published or "0").partition("-")
    return int(first), int(last or first)


def _publishes(service: Service) -> bool:
    """The Engine drops ports of containers without a network namespace of their own behind a bridge."""
    mode = service.network_mode
    return mode not in ("host", "none") and not mode.startswith((PARENT, "container:"))


def overlapping(ports: Iterable[PublishedPort], taken: Iterable[PublishedPort]) -> PublishedPort | None:
    """Return the first of `ports` that cannot be had beside `taken`."""
    held = tuple(taken)
    for port in ports:
        for other in held:
            same = (port.protocol, port.port) == (other.protocol, other.port)
            if same and (port.ip == other.ip or "" in (port.ip, other.ip)):
                return port
    return None
