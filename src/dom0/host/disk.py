"""The base OS's document on its disks (docs/disk.md), as values. Pure.

The program `disk` of the base OS writes the document. Its quotations from disks are untrusted text, escaped where they
are shown.
"""

from __future__ import annotations

import re

import msgspec

from dom0.errors import Dom0Error

DOCUMENT = "os/disks.json"  # below /run/dom0
IN_MEMORY, FULL = "data-in-memory", "data-full"  # codes of problems
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A disk or a partition. Texts may be empty."""

    device: str
    bytes: int
    removable: bool = False
    partition: bool = False
    type: str = ""
    label: str = ""
    uuid: str = ""
    table: str = ""
    mounted: str = ""
    blank: bool = False
    half_made: bool = False
    please_format: bool = False
    closed: str = ""
    system: str = ""
    engine: str = ""
    machine: str = ""
    store: str = ""
    store_path: str = ""
    store_containers: int | None = None
    store_images: int | None = None
    store_bytes: int | None = None


class Data(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where this machine keeps its data. `kind` is empty until that is decided."""

    kind: str = ""
    device: str = ""
    uuid: str = ""
    reason: str = ""


class DiskProblem(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    text: str


class Disks(msgspec.Struct, frozen=True, kw_only=True):
    data: Data
    problems: tuple[DiskProblem, ...]
    devices: tuple[Device, ...]


def decode(raw: bytes | str) -> Disks:
    """The document. Raises Dom0Error if it is not one."""
    try:
        found = msgspec.json.decode(raw, type=Disks)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Dom0Error(
            f"disks.json: not understood: {error}", hint="the base OS and dom0 may be too far apart"
        ) from error
    devices = (
        msgspec.structs.replace(device, label=unescape(device.label), uuid=unescape(device.uuid))
        for device in found.devices
    )
    return msgspec.structs.replace(found, devices=tuple(devices))


def unescape(text: str) -> str:
    r"""What blkid wrote as `\x20`."""
    raw = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode(errors="replace")


def holds(device: Device, data: Data) -> str:
    """What is on a device, for people."""
    if data.device == device.device:
        return f"the data of this machine{_read_only(data)}"
    if device.blank:
        return "nothing, it is blank"
    if device.half_made:
        return "a file system that dom0 had begun to make"
    if device.please_format:
        return "boot2docker's wish to be formatted"
    if device.table:
        return "partitions"
    store = ""
    if device.store:
        counted = f"{device.store_containers or 0} containers, {device.store_images or 0} images"
        engine = f" of Engine {device.engine}" if device.engine else ""
        store = f"a Docker store{engine} ({device.store}, {counted}) in {device.store_path}"
    return ", ".join(filter(None, (device.system, store, device.closed)))


def describe(data: Data) -> str:
    """Where this machine keeps its data, and why there."""
    where = "in memory, lost at power-off" if data.kind == "memory" else f"on {data.device or 'an unknown place'}"
    return f"{where}{_read_only(data)}: {data.reason}" if data.reason else f"{where}{_read_only(data)}"


def _read_only(data: Data) -> str:
    return ", changes in memory" if data.kind == "read-only" else ""
