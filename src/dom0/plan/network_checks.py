"""What the Engine takes from no container because of its networking. Pure; every refusal is a ProjectError.

Source of the conflicts: Docker Engine 26.1 `runconfig/hostconfig_unix.go`, each tried.
"""

from __future__ import annotations

from dom0.compose.model import Network, Project, Service
from dom0.errors import ProjectError
from dom0.plan.attachments import PARENT, networks_by_priority

ENGINES_OWN = ("bridge", "host", "none")


def check_network(key: str, network: Network) -> None:
    if network.name in ENGINES_OWN:
        raise ProjectError(
            f"networks.{key}.name: on the Engine's own network {network.name} containers have no names",
            hint=f"write network_mode: {network.name} in the service instead",
        )


def check_networking(project: Project, name: str) -> None:
    service = project.services[name]
    where = f"services.{name}"
    if service.network_mode and service.networks:
        raise ProjectError(f"{where}: network_mode and networks exclude each other", hint="take one of them out")
    if service.uts == "host" and service.hostname:
        raise ProjectError(f"{where}.hostname: with uts: host it is the host's", hint="take one of them out")
    for key in _conflicts(service):
        raise ProjectError(
            f"{where}.{key}: goes with a network of its own, not with network_mode: {service.network_mode}",
            hint=_hint(service.network_mode),
        )
    _check_mac_address(project, name)


def _conflicts(service: Service) -> list[str]:
    mode = service.network_mode
    keys = ["mac_address"] if mode else []
    if mode == "host" or mode.startswith((PARENT, "container:")):
        keys += ["links", "external_links"]
    if mode.startswith((PARENT, "container:")):
        keys += ["hostname", "dns", "extra_hosts", "ports", "expose"]
    return [key for key in keys if getattr(service, key)]


def _hint(mode: str) -> str:
    if mode.startswith(PARENT):
        return f"say it in services.{mode.removeprefix(PARENT)}, whose network it is"
    return "take one of them out"


def _check_mac_address(project: Project, name: str) -> None:
    service = project.services[name]
    primary = next(iter(networks_by_priority(project, service)), "")
    config = service.networks.get(primary)
    if config and config.mac_address and service.mac_address not in ("", config.mac_address):
        where = f"services.{name}.mac_address"
        raise ProjectError(f"{where}: differs from the one of networks.{primary}", hint="say one of them")
