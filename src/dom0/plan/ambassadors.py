"""What `x-dom0.ambassador` means for its service: variable, capabilities, sysctls, a volume for its state. Pure.

The service that comes out says all of it in Compose's words, so whatever reads services after us needs to know nothing
of ambassadors.
"""

from __future__ import annotations

import msgspec

from dom0.ambassador.declaration import VARIABLE
from dom0.ambassador.settings import STATE_DIRECTORY
from dom0.compose.model import Project, ServiceVolume, Volume
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
    services, volumes = dict(project.services), dict(project.volumes)
    for name, service in project.services.items():
        if service.x_dom0 is None or service.x_dom0.ambassador is None:
            continue
        _check(project, name)
        settings = msgspec.json.encode(service.x_dom0.ambassador, order="deterministic").decode()
        capabilities = (capability for capability in CAPABILITIES if capability not in service.cap_add)
        sysctls = {FORWARD: "1", LIBERAL: "1", ACCOUNTING: "1"}
        networks = (project.networks.get(key) for key in service.networks or ("default",))
        if any(network.enable_ipv6 for network in networks if network):
            sysctls[FORWARD_6] = "1"
        services[name] = msgspec.structs.replace(
            service,
            environment=service.environment | {VARIABLE: settings},
            cap_add=(*service.cap_add, *capabilities),
            sysctls=sysctls | service.sysctls,
        )
        if not any(volume.target == STATE_DIRECTORY for volume in service.volumes):
            key = f"{name}-ambassador"
            volumes.setdefault(key, Volume(name=f"{project.name}_{key}"))
            state = ServiceVolume(type="volume", source=key, target=STATE_DIRECTORY)
            services[name] = msgspec.structs.replace(services[name], volumes=(*service.volumes, state))
    return msgspec.structs.replace(project, services=services, volumes=volumes)


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
