"""What `x-dom0.ambassador` means for its service: variable, capabilities, sysctls, a volume for its state. Pure.

The service that comes out says all of it in Compose's words, so whatever reads services after us needs to know nothing
of ambassadors.
"""

from __future__ import annotations

import msgspec

from dom0.ambassador.declaration import VARIABLE
from dom0.ambassador.settings import STATE_DIRECTORY, Settings
from dom0.compose.model import Project, Service, ServiceVolume, Volume
from dom0.plan.refusal import refusal

IMAGE_ROLE = "ambassador"  # what the image's label dom0.role says
CAPABILITIES = ("NET_ADMIN", "NET_RAW")
LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"  # a segment out of its window ends no connection
ACCOUNTING = "net.netfilter.nf_conntrack_acct"  # the kernel counts the bytes of connections
FORWARD = "net.ipv4.ip_forward"
FORWARD_6 = "net.ipv6.conf.all.forwarding"
_KEY = "x-dom0.ambassador"


def with_ambassadors(project: Project) -> Project:
    """`project` with every ambassador's service as the Engine needs it. Raises ProjectError."""
    wanted = {name: settings for name, service in project.services.items() if (settings := _settings(service))}
    if not wanted:
        return project
    services, volumes = dict(project.services), dict(project.volumes)
    for name, settings in wanted.items():
        _check(project, name)
        key = f"{name}-ambassador"
        if not any(volume.target == STATE_DIRECTORY for volume in services[name].volumes):
            volumes.setdefault(key, Volume(name=f"{project.name}_{key}"))
        services[name] = _service(project, services[name], settings, key)
    return msgspec.structs.replace(project, services=services, volumes=volumes)


def _settings(service: Service) -> Settings | None:
    return service.x_dom0.ambassador if service.x_dom0 else None


def _check(project: Project, name: str) -> None:
    service, path = project.services[name], ("services", name)
    if VARIABLE in service.environment:
        hint = f"keep one of them: {_KEY} or the variable"
        raise refusal(project, (*path, "environment", VARIABLE), f"{_KEY} says the same", hint)
    mode = service.network_mode
    if mode in ("host", "none") or ":" in mode:
        what = f"an ambassador needs a network namespace of its own, {mode} gives it none"
        raise refusal(project, (*path, "network_mode"), what, "name networks instead")
    if service.replicas > 1:
        what = f"an ambassador runs once, not {service.replicas} times"
        raise refusal(project, path, what, "a second one is a second service, with an alias of its own")


def _service(project: Project, service: Service, settings: Settings, volume: str) -> Service:
    sysctls = {FORWARD: "1", LIBERAL: "1", ACCOUNTING: "1"} | ({FORWARD_6: "1"} if _has_ipv6(project, service) else {})
    volumes = service.volumes
    if not any(volume_.target == STATE_DIRECTORY for volume_ in volumes):
        volumes = (*volumes, ServiceVolume(type="volume", source=volume, target=STATE_DIRECTORY))
    return msgspec.structs.replace(
        service,
        environment=service.environment | {VARIABLE: msgspec.json.encode(settings, order="deterministic").decode()},
        cap_add=(*service.cap_add, *(name for name in CAPABILITIES if name not in service.cap_add)),
        sysctls=sysctls | service.sysctls,
        volumes=volumes,
    )


def _has_ipv6(project: Project, service: Service) -> bool:
    keys = service.networks or {"default": None}
    return any(bool(project.networks[key].enable_ipv6) for key in keys if key in project.networks)
