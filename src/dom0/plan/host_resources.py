"""Limits, devices and the like: the part of HostConfig that Compose calls resources. Pure.

Source: Compose 2.26.1 `pkg/compose/create.go`, getDeployResources and what it calls.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from dom0.compose.model import BlkioConfig, DeviceRequest, Resource, Service, ThrottleDevice, Ulimit


def host_resources(service: Service) -> dict[str, Any]:
    """Return the HostConfig keys; what is not set is left out."""
    deployed = service.deploy.resources if service.deploy else None
    limits = (deployed.limits if deployed else None) or Resource()
    reservations = (deployed.reservations if deployed else None) or Resource()
    body: dict[str, Any] = {
        "CgroupParent": service.cgroup_parent,
        "Memory": limits.memory or service.mem_limit,
        "MemoryReservation": reservations.memory or service.mem_reservation,
        "MemorySwap": service.memswap_limit,
        "CpuCount": service.cpu_count,
        "CpuPercent": int(_single(_single(service.cpu_percent) * 100)),
        "CpuPeriod": service.cpu_period,
        "CpuQuota": service.cpu_quota,
        "CpuRealtimePeriod": service.cpu_rt_period,
        "CpuRealtimeRuntime": service.cpu_rt_runtime,
        "CpuShares": service.cpu_shares,
        "CpusetCpus": service.cpuset,
        "NanoCpus": nano_cpus(limits.cpus or service.cpus),
        "PidsLimit": limits.pids if limits.pids > 0 else service.pids_limit,
        "DeviceCgroupRules": list(service.device_cgroup_rules),
        "DeviceRequests": _device_requests(reservations.devices, service.gpus),
        "Devices": [
            {
                "PathOnHost": d.source,
                "PathInContainer": d.target or d.source,
                "CgroupPermissions": d.permissions or "rwm",
            }
            for d in service.devices
        ],
        "MemorySwappiness": service.mem_swappiness,
        "Ulimits": [_ulimit(name, limit) for name, limit in sorted(service.ulimits.items())],
        **(_blkio(service.blkio_config) if service.blkio_config else {}),
    }
    body = {key: value for key, value in body.items() if value}
    body["OomKillDisable"] = service.oom_kill_disable  # always sent by Compose; left out it would read back as null
    return body


def nano_cpus(cpus: float) -> int:
    """Compose multiplies in 32-bit floats, so 0.3 is not exactly 300000000."""
    return int(_single(_single(cpus) * 1e9))


def _single(number: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def _ulimit(name: str, limit: int | Ulimit) -> dict[str, Any]:
    soft, hard = (limit, limit) if isinstance(limit, int) else (limit.soft, limit.hard)
    return {"Name": name, "Soft": soft, "Hard": hard}


def _device_requests(reserved: Sequence[DeviceRequest], gpus: Sequence[DeviceRequest]) -> list[dict[str, Any]]:
    requests = [_device_request(device, device.capabilities) for device in reserved]
    return requests + [_device_request(device, ("gpu", *device.capabilities)) for device in gpus]


def _device_request(device: DeviceRequest, capabilities: Sequence[str]) -> dict[str, Any]:
    request: dict[str, Any] = {
        "Driver": device.driver,
        "Count": device.count,
        "DeviceIDs": list(device.device_ids),
        "Capabilities": [list(dict.fromkeys(capabilities))],
        "Options": device.options,
    }
    return {key: value for key, value in request.items() if value}


def _blkio(blkio: BlkioConfig) -> dict[str, Any]:
    return {
        "BlkioWeight": blkio.weight,
        "BlkioWeightDevice": [{"Path": d.path, "Weight": d.weight} for d in blkio.weight_device],
        "BlkioDeviceReadBps": _throttles(blkio.device_read_bps),
        "BlkioDeviceReadIOps": _throttles(blkio.device_read_iops),
        "BlkioDeviceWriteBps": _throttles(blkio.device_write_bps),
        "BlkioDeviceWriteIOps": _throttles(blkio.device_write_iops),
    }


def _throttles(devices: Sequence[ThrottleDevice]) -> list[dict[str, Any]]:
    return [{"Path": device.path, "Rate": device.rate} for device in devices]
