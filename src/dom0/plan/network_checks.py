"""What the Engine takes from no container because of its networking. Pure; every refusal is a ProjectError.

Source of the conflicts: Docker Engine 26.1 `runconfig/hostconfig_unix.go`, each tried.
"""

from __future__ import annotations

from dom0.compose.model import Project
from dom0.plan.attachments import networks_by_priority
from dom0.plan.parents import PARENT
from dom0.plan.refusal import refusal

ENGINES_OWN = ("bridge", "host", "none")


def check_network(project: Project, key: str) -> None:
    name = project.networks[key].name
    if name in ENGINES_OWN:
        what = f"on the Engine's own network {name} containers have no names"
        hint = f"write network_mode: {name} in the service instead"
        raise refusal(project, ("networks", key, "name"), what, hint)


def check_networking(project: Project, name: str) -> None:
    service = project.services[name]
    path = ("services", name)
    if service.network_mode and service.networks:
        what = "network_mode and networks exclude each other"
        raise refusal(project, (*path, "network_mode"), what, "take one of them out")
    if service.uts == "host" and service.hostname:
        raise refusal(project, (*path, "hostname"), "with uts: host it is the host's", "take one of them out")
    mode = service.network_mode
    conflicting = ["mac_address"] if mode else []
    if mode == "host" or mode.startswith((PARENT, "container:")):
        conflicting += ["links", "external_links"]
    if mode.startswith((PARENT, "container:")):
        conflicting += ["hostname", "dns", "extra_hosts", "ports", "expose"]
    for key in (key for key in conflicting if getattr(service, key)):
        hint = "take one of them out"
        if mode.startswith(PARENT):
            hint = f"say it in services.{mode.removeprefix(PARENT)}, whose network it is"
        raise refusal(project, (*path, key), f"goes with a network of its own, not with network_mode: {mode}", hint)
    primary = next(iter(networks_by_priority(project, service)), "")
    config = service.networks.get(primary)
    if config and config.mac_address and service.mac_address not in ("", config.mac_address):
        what = f"differs from the one of networks.{primary}"
        raise refusal(project, (*path, "mac_address"), what, "say one of them")
