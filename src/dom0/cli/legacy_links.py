"""Containers with legacy links (`docker run --link` on the default bridge): what they lose, what replaces it. Pure.

The Engine puts the variables of a link in when the container starts. From 29 on it does so only with
DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1 in its own environment; from 30 on neither that nor the link is there.
Links on networks of a user's own are names and stay. Source of the variables: moby `daemon/links/links.go`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from dom0.cli.engine_client import InspectedContainer
from dom0.names import AMBASSADOR_IMAGE

TCP_FIRST = 28  # first Engine (of those seen: not 26) that prefers TCP for ALIAS_PORT; before, the lowest number had it
VARIABLES_OFF = 29  # first Engine that leaves the variables out
LINKS_GONE = 30
_DEFAULT_BRIDGE = ("", "default", "bridge")
_NOT_SHARED = ("HOME", "PATH")


class LegacyLink(msgspec.Struct, frozen=True, kw_only=True):
    target: str  # container
    alias: str
    variables: tuple[str, ...]  # that the link sets, without those that it copies
    copied: tuple[str, ...]  # from the target's own environment, passwords too


class Legacy(msgspec.Struct, frozen=True, kw_only=True):
    container: str
    id: str
    image: str
    links: tuple[LegacyLink, ...]
    named: tuple[str, ...]  # variables of the links that its command or its own environment names
    breaks: tuple[str, ...]
    compose: str  # YAML that replaces it


def is_legacy(container: InspectedContainer) -> bool:
    host = container.host_config
    return bool(host.links) and host.network_mode in _DEFAULT_BRIDGE


def examine(container: InspectedContainer, others: Mapping[str, InspectedContainer], *, engine: int) -> Legacy:
    """`others`: the containers there are, by name; `engine`: its major version."""
    linked = []  # with each one's name and its alias, None where it is gone
    for link in container.host_config.links or ():
        target, _, alias = link.removeprefix("/").partition(":")
        linked.append((target, alias.rpartition("/")[2], others.get(target)))
    environment = {alias: variables(_own_name(container), alias, found, engine) for _, alias, found in linked if found}
    links = tuple(
        LegacyLink(
            target=target,
            alias=alias,
            variables=tuple(environment.get(alias, ())),
            copied=tuple(
                f"{_prefix(alias)}_ENV_{name}"
                for entry in (found.config.env or () if found else ())
                if (name := entry.partition("=")[0]) not in _NOT_SHARED
            ),
        )
        for target, alias, found in linked
    )
    count = sum(len(link.variables) + len(link.copied) for link in links)
    aliases = ", ".join(dict.fromkeys(link.alias for link in links))
    config = container.config  # only what is written there is seen: its program may read others
    text = "\n".join((*(config.entrypoint or ()), *(config.cmd or ()), *(config.env or ())))
    names = (name for link in links for name in (*link.variables, *link.copied))
    return Legacy(
        container=_own_name(container),
        id=container.id,
        image=container.config.image,
        links=links,
        named=tuple(one for one in names if re.search(rf"(?<![A-Za-z0-9_]){re.escape(one)}(?![A-Za-z0-9_])", text)),
        breaks=(
            f"Engine {VARIABLES_OFF}: its {count} link variables are not set any more,"
            " unless the Engine runs with DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1",
            f"Engine {LINKS_GONE}: the default bridge has no links any more: it does not find {aliases},"
            " and there is no such setting",
        ),
        compose=_compose(container, linked, environment),
    )


def variables(consumer: str, alias: str, target: InspectedContainer, engine: int) -> dict[str, str]:
    """What the Engine sets for the link, with the alias, which is a name on the new network, in place of an address."""
    prefix = _prefix(alias)
    keys = (key.partition("/") for key in target.config.exposed_ports or ())
    listed = [(int(number), protocol or "tcp") for number, _, protocol in keys if re.fullmatch("[0-9]+", number)]
    ports = sorted(listed, key=lambda port: (port[1] != "tcp", port))
    found = {}
    if ports:
        number, protocol = ports[0] if engine >= TCP_FIRST else min(ports, key=lambda port: (port[0], port[1] != "tcp"))
        found[f"{prefix}_PORT"] = f"{protocol}://{alias}:{number}"
    # Ports without a gap between them have the same distance to their index. Several have variables for both ends.
    for _, group in groupby(enumerate(ports), key=lambda each: (each[1][0] - each[0], each[1][1])):
        run = [port for _, port in group]
        (first, protocol), (last, _) = run[0], run[-1]
        if len(run) > 1:
            range_ = f"{prefix}_PORT_{first}_{protocol.upper()}"
            found |= {
                f"{range_}_START": f"{protocol}://{alias}:{first}",
                f"{range_}_PORT_START": str(first),
                f"{range_}_END": f"{protocol}://{alias}:{last}",
                f"{range_}_PORT_END": str(last),
            }
        for number, _ in run:
            name = f"{prefix}_PORT_{number}_{protocol.upper()}"
            found |= {
                name: f"{protocol}://{alias}:{number}",
                f"{name}_ADDR": alias,
                f"{name}_PORT": str(number),
                f"{name}_PROTO": protocol,
            }
    return found | {f"{prefix}_NAME": f"/{consumer}/{alias}"}


def _prefix(alias: str) -> str:
    return alias.upper().replace("-", "_")


def _compose(
    container: InspectedContainer,
    linked: Sequence[tuple[str, str, InspectedContainer | None]],
    environment: Mapping[str, Mapping[str, str]],
) -> str:
    """YAML with one network for each consumer: another one may mean something else by the same alias."""
    import yaml

    own, image = _own_name(container), container.config.image
    network = f"{own}-links"
    # The images that the pattern was made with: svendowideit/ambassador, and those named after it.
    is_ambassador = image.partition("@")[0].rpartition("/")[2].partition(":")[0].endswith("ambassador")
    own_service: dict[str, Any] = {
        "image": AMBASSADOR_IMAGE if is_ambassador else image,
        "environment": {name: value for found in environment.values() for name, value in found.items()},
        "networks": [network],
    }
    if is_ambassador:
        own_service |= {"cap_add": ["NET_ADMIN"], "sysctls": {"net.ipv4.ip_forward": "1"}}
    services: dict[str, Any] = {own: own_service}
    for target, alias, found in linked:
        service = services.setdefault(target, {"image": found.config.image if found else "", "networks": {}})
        service["networks"].setdefault(network, {"aliases": []})["aliases"].append(alias)
    document = {"services": services, "networks": {network: {}}}
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=4096)
    return text.replace("$", "$$")  # a single one begins a variable in a Compose file


def _own_name(container: InspectedContainer) -> str:
    return container.name.removeprefix("/")
