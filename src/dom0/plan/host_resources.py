"""Limits, devices and the like: the part of HostConfig that Compose calls resources. Pure.

Source: Compose 2.26.1 `pkg/compose/create.go`, getDeployResources and what it calls.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from dom0.compose.model import BlkioConfig, Resource, Service, ThrottleDevice, Ulimit
from dom0.engine import bodies


def host_resources(service: Service) -> bodies.Resources:
    deployed = service.deploy.resources if service.deploy else None
    limits = (deployed.limits if deployed else None) or Resource()
    reservations = (deployed.reservations if deployed else None) or Resource()
    blkio = service.blkio_config or BlkioConfig()
    devices = [(device, device.capabilities) for device in reservations.devices]
    devices += [(device, ("gpu", *device.capabilities)) for device in service.gpus]
    ulimits = {
        name: Ulimit(soft=limit, hard=limit) if isinstance(limit, int) else limit
        for name, limit in sorted(service.ulimits.items())
    }
    return bodies.Resources(
        blkio_weight=blkio.weight,
        blkio_weight_device=tuple(bodies.WeightDevice(path=d.path, weight=d.weight) for d in blkio.weight_device),
        blkio_device_read_bps=_throttles(blkio.device_read_bps),
        blkio_device_read_iops=_throttles(blkio.device_read_iops),
        blkio_device_write_bps=_throttles(blkio.device_write_bps),
        blkio_device_write_iops=_throttles(blkio.device_write_iops),
        cgroup_parent=service.cgroup_parent,
        memory=limits.memory or service.mem_limit,
        memory_reservation=reservations.memory or service.mem_reservation,
        memory_swap=service.memswap_limit,
        memory_swappiness=service.mem_swappiness,
        cpu_count=service.cpu_count,
        cpu_percent=int(_single(_single(service.cpu_percent) * 100)),
        cpu_period=service.cpu_period,
        cpu_quota=service.cpu_quota,
        cpu_realtime_period=service.cpu_rt_period,
        cpu_realtime_runtime=service.cpu_rt_runtime,
        cpu_shares=service.cpu_shares,
        cpuset_cpus=service.cpuset,
        nano_cpus=int(_single(_single(limits.cpus or service.cpus) * 1e9)),
        pids_limit=limits.pids if limits.pids > 0 else service.pids_limit,
        device_cgroup_rules=service.device_cgroup_rules,
        device_requests=tuple(
            bodies.DeviceRequest(
                driver=device.driver,
                count=device.count,
                device_ids=device.device_ids,
                capabilities=(tuple(dict.fromkeys(capabilities)),),
                options=device.options,
            )
            for device, capabilities in devices
        ),
        devices=tuple(
            bodies.DeviceMapping(
                path_on_host=device.source,
                path_in_container=device.target or device.source,
                cgroup_permissions=device.permissions or "rwm",
            )
            for device in service.devices
        ),
        oom_kill_disable=service.oom_kill_disable,  # always sent by Compose; left out it would read back as null
        ulimits=tuple(bodies.Ulimit(name=name, soft=ulimit.soft, hard=ulimit.hard) for name, ulimit in ulimits.items()),
    )


def _single(number: float) -> float:
    """Compose multiplies in 32-bit floats, so 0.3 processors are not exactly 300000000."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def _throttles(devices: Sequence[ThrottleDevice]) -> tuple[bodies.ThrottleDevice, ...]:
    return tuple(bodies.ThrottleDevice(path=device.path, rate=device.rate) for device in devices)
