"""GRUB's environment block: 1024 bytes that GRUB itself can write at boot. It says which slot is started. Pure.

os/grub.cfg counts tries in it, and `slots` of the base OS changes it. docs/os.md describes the variables.
"""

from __future__ import annotations

from collections.abc import Mapping

from dom0.errors import Dom0Error

SIZE = 1024  # bytes
_HEAD = b"# GRUB Environment Block\n"
FRESH = {"good": "a", "next": "", "left": "", "failed": ""}


def encode(variables: Mapping[str, str]) -> bytes:
    """Raises Dom0Error if they do not fit."""
    escaped = {name: value.replace("\\", "\\\\").replace("\n", "\\\n") for name, value in variables.items()}
    lines = b"".join(f"{name}={value}\n".encode() for name, value in escaped.items())
    block = (_HEAD + lines).ljust(SIZE, b"#")
    if len(block) > SIZE:
        raise Dom0Error(f"grubenv: {len(block)} bytes do not fit into it")
    return block


def decode(block: bytes) -> dict[str, str]:
    """Raises Dom0Error for a block that GRUB would not accept."""
    if len(block) != SIZE or not block.startswith(_HEAD):
        raise Dom0Error("grubenv: is not an environment block of GRUB")
    variables = {}
    for line in block[len(_HEAD) :].decode(errors="replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            variables[name] = value.replace("\\\\", "\\")
    return variables
