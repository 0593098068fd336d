"""What would be refused of a container, a network or a volume, and what it would take. Pure: no Engine is asked.

Each thing that a body asks for is judged as if it were the only one: so all that would be refused is found. References
to other objects are taken to be the scope's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import Any

import msgspec

from dom0.engine import bodies
from dom0.socketproxy import requests, rules, strict
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.images import full_name
from dom0.socketproxy.partial import merge
from dom0.socketproxy.refusal import NOT_FOUND, Refused, not_granted, short
from dom0.socketproxy.scope import Scope

SCOPE = Scope("explained")
SETS = ("Annotations", "PortBindings", "StorageOpt", "Sysctls", "Tmpfs")  # keys of HostConfig: by name, each by itself


def needed(refused: Iterable[Refused], granted: Grants) -> Grants:
    """`granted`, and what would allow those of `refused` that a grant can allow."""
    return reduce(merge, (one.grant for one in refused if one.grant), granted)


def container(raw: bytes, grants: Grants) -> list[Refused]:
    """Of the body of `POST /containers/create`."""
    try:
        document = strict.parse(raw)
    except Refused as refused:
        return [refused]
    if not isinstance(document, dict):
        return _judged(lambda: strict.read(raw, requests.Container))
    found = [refused for part in _parts(document) for refused in _judged(_create, part, grants)]
    together = [] if any(one.grant is None for one in found) else _judged(_create, document, needed(found, grants))
    return [*found, *together]


def build(image: str, grants: Grants) -> list[Refused]:
    """Of an image that is built through the socket: it is the scope's own then."""
    return [] if grants.images.build else [not_granted("build", image, Grants(images=Images(build=True)))]


def network(body: bodies.NetworkBody, name: str, grants: Grants) -> list[Refused]:
    """Of the body of `POST /networks/create`."""
    return _judged(lambda: rules.network(strict.read(_named(body, name), requests.Network), SCOPE, grants))


def volume(body: bodies.VolumeBody, name: str) -> list[Refused]:
    """Of the body of `POST /volumes/create`."""
    return _judged(lambda: rules.volume(strict.read(_named(body, name), bodies.VolumeBody), SCOPE))


def _judged(judge: Callable[..., object], *arguments: object) -> list[Refused]:
    try:
        judge(*arguments)
    except Refused as refused:
        return [refused]
    return []


def _named(body: bodies.Body, name: str) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(body) | {"Name": name})


def _parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """`document` in pieces, each a body with one thing in it."""
    for key, value in document.items():
        match key, value:
            case "HostConfig", dict() as host:
                for inner, asked in host.items():
                    yield from ({"HostConfig": {inner: one}} for one in _pieces(inner, asked))
            case "NetworkingConfig", {"EndpointsConfig": dict() as endpoints}:
                for name, endpoint in endpoints.items():
                    yield {"NetworkingConfig": {"EndpointsConfig": {name: endpoint}}}
            case _:
                yield {key: value}


def _pieces(key: str, value: Any) -> Iterator[Any]:
    if key in SETS and isinstance(value, dict):
        yield from ({name: one} for name, asked in value.items() for one in _pieces(name, asked))
    elif isinstance(value, list) and value:
        yield from ([one] for one in value)
    else:
        yield value


def _create(document: dict[str, Any], grants: Grants) -> None:
    """Raises Refused."""
    body = strict.read(msgspec.json.encode(document), requests.Container)
    if body.image and not grants.may_use(name := full_name(body.image)):
        grant = Grants(images=Images(use=(name,)))
        raise Refused(NOT_FOUND, f"Image: {name}: not granted", field="Image", value=short(body.image), grant=grant)
    wanted = rules.references(body)
    resolved = rules.Resolved(
        image=body.image,
        containers={reference: reference for reference in wanted.containers},
        networks={name: name if name in grants.join else SCOPE.long(name) for name in wanted.networks},
        named={reference: reference for reference in wanted.containers},
        volumes={reference: reference for reference in wanted.volumes},
    )
    rules.container(body, SCOPE, grants, resolved, "explained")
