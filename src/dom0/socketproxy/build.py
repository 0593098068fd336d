"""Builds by the Engine's classic builder, with the scope's images, in its network; other builders are not reached.

Theory of operation: the context is an archive, which the Engine unpacks whole before it reads the Dockerfile. It is
passed on entry by entry, without the Dockerfile; that is read, its images are looked up, and it is sent as the last
entry, in our own words with IDs for names. If anything is refused the archive has no end, and the Engine does nothing.

The Engine would take a step that anybody has built before from its cache, and show its result to whoever guesses the
step. So the cache is limited to what the scope's own images were built of.

The container of a step has its image's labels and no name of the scope's. So that it is not taken for one of the host's
services, the Dockerfile that is sent labels it as made in the scope, and empties what its image says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dom0.socketproxy import dockerfile, images, inner, networks, shown, strict, tarstream
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, TOO_LARGE, Refused, not_granted
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.shown import Doc

LARGEST_DOCKERFILE = 256 << 10  # bytes
MOST_BASES = 64
PASSED = (
    *("cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems", "cpushares", "memory", "memswap", "nocache"),
    *("q", "shmsize", "target"),
)


async def built(context: Context, asked: Asked) -> Call:
    if not context.grants.images.build:
        raise not_granted("build", asked.query.get("t", ""), Grants(images=Images(build=True)))
    path = asked.query.get("dockerfile", "").removeprefix("./") or "Dockerfile"
    if any(part in ("", ".", "..") for part in path.split("/")) or not path.isprintable():
        what = f"dockerfile: {asked.query['dockerfile']!r}: not a path in the context"
        raise Refused(BAD_REQUEST, what, field="dockerfile")
    query: dict[str, str | tuple[str, ...]] = {key: asked.query[key] for key in PASSED if asked.query.get(key)}
    names = await images.name_own(context, asked.query.get("t", "").split() or [""])
    query |= {
        "t": tuple(names.values()),
        "version": "1",
        "cgroupparent": inner.parent(context, asked.query.get("cgroupparent", ""), "cgroupparent"),
        "rm": "1",  # containers of steps are nobody's: none is left
        "forcerm": "1",
        "dockerfile": path,
        "buildargs": json.dumps(_texts(asked, "buildargs")),
        "labels": json.dumps(context.scope.long_labels(_texts(asked, "labels"))),
        "networkmode": await _network(context, asked.query.get("networkmode", "")),
        **_cache(await images.own_names(context), context.scope, asked.query.get("cachefrom", "")),
    }
    arguments = [f"{key}={value}" for key, value in _texts(asked, "buildargs").items()]
    bases: dict[str, str] = {}  # names of images by ID, as the Dockerfile has them
    return Call(
        method="POST",
        path=("build",),
        query=query,
        archive=lambda chunks: _context(context, chunks, path, arguments, bases),
        line=lambda line: _told(shown.progress(context.scope, line), bases),
    )


def _told(line: Doc, names: dict[str, str]) -> Doc:
    if isinstance(text := line.get("stream"), str):
        for image_id, name in names.items():
            text = text.replace(image_id, name)
        return line | {"stream": text}
    return line


def _texts(asked: Asked, key: str) -> dict[str, str]:
    found = strict.parse(asked.query.get(key, "").encode() or b"{}") or {}
    if not isinstance(found, dict) or not all(isinstance(value, str | None) for value in found.values()):
        raise Refused(BAD_REQUEST, f"{key}: an object of texts is expected", field=key)
    return {name: value for name, value in found.items() if value is not None}


def _cache(own: list[str], scope: Scope, asked: str) -> dict[str, str]:
    """`own`: names in the Engine."""
    wanted = strict.parse(asked.encode() or b"[]") or own
    if not isinstance(wanted, list):
        raise Refused(BAD_REQUEST, "cachefrom: a list of images is expected", field="cachefrom")
    chosen = [name for name in own if name in wanted or scope.short_image(name) in wanted]
    return {"cachefrom": json.dumps(chosen)} if chosen else {"nocache": "1"}


async def _network(context: Context, mode: str) -> str:
    if mode == "none":
        return mode
    if mode == "host" or mode.startswith("container:"):
        raise Refused(FORBIDDEN, f"networkmode: {mode}: not through this socket", field="networkmode")
    return await networks.name_of(context, mode)


async def _context(
    context: Context, chunks: tarstream.Pieces, path: str, arguments: Sequence[str], names: dict[str, str]
) -> tarstream.Pieces:
    writer = tarstream.TarWriter()
    found: bytearray | None = None
    passes = True
    async for event in tarstream.read(chunks):
        if isinstance(event, tarstream.TarMember):
            passes = event.name != path
            if passes:
                _check_beside(event, path)
                yield writer.begin(event) if event.name else b""
            else:
                if found is not None or event.type != tarstream.FILE:
                    raise Refused(BAD_REQUEST, f"the archive: {event.name} is there twice, or is no file")
                if event.size > LARGEST_DOCKERFILE:
                    what = f"the archive: {event.name} has more than {LARGEST_DOCKERFILE} bytes"
                    raise Refused(TOO_LARGE, what)
                found = bytearray()
        elif passes:
            yield event
        elif found is not None:
            found += event
    if found is None:
        raise Refused(BAD_REQUEST, f"Cannot locate specified Dockerfile: {path}", field="dockerfile")
    instructions = dockerfile.read(bytes(found))
    found_images = await _images(context, dockerfile.bases(instructions))
    environment = [text for image in found_images.values() for text in images.environment(image)]
    dockerfile.check_expanded(instructions, [*environment, *arguments])
    ids = {name: image["Id"] for name, image in found_images.items()}
    names |= {image_id: name for name, image_id in ids.items()}
    labels = {name: images.labels(image) for name, image in found_images.items()} | {"": {}}
    stamps = {name: context.scope.stamped_container({}, of_image) for name, of_image in labels.items()}
    content = dockerfile.written(instructions, ids, stamps, context.scope.label_prefix)
    yield writer.begin(tarstream.TarMember(name=path, size=len(content))) + content + writer.end()


def _check_beside(entry: tarstream.TarMember, path: str) -> None:
    """Nothing else leads to the Dockerfile."""
    if entry.type == tarstream.HARD_LINK and entry.target == path:
        raise Refused(BAD_REQUEST, f"the archive: {entry.name} is a link to {path}")
    if path.startswith(f"{entry.name}/") and entry.type != tarstream.DIRECTORY and entry.name:
        raise Refused(BAD_REQUEST, f"the archive: {entry.name} is no directory")


async def _images(context: Context, bases: dockerfile.Bases) -> dict[str, images.Image]:
    if len(bases.built_on | bases.copied_from) > MOST_BASES:
        raise Refused(BAD_REQUEST, f"Dockerfile: more than {MOST_BASES} images")
    known = {}
    for name in bases.built_on | bases.copied_from:
        found = await images.find(context, name)
        if name in bases.built_on and (found["Config"] or {}).get("OnBuild"):
            raise Refused(FORBIDDEN, f"Dockerfile: FROM {name}: has steps of its own (ONBUILD)", field="FROM")
        known[name] = found
    return known


async def pruned(_context: Context, _asked: Asked) -> Document:
    """What `docker system prune` asks for at last: caches of BuildKit's, none of which is a scope's."""
    return Document({"CachesDeleted": None, "SpaceReclaimed": 0})
