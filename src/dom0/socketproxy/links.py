"""Variables of links: on its own bridge the Engine tells a container where those are that it links to. Pure.

On other networks it does not, and a scope's bridge is one of these. Addresses are known only at start, so the host in
them is the link's name. Source: moby, daemon/links.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_OF_THE_IMAGE = ("HOME", "PATH")  # say nothing to others


def variables(name: str, links: Iterable[str], documents: Mapping[str, dict[str, Any]]) -> list[str]:
    """Of a container `name` with `links` (`db`, `db:alias`); `documents` are inspections by what a link refers to."""
    said: list[str] = []
    for link in links:
        reference, _, alias = link.partition(":")
        alias = alias or reference
        config = documents[reference]["Config"]
        prefix = alias.upper().replace("-", "_")
        parted = (port.partition("/") for port in config.get("ExposedPorts") or ())
        ports = sorted(((number, protocol or "tcp") for number, _, protocol in parted), key=_first_tcp)
        urls = [f"{protocol}://{alias}:{number}" for number, protocol in ports]
        said += [f"{prefix}_PORT={url}" for url in urls[:1]]
        for (number, protocol), url in zip(ports, urls, strict=True):
            key = f"{prefix}_PORT_{number}_{protocol.upper()}"
            said += [f"{key}={url}", f"{key}_ADDR={alias}", f"{key}_PORT={number}", f"{key}_PROTO={protocol}"]
        said.append(f"{prefix}_NAME=/{name}/{alias}")
        env: Sequence[str] = config.get("Env") or ()
        said += [f"{prefix}_ENV_{one}" for one in env if "=" in one and one.partition("=")[0] not in _OF_THE_IMAGE]
    return said


def _first_tcp(port: tuple[str, str]) -> tuple[int, bool]:
    number, protocol = port
    return int(number.partition("-")[0]), protocol != "tcp"
