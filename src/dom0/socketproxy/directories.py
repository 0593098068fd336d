"""What has to be there before a container can bind something below a granted path: the volume, and directories.

Directories are made and looked for through a container that is never started: the Engine stays inside its file system
when it reads and writes an archive there, whatever links lie in the way. It mounts what was granted whole, so no scope
has it for its own: who could start it, or write an archive there, would write what he may only read.
"""

from __future__ import annotations

import io
import re
import secrets
import tarfile
import time
from collections.abc import Iterable
from pathlib import PurePosixPath

from dom0.engine import bodies
from dom0.socketproxy import images, listing, paths, requests
from dom0.socketproxy.context import Context
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.images import Image
from dom0.socketproxy.paths import BoundPath
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, Refused
from dom0.socketproxy.scope import LABEL

_LEFT_AFTER = 60  # seconds: the server that made such a container, and has not removed it, was killed


async def provide(context: Context, image: Image, bounds: Iterable[BoundPath]) -> None:
    """`image`: of any that is there. Holds `making`. Raises Refused, also for what is missing and may not be made."""
    below = [bound for bound in bounds if bound.rest]
    if not below:
        return
    if context.upstream.api < paths.VOLUMES_FROM_API:
        raise Refused(FORBIDDEN, f"{below[0].written}: lies below a granted path: that takes Docker Engine 26 or newer")
    await _remove_left(context)
    roots = {bound.root: bound for bound in below}
    written = {bound.root for bound in below if bound.creates}
    for bound in roots.values():
        await _provide_volume(context, bound)
    mounted = {root: f"/{number}" for number, root in enumerate(roots)}
    mounts = tuple(
        bodies.Mount(
            type="volume",
            source=paths.volume(context.scope, root),
            target=mounted[root],
            read_only=root not in written,
            volume_options=bodies.VolumeOptions(no_copy=True),
        )
        for root in roots
    )
    body = requests.Container(
        image=image["Id"],  # a name may have moved since we looked
        entrypoint=("true",),
        labels=context.scope.stamped_container({}, images.labels(image)),
        host_config=requests.HostConfig(cgroup_parent=context.cgroup_parent, network_mode="none", mounts=mounts),
    )
    # Not the scope's by its name, and nobody's service by its label.
    query = {"name": f"{paths.prefix(context.scope)}{secrets.token_hex(8)}"}
    reply = await context.ask("POST", "containers", "create", query=query, body=body)
    container = str(reply.document["Id"])
    try:
        for bound in below:
            await _provide_directory(context, container, PurePosixPath(mounted[bound.root]), bound)
    finally:
        await _remove(context, container)


async def _provide_volume(context: Context, bound: BoundPath) -> None:
    if not bound.root.startswith("/"):
        return
    options = paths.options(bound.root)
    asked = bodies.VolumeBody(
        name=paths.volume(context.scope, bound.root), driver_opts=options, labels=context.scope.stamped({})
    )
    reply = await context.ask("POST", "volumes", "create", body=asked)
    if reply.document["Options"] != options:  # the Engine answers with what is there, whoever made it
        raise Refused(FORBIDDEN, f"{bound.written}: somebody has made a volume {asked.name}")


async def _remove_left(context: Context) -> None:
    """What killed servers have left; one that hands over to us may still need its own."""
    prefix = paths.prefix(context.scope)
    async for row in listing.of_scopes(context.upstream, "container", Filters({"name": [f"^/?{re.escape(prefix)}"]})):
        is_ours = listing.name("container", row).startswith(prefix) and row["Labels"].get(LABEL) == context.scope.path
        if is_ours and row["State"] == "created" and row["Created"] < time.time() - _LEFT_AFTER:
            await _remove(context, row["Id"])


async def _remove(context: Context, container: str) -> None:
    """With the volumes that its image asked for, not with those that have a name."""
    await context.upstream.ask("DELETE", "containers", container, query={"force": "1", "v": "1"})


async def _provide_directory(context: Context, container: str, mounted: PurePosixPath, bound: BoundPath) -> None:
    present = mounted / bound.rest
    while present != mounted:
        reply = await context.upstream.ask("HEAD", "containers", container, "archive", query={"path": str(present)})
        if reply.status == 200:
            break
        present = present.parent
    missing = (mounted / bound.rest).relative_to(present)
    if not missing.parts:
        return
    if not bound.creates:
        message = f'invalid mount config for type "bind": bind source path does not exist: {bound.written}'
        raise Refused(BAD_REQUEST, message)
    query = {"path": str(present), "noOverwriteDirNonDir": "1"}
    reply = await context.upstream.ask("PUT", "containers", container, "archive", query=query, body=_archive(missing))
    if reply.status >= BAD_REQUEST:  # a link or a file is in the way
        raise Refused(BAD_REQUEST, f"{bound.written}: {paths.LEADS_NOWHERE}")


def _archive(directory: PurePosixPath) -> bytes:
    """Of it and those that it lies in."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for path in (*reversed(directory.parents[:-1]), directory):
            entry = tarfile.TarInfo(str(path))
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o755
            tar.addfile(entry)
    return written.getvalue()
