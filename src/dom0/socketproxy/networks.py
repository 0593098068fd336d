"""Networks of the scope, and those that it may join. Its `bridge` is its own, made when a container needs it: the
Engine's is shared by all.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import msgspec

from dom0.engine import bodies
from dom0.socketproxy import listing, owned, requests, rules, shown
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters, by_name
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, NOT_FOUND, Refused, too_many
from dom0.socketproxy.shown import BRIDGE, PREDEFINED

DEFAULTS = ("", "default", BRIDGE)  # of a container that names none
CREATED = 201
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


async def listed(context: Context, asked: Asked) -> Document:
    found = await _rows(context, by_name(asked.query, FILTERS, context.scope))
    filters = Filters.read(asked.query.get("filters", ""))
    found += await _joinable(context, filters.without("label"))
    rows = [row for row in (shown.network(context.scope, row) for row in found) if filters.fit(row["Labels"])]
    names = [row["Name"] for row in rows]
    return Document(
        rows + [row for row in shown.predefined(context.scope) if row["Name"] not in names and _is_meant(row, filters)]
    )


def _is_meant(network: dict[str, Any], filters: Filters) -> bool:
    """Whether filters leave a network of the Engine's own in the list. A name is found by a part of it."""
    known: dict[str, Callable[[str], bool]] = {
        "driver": lambda text: text == network["Driver"],
        "id": network["Id"].startswith,
        "name": lambda text: text.strip("^$") in network["Name"],
        "scope": lambda text: text == "local",
        "type": lambda text: text == "builtin",
    }
    return all(key in known and any(map(known[key], texts)) for key, texts in filters.values.items() if texts)


async def inspected(context: Context, asked: Asked) -> Document:
    reference = asked.names["network"]
    try:
        return Document(shown.network(context.scope, await _network(context, reference)))
    except Refused:
        for row in shown.predefined(context.scope):
            if reference in (row["Name"], row["Id"]):
                return Document(row)
        raise


async def created(context: Context, asked: Asked) -> Document:
    body: requests.Network = asked.body
    if not _NAME.fullmatch(body.name):
        raise Refused(BAD_REQUEST, f"{body.name!r}: no name of a network", field="Name")
    if body.name in (*PREDEFINED, "default", *context.grants.join):
        raise Refused(FORBIDDEN, f"network with name {body.name}: that name is taken", field="Name")
    async with context.making:
        if (there := len(await _rows(context))) >= context.grants.networks:
            raise too_many("networks", context.grants.networks, Grants(networks=there + 1))
        checked = rules.network(body, context.scope, context.grants)
        reply = await context.ask("POST", "networks", "create", body=checked)
    return Document(reply.document, status=reply.status)


async def removed(context: Context, asked: Asked) -> Call:
    reference = asked.names["network"]
    network = {} if reference in PREDEFINED else await _network(context, reference)
    if not network or network["Name"] == context.scope.long(BRIDGE):
        raise Refused(FORBIDDEN, f"{reference} is a pre-defined network and cannot be removed")
    if not context.scope.owns_name(network["Name"]):
        raise Refused(FORBIDDEN, f"{network['Name']}: may be joined, not removed")
    return Call(method="DELETE", path=("networks", network["Id"]))


async def connected(context: Context, asked: Asked) -> Call:
    """The container is the scope's, and the network too or one that was granted."""
    body: requests.Connect = asked.body
    network = await _network(context, asked.names["network"])
    found = await owned.container(context, body.container)
    endpoint = body.endpoint_config or bodies.EndpointSettings()
    links = {link.partition(":")[0] for link in endpoint.links}
    named = {reference: (await owned.container(context, reference)).name for reference in links}
    resolved = rules.Resolved(image="", containers={}, named=named, networks={}, volumes={})
    is_own = context.scope.owns_name(network["Name"])
    if not is_own:
        hostname = found.document["Config"]["Hostname"]
        rules.check_nameless(network["Name"], hostname="" if hostname == found.id[:12] else hostname)
    checked = rules.endpoint_of(endpoint, resolved, context.scope.short(found.name) if is_own else "")
    return Call(
        method="POST",
        path=("networks", network["Id"], "connect"),
        body=requests.Connect(container=found.id, endpoint_config=checked),
    )


async def disconnected(context: Context, asked: Asked) -> Call:
    body: requests.Disconnect = asked.body
    network = await _network(context, asked.names["network"])
    found = await owned.container(context, body.container)
    return Call(
        method="POST",
        path=("networks", network["Id"], "disconnect"),
        body=requests.Disconnect(container=found.id, force=body.force),
    )


async def reconnect(context: Context, found: owned.OwnedContainer, name: str) -> None:
    """`found` is called `name` on its networks from now on, and not what it was called.

    Raises Refused; its networks are then as they were.
    """
    try:
        await _connect_anew(context, found, name)
    except Refused:
        with contextlib.suppress(Refused):
            await _connect_anew(context, found, context.scope.short(found.name))
        raise


async def _connect_anew(context: Context, found: owned.OwnedContainer, name: str) -> None:
    before = context.scope.short(found.name)
    for network, settings in found.document["NetworkSettings"]["Networks"].items():
        if not context.scope.owns_name(network):
            continue
        aliases = [alias for alias in settings["Aliases"] or () if alias != before]
        endpoint = bodies.EndpointSettings(
            aliases=(*aliases, name),
            links=tuple(settings["Links"] or ()),
            ipam_config=msgspec.convert(settings["IPAMConfig"], bodies.EndpointIpamConfig | None),
        )
        leave = requests.Disconnect(container=found.id)
        await context.upstream.ask("POST", "networks", network, "disconnect", body=leave)
        join = requests.Connect(container=found.id, endpoint_config=endpoint)
        await context.ask("POST", "networks", network, "connect", body=join)  # refused where it could not be left, too


async def pruned(context: Context, asked: Asked) -> Document:
    """Those that nobody is connected to, by deletions of our own."""
    if asked.query.get("filters", "{}") != "{}":
        raise Refused(BAD_REQUEST, "filters: prune without them, or remove networks by name")
    deleted = []
    for row in await _rows(context):
        if row["Name"] == context.scope.long(BRIDGE):
            continue
        reply = await context.upstream.ask("DELETE", "networks", row["Id"])
        if reply.status == 204:
            deleted.append(context.scope.short(row["Name"]))
    return Document({"NetworksDeleted": deleted})


async def _rows(context: Context, filters: Filters = listing.ALL) -> list[listing.Row]:
    return [row async for row in listing.owned(context.upstream, context.scope, "network", filters)]


async def _joinable(context: Context, filters: Filters = listing.ALL) -> list[listing.Row]:
    """Those of others that were granted."""
    names = [name for name in context.grants.join if not context.scope.owns_name(name)]
    if not names:
        return []
    if "name" not in filters.values:
        filters = filters.with_values("name", [f"^{re.escape(name)}$" for name in names])
    reply = await context.ask("GET", "networks", query={"filters": filters.written()})
    return [row for row in reply.document if row["Name"] in names]


async def _network(context: Context, reference: str) -> dict[str, Any]:
    """By name or ID, one that may be joined too. Raises Refused."""
    if reference in DEFAULTS:
        reference = BRIDGE
    rows = await _rows(context) + await _joinable(context)
    named = [row["Id"] for row in rows if context.scope.short(row["Name"]) == reference]
    found = named or [row["Id"] for row in rows if reference and row["Id"].startswith(reference)]
    if len(found) > 1:
        raise Refused(BAD_REQUEST, f"network {reference} is ambiguous ({len(found)} matches found on ID prefix)")
    if found:
        reply = await context.upstream.ask("GET", "networks", found[0])
        if reply.status == 200:
            return dict(reply.document)
    raise Refused(NOT_FOUND, f"network {reference} not found")


async def name_of(context: Context, reference: str) -> str:
    """In the Engine. Raises Refused for what is not the scope's."""
    if reference not in DEFAULTS:
        return str((await _network(context, reference))["Name"])
    name = context.scope.long(BRIDGE)
    if not await _is_there(context, name):
        asked = rules.network(requests.Network(name=BRIDGE), context.scope, context.grants)
        reply = await context.upstream.ask("POST", "networks", "create", body=asked)
        if reply.status != CREATED and not await _is_there(context, name):  # else another request was faster
            raise context.refusal(reply)
    return name


async def _is_there(context: Context, name: str) -> bool:
    reply = await context.upstream.ask("GET", "networks", name)
    return reply.status == 200 and context.scope.owns(name, reply.document["Labels"])
