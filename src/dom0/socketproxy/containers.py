"""Containers of the scope: what each request about them becomes."""

from __future__ import annotations

import secrets

import msgspec

from dom0.engine import bodies
from dom0.socketproxy import directories, images, networks, owned, requests, rules, shown, volumes
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters, has_label
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, Refused, too_many

FILTERS = (
    *("ancestor", "before", "exited", "expose", "health", "id", "label"),
    *("name", "network", "publish", "since", "status", "volume"),
)


async def listed(context: Context, asked: Asked) -> Document:
    """`limit` is of the scope's own, and counts those that have ended too."""
    query = {key: value for key, value in asked.query.items() if key != "limit"}
    limit = int(asked.query.get("limit") or 0)
    if limit > 0:
        query["all"] = "1"
    filters = Filters.read(query.pop("filters", ""))
    found = await _engine_filters(context, filters)
    if found is None:
        return Document([])
    query["filters"] = found.written()
    rows = [shown.container_row(context, row) for row in await owned.containers(context, query)]
    wanted = filters.values.get("label", [])
    seen = [row for row in rows if all(has_label(row["Labels"], text) for text in wanted)]
    return Document(seen[: limit if limit > 0 else None])


async def _engine_filters(context: Context, filters: Filters) -> Filters | None:
    """None: nothing of the scope's can be meant. Labels are compared as the scope sees them, by us."""
    scope = context.scope
    filters = Filters({key: values for key, values in filters.values.items() if key != "label"})
    try:
        for key in ("before", "since"):
            filters = await filters.mapped(key, lambda ref: _id_of(context, ref))
        filters = await filters.mapped("ancestor", lambda ref: images.usable(context, ref))
        filters = await filters.mapped("network", lambda ref: networks.name_of(context, ref))
    except Refused:
        return None
    return filters.renamed("name", scope.long_pattern).renamed("volume", scope.long).checked(FILTERS)


async def _id_of(context: Context, reference: str) -> str:
    return (await owned.container(context, reference)).id


async def created(context: Context, asked: Asked) -> Call:
    body: requests.Container = asked.body
    if (there := len(await owned.containers(context))) >= context.grants.containers:
        raise too_many("containers", context.grants.containers, Grants(containers=there + 1))
    if not body.image:
        raise Refused(BAD_REQUEST, "Image: is empty", field="Image")
    name = owned.check_name(asked.query.get("name", "").removeprefix("/") or _any_name(body.image))
    wanted = rules.references(body)
    resolved = rules.Resolved(
        image=await images.usable(context, body.image),
        socket=context.socket,
        cgroup_parent=context.cgroup_parent,
        containers={reference: await _id_of(context, reference) for reference in wanted.containers},
        networks={reference: await networks.name_of(context, reference) for reference in wanted.networks},
    )
    query = {"name": context.scope.long(name)} | {k: v for k, v in asked.query.items() if k == "platform" and v}
    checked = rules.container(body, context.scope, context.grants, resolved, name)
    for volume in wanted.volumes:
        await volumes.provide(context, bodies.VolumeBody(name=volume))  # else the Engine makes one that nobody owns
    await directories.provide(context, resolved.image, rules.bounds(body.host_config, context.grants))
    return Call(method="POST", path=("containers", "create"), query=query, body=checked)


def _any_name(image: str) -> str:
    """The Engine's own names have no prefix."""
    base = images.full_name(image).partition("@")[0].rpartition("/")[2].partition(":")[0]
    return f"{base}-{secrets.token_hex(4)}"


async def inspected(context: Context, asked: Asked) -> Document:
    found = await owned.container(context, asked.names["container"])
    if asked.query.get("size") == "1":
        reply = await context.upstream.ask("GET", "containers", found.id, "json", query={"size": "1"})
        found = found._replace(document=reply.document)
    return Document(shown.container(context, found.document))


async def passed(context: Context, asked: Asked) -> Call:
    """What only touches the container itself, and answers about nothing else."""
    found = await owned.container(context, asked.names["container"])
    return Call(method=asked.method, path=("containers", found.id, *asked.path[2:]), query=asked.query, body=asked.body)


async def updated(context: Context, asked: Asked) -> Call:
    return await passed(context, msgspec.structs.replace(asked, body=rules.update(asked.body, context.grants)))


async def attached(context: Context, asked: Asked) -> Call:
    return msgspec.structs.replace(await passed(context, asked), hijack=True)


async def stats(context: Context, asked: Asked) -> Call:
    return msgspec.structs.replace(
        await passed(context, asked), line=lambda line: shown.stats_line(context.scope, line)
    )


async def renamed(context: Context, asked: Asked) -> Call:
    """The Engine's DNS follows no rename: a container that does not run yet is connected anew, by the new name."""
    name = owned.check_name(asked.query.get("name", "").removeprefix("/"))
    found = await owned.container(context, asked.names["container"])
    if not found.document["State"]["Running"]:
        await networks.reconnect(context, found, name)
    return Call(method="POST", path=("containers", found.id, "rename"), query={"name": context.scope.long(name)})


async def exec_created(context: Context, asked: Asked) -> Call:
    found = await owned.container(context, asked.names["container"])
    return Call(method="POST", path=("containers", found.id, "exec"), body=asked.body)


async def exec_started(context: Context, asked: Asked) -> Call:
    await owned.exec_container(context, asked.names["exec"])
    return Call(method="POST", path=("exec", asked.names["exec"], "start"), body=asked.body, hijack=True)


async def exec_passed(context: Context, asked: Asked) -> Call:
    await owned.exec_container(context, asked.names["exec"])
    return Call(method=asked.method, path=("exec", asked.names["exec"], *asked.path[2:]), query=asked.query)


async def pruned(context: Context, asked: Asked) -> Document:
    """By a list and deletions of our own: the Engine's filter is the client's word."""
    filters = Filters.read(asked.query.get("filters", "")).checked(("label", "label!", "until"))
    if filters.values:
        raise Refused(BAD_REQUEST, "filters: prune without them, or remove containers by name")
    deleted, space = [], 0
    stopped = Filters({"status": ["created", "exited", "dead"]}).written()
    for row in await owned.containers(context, {"all": "1", "size": "1", "filters": stopped}):
        reply = await context.upstream.ask("DELETE", "containers", row["Id"])
        if reply.status == 204:
            deleted.append(row["Id"])
            space += row.get("SizeRw", 0)
    return Document({"ContainersDeleted": deleted, "SpaceReclaimed": space})
