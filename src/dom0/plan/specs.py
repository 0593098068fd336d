"""Networks and volumes of the project, with the Engine's create bodies. Pure. Source: Compose 2.26.1 `create.go`."""

from __future__ import annotations

from typing import Any

from dom0.compose.model import Ipam, Network, Project, Volume
from dom0.plan import labels
from dom0.plan.desired import NetworkSpec, VolumeSpec
from dom0.plan.hashing import network_hash, volume_hash


def network_specs(project: Project) -> tuple[NetworkSpec, ...]:
    return tuple(_network_spec(project, key, network) for key, network in sorted(project.networks.items()))


def volume_specs(project: Project) -> tuple[VolumeSpec, ...]:
    return tuple(_volume_spec(project, key, volume) for key, volume in sorted(project.volumes.items()))


def _network_spec(project: Project, key: str, network: Network) -> NetworkSpec:
    if network.external:
        return NetworkSpec(key=key, name=network.name, external=True)
    digest = network_hash(network)
    body: dict[str, Any] = {
        "Driver": network.driver,
        "Options": network.driver_opts,
        "Internal": network.internal,
        "Attachable": network.attachable,
        "EnableIPv6": bool(network.enable_ipv6),
        "IPAM": _ipam(network.ipam) if network.ipam else {},
    }
    body = {name: value for name, value in body.items() if value}
    if network.enable_ipv4 is False:
        body["EnableIPv4"] = False
    body["CheckDuplicate"] = True  # the Engine's default only since API 1.44
    body["Labels"] = network.labels | _labels(project, digest) | {labels.COMPOSE_NETWORK: key}
    return NetworkSpec(key=key, name=network.name, hash=digest, create=body)


def _ipam(ipam: Ipam) -> dict[str, Any]:
    pools = [
        {"Subnet": p.subnet, "IPRange": p.ip_range, "Gateway": p.gateway, "AuxiliaryAddresses": p.aux_addresses}
        for p in ipam.config
    ]
    body = {"Driver": ipam.driver, "Config": [{k: v for k, v in pool.items() if v} for pool in pools]}
    return {key: value for key, value in body.items() if value}


def _volume_spec(project: Project, key: str, volume: Volume) -> VolumeSpec:
    if volume.external:
        return VolumeSpec(key=key, name=volume.name, external=True)
    digest = volume_hash(volume)
    body: dict[str, Any] = {"Driver": volume.driver, "DriverOpts": volume.driver_opts}
    body = {name: value for name, value in body.items() if value}
    body["Labels"] = volume.labels | _labels(project, digest) | {labels.COMPOSE_VOLUME: key}
    return VolumeSpec(key=key, name=volume.name, hash=digest, create=body)


def _labels(project: Project, digest: str) -> dict[str, str]:
    return {
        labels.PROJECT: project.name,
        labels.HASH: digest,
        labels.COMPOSE_PROJECT: project.name,
        labels.COMPOSE_VERSION: labels.compose_version(project.compose_version),
    }
