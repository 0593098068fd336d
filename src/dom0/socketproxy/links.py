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
        said += _of_link(name, alias or reference, documents[reference]["Config"])
    return said


def _of_link(name: str, alias: str, config: dict[str, Any]) -> list[str]:
    prefix = alias.upper().replace("-", "_")
    ports = sorted((_number_and_protocol(port) for port in config.get("ExposedPorts") or ()), key=_first_tcp)
    said = [f"{prefix}_PORT={_url(alias, ports[0])}"] if ports else []
    for number, protocol in ports:
        key = f"{prefix}_PORT_{number}_{protocol.upper()}"
        said += [f"{key}={_url(alias, (number, protocol))}", f"{key}_ADDR={alias}"]
        said += [f"{key}_PORT={number}", f"{key}_PROTO={protocol}"]
    said.append(f"{prefix}_NAME=/{name}/{alias}")
    env: Sequence[str] = config.get("Env") or ()
    return said + [f"{prefix}_ENV_{one}" for one in env if "=" in one and one.partition("=")[0] not in _OF_THE_IMAGE]


def _number_and_protocol(port: str) -> tuple[str, str]:
    number, _, protocol = port.partition("/")
    return number, protocol or "tcp"


def _first_tcp(port: tuple[str, str]) -> tuple[int, bool]:
    number, protocol = port
    return int(number.partition("-")[0]), protocol != "tcp"


def _url(alias: str, port: tuple[str, str]) -> str:
    number, protocol = port
    return f"{protocol}://{alias}:{number}"
