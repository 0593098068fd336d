"""Containers of the scope: what each request about them becomes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from msgspec.structs import replace

from dom0.engine import bodies
from dom0.socketproxy import (
    directories,
    images,
    inner,
    links,
    listing,
    networks,
    owned,
    requests,
    rules,
    shown,
    volumes,
)
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, CONFLICT, FORBIDDEN, NOT_FOUND, Refused, short, too_many

FILTERS = (
    *("ancestor", "before", "exited", "expose", "health", "id", "label"),
    *("name", "network", "publish", "since", "status", "volume"),
)


async def listed(context: Context, asked: Asked) -> Document:
    """`limit` is of the scope's own, and counts those that have ended too."""
    query = {key: value for key, value in asked.query.items() if key not in ("limit", "filters")}
    limit = int(asked.query.get("limit") or 0)
    if limit > 0:
        query["all"] = "1"
    filters = Filters.read(asked.query.get("filters", ""))
    wanted = filters.without("label")  # labels are compared as the scope sees them, by us
    try:
        for key in ("before", "since"):
            wanted = await wanted.mapped(key, lambda ref: _id_of(context, ref))
        wanted = await wanted.mapped("ancestor", lambda ref: images.usable(context, ref))
        wanted = await wanted.mapped("network", lambda ref: networks.name_of(context, ref))
    except Refused:  # nothing of the scope's can be meant
        return Document([])
    scope = context.scope
    wanted = wanted.renamed("name", scope.long_pattern).renamed("volume", scope.long).checked(FILTERS)
    rows = owned.containers(context, wanted, query)
    seen = await listing.written(rows, lambda row: shown.container_row(context, row), filters)
    return Document(seen[: limit if limit > 0 else None])


async def _id_of(context: Context, reference: str) -> str:
    return (await owned.container(context, reference)).id


async def created(context: Context, asked: Asked) -> Document:
    body: requests.Container = asked.body
    if not body.image:
        raise Refused(BAD_REQUEST, "Image: is empty", field="Image")
    name = asked.query.get("name", "").removeprefix("/")
    if not name:  # the Engine's own names have no prefix
        base = images.full_name(body.image).partition("@")[0].rpartition("/")[2].partition(":")[0]
        name = f"{base}-{secrets.token_hex(4)}"
    owned.check_name(name)
    query = {"name": context.scope.long(name)} | {k: v for k, v in asked.query.items() if k == "platform" and v}
    async with context.making:
        await _check_room(context, name)
        await _check_chosen_ports(context, rules.chosen_ports(body.host_config.port_bindings))
        image = await images.find(context, body.image)
        checked = await _checked(context, body, name, image)
        return await _made(context, query, checked, image)


async def _made(context: Context, query: Mapping[str, str], body: requests.Container, image: images.Image) -> Document:
    """As it was checked, or not at all; until that is known no other request finds it. Holds `making`. Raises Refused.

    The name of its image may have moved meanwhile, to one with labels and volumes that nobody has looked at.
    """
    name, made = query["name"], ""
    if name in context.unseen:
        await _take_back(context, name, made)
    context.unseen.add(name)
    try:
        reply = await context.upstream.ask("POST", "containers", "create", query=query, body=body)
        if reply.status < BAD_REQUEST:
            made = reply.document["Id"]
            await _check_made(context, made, body, image)
    except BaseException:  # of being cancelled too
        await _take_back(context, name, made)
        raise
    context.unseen.discard(name)
    if reply.status >= BAD_REQUEST:
        raise context.refusal(reply)
    return Document(reply.document, status=reply.status)


async def _check_made(context: Context, container: str, asked: requests.Container, image: images.Image) -> None:
    """One ID can have labels and volumes of several platforms. Raises Refused."""
    reply = await context.upstream.ask("GET", "containers", container, "json")
    if reply.status == 200 and reply.document["Image"] == image["Id"]:
        config = reply.document["Config"]
        labels = {key for key in config["Labels"] or () if not key.startswith(context.scope.label_prefix)}
        volumes = {*asked.volumes, *((image.get("Config") or {}).get("Volumes") or ())}
        if labels <= asked.labels.keys() and volumes.issuperset(config.get("Volumes") or ()):
            return
    what = f"{context.scope.short_image(asked.image)}: has become another image meanwhile: try it again"
    raise Refused(CONFLICT, what, field="Image")


async def _take_back(context: Context, name: str, made: str) -> None:
    """`made`: its ID, "" where the Engine has not said it: then what is called so, and was not started by anybody.

    Raises Refused while it is there: then it stays unseen.
    """
    force = "1" if made else "0"
    if not made:
        reply = await context.upstream.ask("GET", "containers", name, "json")
        if reply.status not in (200, NOT_FOUND):
            raise context.refusal(reply)
        if reply.status == 200 and context.scope.owns(name, reply.document["Config"]["Labels"]):
            made = reply.document["Id"] if reply.document["State"]["Status"] == "created" else ""
    if made:
        reply = await context.upstream.ask("DELETE", "containers", made, query={"v": "1", "force": force})
        if reply.status not in (204, NOT_FOUND, CONFLICT):
            raise context.refusal(reply)
    context.unseen.discard(name)


async def _check_room(context: Context, name: str) -> None:
    """For one more that is called `name`. Holds `making`. Raises Refused."""
    if there := await owned.named(context, name):
        raise Refused(
            CONFLICT,
            f'Conflict. The container name "/{name}" is already in use by container "{there.id}". '
            "You have to remove (or rename) that container to be able to reuse that name.",
        )
    if not context.room.take("container", 1):
        count = sum([1 async for _ in owned.containers(context)]) + 1
        if count > context.grants.containers:
            raise too_many("containers", context.grants.containers, Grants(containers=count))
        context.room.found("container", context.grants.containers - count)


async def _check_chosen_ports(context: Context, wanted: int) -> None:
    """All containers of the scope have as many as it may have containers. Holds `making`. Raises Refused."""
    if context.room.take("port", wanted):
        return
    there = 0
    async for row in owned.containers(context):
        reply = await context.upstream.ask("GET", "containers", row["Id"], "json")
        there += rules.chosen_ports(reply.document["HostConfig"].get("PortBindings")) if reply.status == 200 else 0
    if there + wanted > context.grants.containers:
        most = f"{context.grants.containers}, as many as containers"
        what = f"ports that the Engine chooses: {most}, are all that was granted"
        raise Refused(FORBIDDEN, what, field="HostConfig.PortBindings", grant=Grants(containers=there + wanted))
    context.room.found("port", context.grants.containers - there - wanted)


async def _checked(context: Context, body: requests.Container, name: str, image: images.Image) -> requests.Container:
    """As the Engine gets it. Its volumes and directories are made: else the Engine makes some that nobody owns.

    Raises Refused.
    """
    wanted = rules.references(body)
    try:
        found = {reference: await owned.container(context, reference) for reference in wanted.containers}
        connected = {reference: await networks.name_of(context, reference) for reference in wanted.networks}
    except Refused as refused:
        if refused.status == NOT_FOUND:  # which clients take for the image's, and pull it
            raise Refused(BAD_REQUEST, refused.message) from refused
        raise
    _check_orchestrator(context, body.host_config, found)
    sources = [found[source.partition(":")[0]] for source in body.host_config.volumes_from]
    inherited = [mount["Destination"] for source in sources for mount in source.document["Mounts"]]
    anonymous = rules.anonymous(body, (image.get("Config") or {}).get("Volumes") or (), inherited)
    resolved = rules.Resolved(
        image=images.told(context, image, body.image),
        image_labels=images.labels(image),
        image_command=images.command(image),
        image_environment=images.environment(image),
        image_ports=len((image.get("Config") or {}).get("ExposedPorts") or ()),
        socket=context.socket,
        cgroup_parent=inner.parent(context, body.host_config.cgroup_parent, "HostConfig.CgroupParent"),
        containers={reference: one.id for reference, one in found.items()},
        named={reference: one.name for reference, one in found.items()},
        networks=connected,
        volumes={reference: await volumes.name_of(context, reference) for reference in wanted.volumes},
        anonymous=anonymous,
    )
    if body.host_config.network_mode in networks.DEFAULTS:
        told = links.variables(name, body.host_config.links, {ref: one.document for ref, one in found.items()})
        own = {one.partition("=")[0] for one in body.env}
        body = replace(body, env=(*(one for one in told if one.partition("=")[0] not in own), *body.env))
    body = replace(body, host_config=replace(body.host_config, cgroup_parent=""))  # it is resolved
    checked = rules.container(body, context.scope, context.grants, resolved, name)
    for volume in wanted.volumes:
        await volumes.provide(context, bodies.VolumeBody(name=volume))
    unnamed = [mount for mount in body.host_config.mounts or () if mount.type == "volume" and not mount.source]
    await volumes.check_room(context, len(anonymous) + len(unnamed))
    bounds = [rules.bound(asked, context.grants) for asked in rules.host_mounts(body.host_config)]
    await directories.provide(context, image, bounds)
    return checked


def _check_orchestrator(context: Context, host: requests.HostConfig, found: Mapping[str, owned.OwnedContainer]) -> None:
    """Its namespaces and mounts are what its owner gave it, and no grant of the scope's. Raises Refused."""
    modes = {"NetworkMode": host.network_mode, "PidMode": host.pid_mode, "IpcMode": host.ipc_mode}
    shared = [(key, mode, mode.partition(":")[2]) for key, mode in modes.items() if mode.startswith("container:")]
    volumes = [("VolumesFrom", source, source.partition(":")[0]) for source in host.volumes_from]
    for key, value, reference in (*shared, *volumes):
        if context.scope.is_orchestrator(found[reference].document["Config"]["Labels"]):
            what = f"HostConfig.{key}: {short(value)}: an orchestrator hands on nothing that it was given itself"
            raise Refused(FORBIDDEN, what, field=f"HostConfig.{key}", value=short(value))


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
    _check_own(context, await owned.container(context, asked.names["container"]))
    return await passed(context, replace(asked, body=rules.update(asked.body, context.grants)))


async def removed(context: Context, asked: Asked) -> Call:
    _check_own(context, await owned.container(context, asked.names["container"]))
    return await passed(context, asked)


def _check_own(context: Context, found: owned.OwnedContainer) -> None:
    """Raises Refused for the orchestrator's own container, whose limits are its owner's to say."""
    if context.scope.is_orchestrator(found.document["Config"]["Labels"]):
        name = context.scope.short(found.name)
        what = f"{name}: is the orchestrator's own container: its owner changes it, in the project that it is of"
        raise Refused(FORBIDDEN, what)


async def attached(context: Context, asked: Asked) -> Call:
    return replace(await passed(context, asked), hijack=True)


async def stats(context: Context, asked: Asked) -> Call:
    return replace(
        await passed(context, asked),
        line=lambda line: line | {"name": "/" + context.scope.short(line.get("name", "").removeprefix("/"))},
    )


async def renamed(context: Context, asked: Asked) -> Document:
    """The Engine's DNS follows no rename: a container that does not run yet is connected anew, by the new name."""
    name = owned.check_name(asked.query.get("name", "").removeprefix("/"))
    found = await owned.container(context, asked.names["container"])
    _check_own(context, found)
    waits = not found.document["State"]["Running"]
    if waits:
        await networks.reconnect(context, found, name)
    query = {"name": context.scope.long(name)}
    reply = await context.upstream.ask("POST", "containers", found.id, "rename", query=query)
    if reply.status >= BAD_REQUEST:
        if waits:
            await networks.reconnect(context, found, context.scope.short(found.name))
        raise context.refusal(reply)
    return Document(status=reply.status)


async def exec_created(context: Context, asked: Asked) -> Call:
    found = await owned.container(context, asked.names["container"])
    return Call(method="POST", path=("containers", found.id, "exec"), body=rules.execution(asked.body))


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
    stopped = Filters({"status": ["created", "exited", "dead"]})
    async for row in owned.containers(context, stopped, {"all": "1", "size": "1"}):
        if context.scope.is_orchestrator(row["Labels"]):
            continue
        reply = await context.upstream.ask("DELETE", "containers", row["Id"])
        if reply.status == 204:
            deleted.append(row["Id"])
            space += row.get("SizeRw", 0)
    return Document({"ContainersDeleted": deleted, "SpaceReclaimed": space})
