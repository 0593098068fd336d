"""A path of the host, as grants name it. Pure."""

from __future__ import annotations

import posixpath
import re

import msgspec

from dom0.names import PLACED, STATE

_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_RUN = ("docker", "containerd", "dom0", "docker.sock")
_WHOLE = (
    *("/proc", "/sys", "/dev", "/var/lib/docker", "/var/lib/containerd", STATE),
    *(f"{run}/{name}" for run in ("/run", "/var/run") for name in _RUN),
)


class HostPath(msgspec.Struct, frozen=True):
    """`host` is a path of the host, or the name of a volume; `inside` is what the scope writes for it."""

    host: str
    inside: str
    read_only: bool

    @classmethod
    def read(cls, text: str) -> HostPath:
        """From `HOST[:INSIDE][:ro]`; a volume needs INSIDE. Raises ValueError."""
        host, *others = text.split(":")
        read_only = others[-1:] == ["ro"]
        inside = others[: len(others) - read_only] or [host]
        is_path = host.startswith("/")
        if len(inside) > 1 or not (is_path or _VOLUME.fullmatch(host)):
            raise ValueError(f"{text!r} is not /PATH[:/PATH][:ro] or VOLUME:/PATH[:ro]")
        for path in (*([host] if is_path else []), *inside):
            if normal(path) != path or path == "/":
                raise ValueError(f"{text!r}: {path} is not the plain path of a directory or file")
        if is_path and any(is_within(path, host) for path in _WHOLE):
            raise ValueError(f"{text!r}: who has {host} has the machine")
        is_of_project = is_within(host, str(PLACED)) and host != str(PLACED)  # a file of the owner's project
        if any(is_within(host, path) for path in _WHOLE) and not is_of_project:
            raise ValueError(f"{text!r}: who has that has the machine")
        return cls(host, inside[0], read_only)


def normal(path: str) -> str:
    """As the Engine reads it: `..` takes away the name before it, even of a link. "" for what is no path of a host."""
    if not path.startswith("/") or ":" in path or not path.isprintable():
        return ""
    return "/" + posixpath.normpath(path).lstrip("/")


def is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")
