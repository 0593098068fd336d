"""farm.yaml: what a person says of a farm. No I/O."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

import msgspec
from msgspec import Meta

from dom0 import durations
from dom0.compose.source import read_source
from dom0.compose.x_dom0 import NotifySettings, notify_findings
from dom0.errors import ProjectError
from dom0.farms.nodes import NAME
from dom0.wording import excerpt, flaw

FILE = "farm.yaml"
PORT = 7701
LONGEST_SOAK = 7 * 86400.0  # seconds
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


class RoleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a revision comes to the nodes of a role: to `at_once` of them, the next when they have been good for `soak`,
    as Compose writes a time. `canary`: the node that is the first one.
    """

    at_once: int = 1
    soak: str = "30s"
    canary: str = ""

    @property
    def soak_seconds(self) -> float:
        return durations.seconds(self.soak)


class FloatSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`managers`: names of the nodes that may be managers of the farm's Swarm, which keep its state on their disks; the
    first one makes it.
    """

    managers: tuple[str, ...] = ()


class FarmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`listen`: where the server answers, ADDRESS:PORT; 0.0.0.0 is for everybody who reaches it. `roles`: those that
    are to be rolled out otherwise. `os`: the base OS of all nodes, a file of dom0 os build, its path from
    the farm's directory; "" for leaving theirs alone. `fleetlock`: whether machines that are no nodes may take reboot
    locks. `float`: where projects run that need no certain node. `notify`: who is told of nodes that are lost and
    of roles that are paused, as by x-dom0.notify.
    """

    name: str
    listen: str = f"0.0.0.0:{PORT}"
    netboot: NetbootSettings | None = None
    roles: dict[str, RoleSettings] = {}
    fleetlock: str = "nodes"
    os: str = ""
    floating: FloatSettings = msgspec.field(name="float", default=FloatSettings())
    notify: NotifySettings | None = None

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
    managers = found.floating.managers
    if bad := [name for name in managers if not NAME.fullmatch(name) or managers.count(name) > 1]:
        raise _refused("float.managers", bad[0], "is no name of a node, or said twice", "dom0 farm nodes lists them")
    parts = _LISTEN.fullmatch(found.listen)
    if parts is None or not _is_address(parts[1] or parts[2]) or not 0 < int(parts[3]) < 1 << 16:
        raise _refused("listen", found.listen, "is not ADDRESS:PORT", f"as 192.168.0.2:{PORT}, or [fd00::2]:{PORT}")
    if found.netboot and not _INTERFACE.fullmatch(found.netboot.interface):
        raise _refused("netboot.interface", found.netboot.interface, "is no network interface", "as eth0: ip link")
    if found.fleetlock not in ("nodes", "open"):
        raise _refused("fleetlock", found.fleetlock, "is neither nodes nor open", "who may take reboot locks")
    for role, of_role in found.roles.items():
        _check_role(role, of_role)
    _check_notify(found.notify)
    return found


def _check_notify(settings: NotifySettings | None) -> None:
    """Raises ProjectError."""
    for finding in notify_findings(settings) if settings else ():
        raise ProjectError(f"{FILE}: {'.'.join(finding.path[1:])}: {excerpt(finding.what)}", hint=finding.hint)


def _check_role(role: str, settings: RoleSettings) -> None:
    """Raises ProjectError."""
    if not NAME.fullmatch(role):
        raise _refused("roles", role, "is no name", "as a directory of roles/: small letters, digits and dashes")
    if settings.at_once < 1:
        raise _refused(
            f"roles.{role}.at_once", str(settings.at_once), "has to be at least 1", "dom0 farm pause stops it"
        )
    if settings.canary and not NAME.fullmatch(settings.canary):
        raise _refused(f"roles.{role}.canary", settings.canary, "is no name of a node", "dom0 farm nodes lists them")
    try:
        is_possible = 0 <= settings.soak_seconds <= LONGEST_SOAK
    except ValueError:
        is_possible = False
    if not is_possible:
        raise _refused(f"roles.{role}.soak", settings.soak, "is no time up to a week", "as 30s, 10m or 1h30m")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _refused(key: str, value: str, what: str, hint: str) -> ProjectError:
    return ProjectError(f"{FILE}: {key}: {excerpt(value)}: {what}", hint=hint)
