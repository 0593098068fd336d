"""Containers with legacy links (`docker run --link` on the default bridge): what they lose, what replaces it. Pure.

The Engine puts the variables of a link in when the container starts. From 29 on it does so only with
DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1 in its own environment; from 30 on neither that nor the link is there.
Links on networks of a user's own are names and stay. Source of the variables: moby `daemon/links/links.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dom0.names import AMBASSADOR_IMAGE

TCP_FIRST = 28  # first Engine (of those seen: not 26) that prefers TCP for ALIAS_PORT; before, the lowest number had it
VARIABLES_OFF = 29  # first Engine that leaves the variables out
LINKS_GONE = 30
_DEFAULT_BRIDGE = ("", "default", "bridge")
_NOT_SHARED = ("HOME", "PATH")


class Config(msgspec.Struct, rename="pascal"):
    image: str = ""
    cmd: list[str] | None = None
    entrypoint: list[str] | None = None
    env: list[str] | None = None
    exposed_ports: dict[str, Any] | None = None


class HostConfig(msgspec.Struct, rename="pascal"):
    links: list[str] | None = None  # "/redis:/web/cache"
    network_mode: str = ""


class Inspected(msgspec.Struct, rename="pascal"):
    """`GET /containers/{id}/json`, as far as it matters here."""

    id: str
    name: str
    config: Config
    host_config: HostConfig


class Link(msgspec.Struct, frozen=True, kw_only=True):
    target: str  # container
    alias: str
    variables: tuple[str, ...]  # that the link sets, without those that it copies
    copied: tuple[str, ...]  # from the target's own environment, passwords too


class Legacy(msgspec.Struct, frozen=True, kw_only=True):
    container: str
    id: str
    image: str
    links: tuple[Link, ...]
    named: tuple[str, ...]  # variables of the links that its command or its own environment names
    breaks: tuple[str, ...]
    compose: str  # YAML that replaces it


def is_legacy(container: Inspected) -> bool:
    host = container.host_config
    return bool(host.links) and host.network_mode in _DEFAULT_BRIDGE


def targets(container: Inspected) -> list[tuple[str, str]]:
    """Container name and alias of each link."""
    pairs = (link.partition(":") for link in container.host_config.links or ())
    return [(target.removeprefix("/"), alias.rpartition("/")[2]) for target, _, alias in pairs]


def examine(container: Inspected, others: Mapping[str, Inspected], *, engine: int) -> Legacy:
    """`others`: the linked containers by name, as far as they exist; `engine`: its major version."""
    linked = [(target, alias, others.get(target)) for target, alias in targets(container)]
    environment = {alias: variables(_own_name(container), alias, found, engine) for _, alias, found in linked if found}
    links = tuple(
        Link(
            target=target,
            alias=alias,
            variables=tuple(environment.get(alias, ())),
            copied=tuple(_copied(alias, found)) if found else (),
        )
        for target, alias, found in linked
    )
    return Legacy(
        container=_own_name(container),
        id=container.id,
        image=container.config.image,
        links=links,
        named=tuple(_named(container, links)),
        breaks=tuple(_breaks(links)),
        compose=_render(_compose(container, linked, environment)),
    )


def variables(consumer: str, alias: str, target: Inspected, engine: int) -> dict[str, str]:
    """What the Engine sets for the link, with the alias, which is a name on the new network, in place of an address."""
    prefix = _prefix(alias)
    ports = sorted(_ports(target), key=lambda port: (port[1] != "tcp", port))
    found = {}
    if ports:
        number, protocol = ports[0] if engine >= TCP_FIRST else min(ports, key=lambda port: (port[0], port[1] != "tcp"))
        found[f"{prefix}_PORT"] = f"{protocol}://{alias}:{number}"
    for run in _runs(ports):
        found |= _of_run(prefix, alias, run)
    return found | {f"{prefix}_NAME": f"/{consumer}/{alias}"}


def _of_run(prefix: str, alias: str, run: Sequence[tuple[int, str]]) -> dict[str, str]:
    """Of ports without a gap between them; more than one have words for the first and the last."""
    (first, protocol), (last, _) = run[0], run[-1]
    found = {}
    if len(run) > 1:
        range_ = f"{prefix}_PORT_{first}_{protocol.upper()}"
        found = {
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
    return found


def _runs(ports: Sequence[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    run: list[tuple[int, str]] = []
    for port in ports:
        if run and port != (run[-1][0] + 1, run[-1][1]):
            yield run
            run = []
        run.append(port)
    if run:
        yield run


def _ports(target: Inspected) -> Iterator[tuple[int, str]]:
    for key in target.config.exposed_ports or ():
        number, _, protocol = key.partition("/")
        if number.isascii() and number.isdecimal():
            yield int(number), protocol or "tcp"


def _copied(alias: str, target: Inspected) -> Iterator[str]:
    for entry in target.config.env or ():
        name = entry.partition("=")[0]
        if name not in _NOT_SHARED:
            yield f"{_prefix(alias)}_ENV_{name}"


def _prefix(alias: str) -> str:
    return alias.upper().replace("-", "_")


def _named(container: Inspected, links: Sequence[Link]) -> Iterator[str]:
    """A program may read more: only what is written where the Engine shows it can be seen."""
    config = container.config
    text = "\n".join((*(config.entrypoint or ()), *(config.cmd or ()), *(config.env or ())))
    for link in links:
        for name in (*link.variables, *link.copied):
            if re.search(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])", text):
                yield name


def _breaks(links: Sequence[Link]) -> Iterator[str]:
    count = sum(len(link.variables) + len(link.copied) for link in links)
    names = ", ".join(dict.fromkeys(link.alias for link in links))
    yield (
        f"Engine {VARIABLES_OFF}: its {count} link variables are not set any more,"
        " unless the Engine runs with DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS=1"
    )
    yield (
        f"Engine {LINKS_GONE}: the default bridge has no links any more: it does not find {names},"
        " and there is no such setting"
    )


def _compose(
    container: Inspected,
    linked: Sequence[tuple[str, str, Inspected | None]],
    environment: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """One network for each consumer: another one may mean something else by the same alias."""
    own = _own_name(container)
    network = f"{own}-links"
    own_service: dict[str, Any] = {
        "image": AMBASSADOR_IMAGE if _is_ambassador(container.config.image) else container.config.image,
        "environment": {name: value for found in environment.values() for name, value in found.items()},
        "networks": [network],
    }
    if _is_ambassador(container.config.image):
        own_service |= {"cap_add": ["NET_ADMIN"], "sysctls": {"net.ipv4.ip_forward": "1"}}
    services: dict[str, Any] = {own: own_service}
    for target, alias, found in linked:
        service = services.setdefault(target, {"image": found.config.image if found else "", "networks": {}})
        service["networks"].setdefault(network, {"aliases": []})["aliases"].append(alias)
    return {"services": services, "networks": {network: {}}}


def _is_ambassador(image: str) -> bool:
    """The images that the pattern was made with: svendowideit/ambassador, and those named after it."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0].endswith("ambassador")


def _render(document: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(_doubled(document), sort_keys=False, allow_unicode=False, width=4096)
    return text


def _doubled(value: Any) -> Any:
    """A dollar sign begins a variable in a Compose file."""
    if isinstance(value, dict):
        return {_doubled(key): _doubled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubled(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _own_name(container: Inspected) -> str:
    return container.name.removeprefix("/")
