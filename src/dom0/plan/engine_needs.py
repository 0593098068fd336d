"""Which keys need a newer Engine than the oldest one that dom0 runs on. Pure.

An older Engine drops what it does not know without a word. Source: "API version history" of the Docker Engine API.
"""

from __future__ import annotations

from collections.abc import Iterator

from dom0.compose.findings import KeyPath
from dom0.compose.model import Project, Service
from dom0.plan.refusal import refusal

ENGINES = {"1.42": "23.0", "1.43": "24.0", "1.44": "25.0", "1.45": "26.0", "1.48": "28.0"}


def check_engine(project: Project, api_version: str) -> None:
    """Raises ProjectError; `api_version` may be "" where it is not known."""
    services, networks = project.services.items(), project.networks.items()
    needs = [(("services", name, *key), api) for name, service in services for key, api in _needs(service)]
    needs += [(("networks", key, "enable_ipv4"), "1.48") for key, net in networks if net.enable_ipv4 is False]
    spoken = [int(part) for part in api_version.split(".") if part]
    for path, needed in needs:
        if spoken and spoken < [int(part) for part in needed.split(".")]:
            what = f"needs Docker Engine {ENGINES[needed]} (API {needed}), this one speaks {api_version}"
            raise refusal(project, path, what, "take it out, or update the Engine")


def _needs(service: Service) -> Iterator[tuple[KeyPath, str]]:
    """Key of the service, and API version."""
    if service.healthcheck and service.healthcheck.start_interval:
        yield ("healthcheck", "start_interval"), "1.44"
    if service.mac_address:
        yield ("mac_address",), "1.44"
    for key, network in service.networks.items():
        if network and network.mac_address:
            yield ("networks", key, "mac_address"), "1.44"
        if network and network.interface_name:
            yield ("networks", key, "interface_name"), "1.48"
    if service.annotations:
        yield ("annotations",), "1.43"
    for number, volume in enumerate(service.volumes):
        if volume.volume and volume.volume.subpath:
            yield ("volumes", str(number), "volume", "subpath"), "1.45"
        if volume.bind and volume.bind.recursive:
            needed = "1.44" if volume.bind.recursive != "disabled" else "1.42"
            yield ("volumes", str(number), "bind", "recursive"), needed
