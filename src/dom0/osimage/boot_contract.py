"""The boot contract that is written to a boot medium: settings and keys, checked as the base OS will check them.

The program `contract` of the base OS reads it and ignores what is invalid. Here mistakes are refused before a medium is
written. docs/os.md describes the settings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dom0.errors import UsageError
from dom0.wording import did_you_mean, excerpt

_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = rf"({_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}|[0-9a-f:]*:[0-9a-f:]*)"
# As in os/tree/usr/lib/dom0/contract. What only the boot loader knows (medium, slot, trial) is not set by hand.
PATTERNS = {
    "hostname": r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    "ip": rf"dhcp|{_ADDRESS}/[0-9]{{1,3}},{_ADDRESS}(,{_ADDRESS})*",
    "data": r"auto|ram|label=[A-Za-z0-9._-]{1,16}|uuid=[0-9A-Fa-f-]{8,36}|/dev/[a-z0-9]{1,32}",
    "format": "blank",
    "adopt": "ignore|use|use-readonly|copy-images",
    "image": r"dom0/[A-Za-z0-9_][A-Za-z0-9._-]*",
    "farm": r"[A-Za-z0-9.:_-]{1,255}",
}
_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
    r" [A-Za-z0-9+/]{40,}={0,2}( .*)?"
)


class BootContract(msgspec.Struct, frozen=True):
    """Files for the machine that boots from a medium; b"" and None leave one out."""

    config: bytes = b""
    authorized_keys: bytes = b""
    image: Path | None = None  # a tar of images with a dom0:latest
    store: Path | None = None  # of prepared.prepare

    def digest(self) -> str:
        """The same for the same settings, keys and file of images, which is not read: its time tells of a change.

        What was prepared of that file is left out.
        """
        file = self.image.resolve() if self.image else None
        told = (self.config, self.authorized_keys, file and (str(file), file.stat().st_size, file.stat().st_mtime_ns))
        return hashlib.sha256(repr(told).encode()).hexdigest()


def config(settings: Iterable[str]) -> bytes:
    """The file dom0/config of `KEY=VALUE`s. Raises UsageError."""
    found: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in PATTERNS:
            raise UsageError(f"--config {excerpt(setting)}: no such setting", hint=did_you_mean(key, PATTERNS))
        if not equals or not re.fullmatch(PATTERNS[key], value):
            raise UsageError(
                f"--config {excerpt(setting)}: is not a value for {key}", hint="docs/os.md says what it may be"
            )
        if key in found:
            raise UsageError(f"--config {excerpt(setting)}: {key} is listed twice")
        found[key] = value
    return "".join(f"{key}={value}\n" for key, value in found.items()).encode()


def authorized_keys(files: Iterable[Path]) -> bytes:
    """The file dom0/authorized_keys of files with public keys. Raises UsageError."""
    keys: dict[str, None] = {}
    for file in files:
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        for line in found or [""]:
            if not _KEY.fullmatch(line):
                raise UsageError(
                    f"--ssh-key {file}: one line is not a public key",
                    hint="the file that ends in .pub, without options",
                )
            keys[line] = None
    return "".join(f"{key}\n" for key in keys).encode()
