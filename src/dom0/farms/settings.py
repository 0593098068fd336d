"""farm.yaml: what a person says of a farm. No I/O."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta

from dom0.compose.source import read_source
from dom0.errors import ProjectError
from dom0.wording import excerpt, flaw

FILE = "farm.yaml"
PORT = 7701
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # of farms, nodes and roles: as a host's
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_LISTEN = re.compile(r"(?:\[([0-9a-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")


class NetbootSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths are relative to the farm's directory. `os`: what dom0 os build has made. `image`, `ssh_keys` and `config`
    are what dom0 os netboot takes by --image, --ssh-key and --config. `dhcp`: whether the server says to firmware where
    it is, beside the DHCP server that gives addresses.
    """

    interface: str
    os: str
    image: str = ""
    ssh_keys: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    port: Annotated[int, Meta(ge=1, le=65535)] = PORT - 1
    dhcp: bool = True


class FarmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`listen`: where the server answers, ADDRESS:PORT; 0.0.0.0 is for everybody who reaches it."""

    name: str
    listen: str = f"0.0.0.0:{PORT}"
    netboot: NetbootSettings | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Of `listen`: host and port."""
        found = _LISTEN.fullmatch(self.listen)
        assert found, self.listen
        return found[1] or found[2], int(found[3])


def read(content: bytes) -> FarmSettings:
    """Raises ProjectError with the key at fault."""
    if not content.strip():
        raise ProjectError(f"{FILE}: is empty", hint="it needs a name: dom0 farm init makes one")
    (document, *others) = read_source(FILE, content).documents
    if others:
        raise ProjectError(f"{FILE}: has several documents", hint="leave one, without a line ---")
    try:
        found = msgspec.convert(document, FarmSettings)
    except msgspec.ValidationError as error:
        wrong = flaw(error, FarmSettings)
        where = ": ".join(excerpt(part) for part in (FILE, ".".join(wrong.steps)) if part)
        raise ProjectError(f"{where}: {wrong.what}", hint=wrong.hint) from error
    if not NAME.fullmatch(found.name):
        raise _refused("name", found.name, "is no name", "small letters, digits and dashes, at most 63")
    parts = _LISTEN.fullmatch(found.listen)
    if parts is None or not _is_address(parts[1] or parts[2]) or not 0 < int(parts[3]) < 1 << 16:
        raise _refused("listen", found.listen, "is not ADDRESS:PORT", f"as 192.168.0.2:{PORT}, or [fd00::2]:{PORT}")
    if found.netboot and not _INTERFACE.fullmatch(found.netboot.interface):
        raise _refused("netboot.interface", found.netboot.interface, "is no network interface", "as eth0: ip link")
    return found


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _refused(key: str, value: str, what: str, hint: str) -> ProjectError:
    return ProjectError(f"{FILE}: {key}: {excerpt(value)}: {what}", hint=hint)
