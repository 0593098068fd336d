"""Update files without an operating system in them: small, and made in no time."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

from dom0.host.uki import DIGESTS
from dom0.osimage.build import COMMAND_LINE

_ALIGNMENT = 512


def make_uki(*, version: str = "1.0", machine: int = 0x8664, **sections: bytes) -> bytes:
    """A PE file with the sections of a UKI; `linux=b"…"` replaces one, and an empty one is left out."""
    texts = {
        "linux": f"linux of {version}".encode() * 100,
        "initrd": f"initrd of {version}".encode() * 1000,
        "cmdline": COMMAND_LINE.encode(),
        "uname": b"6.12.0-test\0",
        "osrel": f"ID=dom0\nVERSION_ID={version}\n".encode(),
    }
    parts = {f".{name}": content for name, content in (texts | sections).items() if content}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in parts.items())
    return make_pe({DIGESTS: sums.encode()} | parts, machine=machine)


def make_pe(sections: Mapping[str, bytes], *, machine: int = 0x8664) -> bytes:
    optional = b"\0" * 112
    head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    head += struct.pack("<4sHHIIIHH", b"PE\0\0", machine, len(sections), 0, 0, 0, len(optional), 0) + optional
    place = _aligned(len(head) + 40 * len(sections))
    table, body = b"", b""
    for name, content in sections.items():
        size = _aligned(len(content))
        table += struct.pack("<8sIIII16x", name.encode(), len(content), 0, size, place + len(body))
        body += content.ljust(size, b"\0")
    return (head + table).ljust(place, b"\0") + body


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
