"""The Engine's documents as a scope sees them: its own names, nobody else's. Pure.

Where the Engine says names, paths and labels was found by walking its real answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from dom0.names import ENGINE_SOCKET
from dom0.socketproxy import paths
from dom0.socketproxy.context import Context
from dom0.socketproxy.hostpath import normal
from dom0.socketproxy.scope import Scope

BRIDGE = "bridge"  # what a container is in that names no network; each scope has its own
PREDEFINED = {BRIDGE: "bridge", "host": "host", "none": "null"}  # networks of every Engine, with their drivers

Doc = dict[str, Any]


def own_name(row: Doc) -> str:
    """In the Engine, of a row of containers; the names of links to it have a second slash."""
    return next((name[1:] for name in row["Names"] or () if name.count("/") == 1), "")


def container_row(context: Context, row: Doc) -> Doc:
    """Of `GET /containers/json`."""
    scope = context.scope
    return row | {
        "Names": ["/" + scope.short(name[1:]) for name in row["Names"] if name.count("/") == 1],
        "Image": scope.short_image(row["Image"]),
        "Labels": paths.shown(scope.shown(row["Labels"])),
        "HostConfig": row["HostConfig"] | {"NetworkMode": scope.short(row["HostConfig"].get("NetworkMode", ""))},
        "NetworkSettings": _networks(scope, row["NetworkSettings"], scope.short(own_name(row))),
        "Mounts": [_mount(context, mount, paths.written(row["Labels"])) for mount in row.get("Mounts") or ()],
    }


def container(context: Context, found: Doc) -> Doc:
    """Of `GET /containers/{id}/json`."""
    scope = context.scope
    host = found["HostConfig"]
    written = paths.written(found["Config"]["Labels"])
    return found | {
        "Name": "/" + scope.short(found["Name"][1:]),
        "Config": _config(scope, found["Config"]),
        "HostConfig": host
        | _asked_mounts(context, host, written, found["Config"].get("Volumes") or ())
        | {
            "VolumesFrom": [scope.short(source) for source in host.get("VolumesFrom") or ()] or None,
            "Links": [_link(scope, link) for link in host.get("Links") or ()] or None,
            "NetworkMode": scope.short(host.get("NetworkMode", "")),
            "LogConfig": _log(scope, host.get("LogConfig") or {}),
            "CgroupParent": "",
        },
        "NetworkSettings": _networks(scope, found["NetworkSettings"], scope.short(found["Name"][1:])),
        "Mounts": [_mount(context, mount, written) for mount in found.get("Mounts") or ()],
        "LogPath": "",
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "GraphDriver": {"Name": found.get("GraphDriver", {}).get("Name", ""), "Data": None},
    }


def _log(scope: Scope, found: Doc) -> Doc:
    """With the names of labels, as they were asked for."""
    config = found.get("Config") or {}
    if "labels" not in config:
        return found
    names = (key.removeprefix(scope.label_prefix) for key in config["labels"].split(","))
    return found | {"Config": config | {"labels": ",".join(names)}}


def _config(scope: Scope, config: Doc) -> Doc:
    """Of a container or an image."""
    return config | {
        "Image": scope.short_image(config.get("Image", "")),
        "Labels": paths.shown(scope.shown(config.get("Labels"))),
    }


def _networks(scope: Scope, settings: Doc, name: str) -> Doc:
    """`name`: of the container, as the scope calls it."""
    networks = settings.get("Networks") or {}
    return settings | {"Networks": {scope.short(key): _endpoint(scope, end, name) for key, end in networks.items()}}


def _endpoint(scope: Scope, endpoint: Doc, name: str) -> Doc:
    """Without the alias that we gave it: the name of its container."""
    aliases = [alias for alias in endpoint.get("Aliases") or () if alias != name] or None
    names: Doc = {"Aliases": aliases}
    if endpoint.get("DNSNames"):
        names["DNSNames"] = [scope.short(other) for other in endpoint["DNSNames"]]
    links = {"Links": [_link(scope, link) for link in endpoint["Links"]]} if endpoint.get("Links") else {}
    return endpoint | names | links


def _link(scope: Scope, link: str) -> str:
    """`/guest.db:/guest.web/db`, or `guest.db:db`."""
    return ":".join(
        ("/" if part.startswith("/") else "") + scope.short(part.removeprefix("/")) for part in link.split(":")
    )


def _asked_mounts(context: Context, host: Doc, written: Mapping[str, str], anonymous: Iterable[str]) -> Doc:
    """What of the host was bound stands where it was written, `Binds` or `Mounts`, and as it was written there.

    `anonymous`: targets of volumes without a name, which became mounts so that they have our label.
    """
    targets = {normal(target) for target in anonymous}
    roots = paths.roots(context.grants.host_paths, context.scope)
    asked = [bind.partition(":") for bind in host.get("Binds") or ()]
    binds = [roots.get(source, context.scope.short(source)) + colon + rest for source, colon, rest in asked]
    mounts = []
    for mount in host.get("Mounts") or ():
        source = _host_source(context, mount["Type"], mount.get("Source", ""), written.get(mount["Target"], ""))
        if not mount.get("Source") and mount["Target"] in targets:
            continue
        if ":" in source:
            binds.append(source)
        elif source:
            kept = {key: value for key, value in mount.items() if key != "VolumeOptions"}
            mounts.append(kept | {"Type": "bind", "Source": source})
        else:
            seen = mount | {"Source": _path(context, context.scope.short(mount.get("Source", "")))}
            if options := mount.get("VolumeOptions"):
                seen["VolumeOptions"] = options | {"Labels": context.scope.shown(options["Labels"])}
            mounts.append(seen)
    return {"Binds": binds or None, "Mounts": mounts or None}


def _mount(context: Context, mount: Doc, written: Mapping[str, str]) -> Doc:
    """Where a volume lies on the host is nobody's business in here."""
    name = mount.get("Name", "")
    source = _host_source(context, mount["Type"], name or mount["Source"], written.get(mount["Destination"], ""))
    if source:
        kept = {key: mount[key] for key in ("Destination", "RW")}
        shape = {"Type": "bind", "Mode": "" if mount["RW"] else "ro", "Propagation": "rprivate"}
        return {**shape, **kept, "Source": source.partition(":")[0]}
    named = {"Name": context.scope.short(name)} if name else {}
    source = "" if mount.get("Type") == "volume" else _path(context, mount.get("Source", ""))
    return mount | named | {"Source": source}


def _host_source(context: Context, kind: str, source: str, written: str) -> str:
    """What the scope has written for a path of the host; "" for all else, whatever the labels of an image say.

    Of volumes from another container only the granted path is known that they lie in.
    """
    roots = paths.roots(context.grants.host_paths, context.scope)
    if source == context.socket or (kind != "bind" and source not in roots):
        return ""
    return written or roots.get(source, "")


def _path(context: Context, path: str) -> str:
    return ENGINE_SOCKET if path == context.socket else path


def image(context: Context, found: Doc) -> Doc:
    """Of a row of `GET /images/json`, or of `GET /images/{name}/json`: its names are those that the scope may know."""
    seen = found | {key: image_names(context, found.get(key)) for key in ("RepoTags", "RepoDigests")}
    if "Labels" in found:
        seen["Labels"] = context.scope.shown(found["Labels"])
    for key in ("Config", "ContainerConfig"):
        if found.get(key):
            seen[key] = _config(context.scope, found[key])
    if "GraphDriver" in found:
        seen["GraphDriver"] = {"Name": "", "Data": None}
    return seen


def image_names(context: Context, names: Iterable[str] | None) -> list[str]:
    """The scope's own by their short names, and of the others those that were granted."""
    scope, grants = context.scope, context.grants
    own = [scope.short_image(name) for name in names or () if scope.owns_image(name)]
    return own + [name for name in names or () if not scope.owns_image(name) and grants.may_use(name)]


def network(scope: Scope, found: Doc) -> Doc:
    members = found.get("Containers") or {}
    return found | {
        "Name": scope.short(found["Name"]),
        "Labels": scope.shown(found["Labels"]) if scope.owns_name(found["Name"]) else {},
        "Containers": {
            key: member | {"Name": scope.short(member["Name"])}
            for key, member in members.items()
            if scope.owns_name(member["Name"])
        },
    }


def predefined(scope: Scope) -> list[Doc]:
    """Networks that every Engine has: clients look for them, whether or not they may be used."""
    return [
        {
            "Name": name,
            "Id": hashlib.sha256(f"{scope.path}/{name}".encode()).hexdigest(),
            "Created": "0001-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": driver,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": {},
            "Labels": {},
        }
        for name, driver in PREDEFINED.items()
    ]


def volume(scope: Scope, found: Doc) -> Doc:
    return found | {"Name": scope.short(found["Name"]), "Labels": scope.shown(found["Labels"]), "Mountpoint": ""}


def event(scope: Scope, found: Doc) -> Doc | None:
    """Of `GET /events`. Those of networks and volumes have no labels: there the name alone decides."""
    actor = found.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    match found.get("Type"):
        case "container":
            name = attributes.get("name", "")
            if not scope.owns(name, attributes):
                return None
            image = scope.short_image(attributes.get("image", ""))
            seen = paths.shown(scope.shown(attributes)) | {"name": scope.short(name), "image": image}
            if old := attributes.get("oldName", ""):  # of a rename
                seen["oldName"] = "/" + scope.short(old.removeprefix("/"))
            return found | {"Actor": actor | {"Attributes": seen}, "from": image}
        case "network":
            name = attributes.get("name", "")
            if not scope.owns_name(name) or (
                scope.short(name) == BRIDGE and found.get("Action") in ("create", "destroy")
            ):
                return None  # the Engine's own bridge is always there
            return found | {"Actor": actor | {"Attributes": attributes | {"name": scope.short(name)}}}
        case "volume":
            if not scope.owns_name(actor.get("ID", "")):
                return None
            return found | {"Actor": actor | {"ID": scope.short(actor["ID"])}}
    return None


def progress(scope: Scope, line: Doc) -> Doc:
    """Of a pull, a build or a load: texts, some in an object."""
    shown: Doc = {}
    for key, value in line.items():
        match value:
            case dict():
                shown[key] = progress(scope, value)
            case str():
                shown[key] = scope.without_prefix(value)
            case _:
                shown[key] = value
    return shown
