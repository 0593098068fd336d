"""Networks and volumes of the project, with the Engine's create bodies. Pure. Source: Compose 2.26.1 `create.go`."""

from __future__ import annotations

from dom0.compose.model import Network, Project, Volume
from dom0.engine import bodies
from dom0.plan import labels
from dom0.plan.desired import NetworkSpec, VolumeSpec
from dom0.plan.hashing import ground_hash


def network_spec(project: Project, key: str, network: Network) -> NetworkSpec:
    if network.external:
        return NetworkSpec(key=key, name=network.name, external=True)
    digest = ground_hash(network)
    body = bodies.NetworkBody(
        driver=network.driver,
        options=network.driver_opts,
        internal=network.internal,
        attachable=network.attachable,
        enable_ipv4=False if network.enable_ipv4 is False else None,
        enable_ipv6=bool(network.enable_ipv6),
        ipam=network_ipam(network),
        check_duplicate=True,  # the Engine's default only since API 1.44
        labels=network.labels | _labels(project, digest) | {labels.COMPOSE_NETWORK: key},
    )
    return NetworkSpec(key=key, name=network.name, hash=digest, create=body)


def network_ipam(network: Network) -> bodies.Ipam | None:
    """None where the project leaves the addresses to the Engine."""
    ipam = network.ipam
    if not ipam or not (ipam.driver or ipam.config):
        return None
    pools = tuple(
        bodies.IpamPool(
            subnet=pool.subnet,
            ip_range=pool.ip_range,
            gateway=pool.gateway,
            auxiliary_addresses=pool.aux_addresses,
        )
        for pool in ipam.config
    )
    return bodies.Ipam(driver=ipam.driver, config=pools)


def volume_spec(project: Project, key: str, volume: Volume) -> VolumeSpec:
    if volume.external:
        return VolumeSpec(key=key, name=volume.name, external=True)
    digest = ground_hash(volume)
    body = bodies.VolumeBody(
        driver=volume.driver,
        driver_opts=volume.driver_opts,
        labels=volume.labels | _labels(project, digest) | {labels.COMPOSE_VOLUME: key},
    )
    return VolumeSpec(key=key, name=volume.name, hash=digest, create=body)


def _labels(project: Project, digest: str) -> dict[str, str]:
    return {
        labels.PROJECT: project.name,
        labels.HASH: digest,
        labels.COMPOSE_PROJECT: project.name,
        labels.COMPOSE_VERSION: labels.compose_version(project.compose_version),
    }
