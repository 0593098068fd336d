"""Images: those that were granted, by their names, and those that the scope has given names of its own.

A name of one's own is found first. Nobody else's name is moved or removed. An ID is known where one of its names is.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any

import msgspec
from msgspec.structs import replace

from dom0.names import SCOPED_IMAGES
from dom0.socketproxy import dockerfile, imagearchive, owned, requests, shown, strict
from dom0.socketproxy.context import Asked, Call, Context, Document
from dom0.socketproxy.filters import Filters
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.refusal import (
    BAD_REQUEST,
    CONFLICT,
    FORBIDDEN,
    NO_BUILDKIT,
    NOT_FOUND,
    Refused,
    not_granted,
    short,
    too_many,
)
from dom0.socketproxy.scope import REPOSITORY, TAG
from dom0.socketproxy.tarstream import Pieces

FILTERS = ("before", "dangling", "label", "since")
_REFERENCE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,255}")
_PULLED = re.compile(
    rf"(?P<repository>([a-zA-Z0-9.-]+(:[0-9]+)?/)?{REPOSITORY})[:@](?P<tag>{TAG}|sha256:[0-9a-f]{{64}})"
)
_ID = re.compile(r"(sha256:)?[0-9a-f]{4,64}")
Image = dict[str, Any]


async def listed(context: Context, asked: Asked) -> Document:
    asked_for = Filters.read(asked.query.get("filters", "")).checked((*FILTERS, "reference"))
    filters = asked_for.without("label", "reference")
    for key in ("before", "since"):
        filters = await filters.mapped(key, lambda reference: usable(context, reference))
    rows = [shown.image(context, row) for row in await _rows(context, {**asked.query, "filters": filters.written()})]
    rows = [row for row in rows if asked_for.fit(row.get("Labels"))]
    wanted = asked_for.values.get("reference", [])
    if wanted:
        is_wanted = like(wanted)
        rows = [row | {"RepoTags": [name for name in row["RepoTags"] if is_wanted(name)]} for row in rows]
    return Document([row for row in rows if row["RepoTags"] or (row["RepoDigests"] and not wanted)])


async def created(context: Context, asked: Asked) -> Call:
    """A pull: it moves a name that was granted, for everybody, and gives none of the scope's own."""
    repository, tag = asked.query.get("fromImage", ""), asked.query.get("tag", "")
    asked_for = repository + (f"{'@' if ':' in tag else ':'}{tag}" if tag else "")
    if not (found := _PULLED.fullmatch(asked_for)):  # without a tag the Engine pulls all there are
        raise Refused(BAD_REQUEST, f"{asked_for!r}: no image with its tag or digest", field="fromImage")
    name = full_name(asked_for)
    if not context.grants.may_pull(name):
        if name.startswith("moby/buildkit:"):  # which docker build starts where the Engine has none
            raise Refused(FORBIDDEN, f"{name}: {NO_BUILDKIT}", field="fromImage", value=name)
        raise not_granted("fromImage", name, Grants(images=Images(pull=(name,))))
    if (own := _own_name(context, name)) and await _inspect(context, own):
        raise Refused(CONFLICT, f"{name}: is a name of the scope's own, which would hide it: docker rmi {name}")
    registry_auth = ""
    if asked.registry_auth:
        try:
            auth = strict.read(urlsafe_b64decode(asked.registry_auth), requests.RegistryAuth)
        except ValueError as error:
            raise Refused(BAD_REQUEST, "X-Registry-Auth: no JSON in base64", field="X-Registry-Auth") from error
        registry_auth = urlsafe_b64encode(msgspec.json.encode(auth)).decode()
    return Call(
        method="POST",
        path=("images", "create"),
        query={"fromImage": found["repository"], "tag": found["tag"], "platform": asked.query.get("platform", "")},
        registry_auth=registry_auth,
        line=lambda line: shown.progress(context.scope, line),
    )


async def inspected(context: Context, asked: Asked) -> Document:
    return Document(shown.image(context, await find(context, asked.names["image"])))


async def history(context: Context, asked: Asked) -> Document:
    """Each layer says the names of the image that it was the last of."""
    found = await find(context, asked.names["image"])
    reply = await context.ask("GET", "images", found["Id"], "history")
    return Document([layer | {"Tags": shown.image_names(context, layer["Tags"]) or None} for layer in reply.document])


async def tagged(context: Context, asked: Asked) -> Document:
    async with context.making:
        name = await _named(context, asked)
        found = await find(context, asked.names["image"])
        return await _made(context, "images", found["Id"], "tag", query=name)


async def committed(context: Context, asked: Asked) -> Document:
    found = await owned.container(context, asked.query.get("container", ""))
    text = asked.query.get("changes", "")
    environment = found.document["Config"]["Env"] or ()
    changes = {"changes": dockerfile.changes(text, context.scope.label_prefix, environment)} if text else {}
    async with context.making:
        name = await _named(context, asked)
        return await _made(context, "commit", query={**asked.query, **changes, "container": found.id, **name})


async def _made(context: Context, *path: str, query: Mapping[str, str]) -> Document:
    """An image's new name. Holds `making`. Raises Refused."""
    reply = await context.ask("POST", *path, query=query)
    return Document(reply.document or "", status=reply.status)


async def removed(context: Context, asked: Asked) -> Document:
    """Of an image the scope's own names; the image with the last name that anybody has given it."""
    reference = asked.names["image"]
    found = await find(context, reference, grants_help=False)
    own = [name for name in found["RepoTags"] or () if context.scope.owns_image(name)]
    if (named := _own_name(context, reference)) in own:
        own = [named]
    if not own or (named not in own and not _ID.fullmatch(reference)):
        raise Refused(FORBIDDEN, f"{reference}: is not a name of this scope's own", field="name")
    if len(own) > 1 and asked.query.get("force") != "1":
        raise Refused(CONFLICT, f"conflict: unable to delete {reference} (must be forced) - it has {len(own)} names")
    said: list[dict[str, str]] = []
    for name in own:
        said += await _remove(context, name, asked.query)
    return Document(said)


async def pruned(context: Context, asked: Asked) -> Document:
    """What has no name is nobody's; all that no container of the scope's is of, if `dangling` is false."""
    filters = Filters.read(asked.query.get("filters", "")).checked(("dangling", "label", "label!", "until"))
    if set(filters.values) - {"dangling"}:
        raise Refused(BAD_REQUEST, "filters: prune without them, or remove images by name")
    deleted: list[dict[str, str]] = []
    space = 0
    if filters.values.get("dangling", ["true"])[0] in ("0", "false"):
        used = {row["ImageID"] async for row in owned.containers(context)}
        for row in await _rows(context, {}):
            own = [name for name in row["RepoTags"] or () if context.scope.owns_image(name) and row["Id"] not in used]
            said = [line for name in own for line in await _remove(context, name, {})]
            space += row["Size"] if any("Deleted" in line for line in said) else 0
            deleted += said
    return Document({"ImagesDeleted": deleted or None, "SpaceReclaimed": space})


async def usable(context: Context, reference: str) -> str:
    """What the Engine is told instead of `reference`. Raises Refused."""
    return told(context, await find(context, reference), reference)


def told(context: Context, image: Image, reference: str) -> str:
    """The name of `image` if `reference` is one, so that `docker ps` shows it, else its ID."""
    tags = image.get("RepoTags") or ()
    named = (name for name in (_own_name(context, reference), full_name(reference)) if name in tags)
    return next(named, str(image["Id"]))


async def saved(context: Context, asked: Asked) -> Call:
    references = [asked.names["image"]] if asked.names else asked.query.get("names", "").split()
    if not references:
        raise Refused(BAD_REQUEST, "names: no image is named", field="names")
    names = tuple([await usable(context, reference) for reference in references])
    may_be_own = any(context.scope.owns_image(name) or name.startswith("sha256:") for name in names)
    archive = (lambda chunks: imagearchive.shown(context.scope, chunks)) if may_be_own else None
    return Call(method="GET", path=("images", "get"), query={"names": names}, answer=archive)


async def loaded(context: Context, asked: Asked) -> Call:
    return Call(
        method="POST",
        path=("images", "load"),
        query=asked.query,
        archive=lambda chunks: _load(context, chunks),
        line=lambda line: shown.progress(context.scope, line),
    )


async def _load(context: Context, chunks: Pieces) -> Pieces:
    archive = imagearchive.ArchiveLoad()
    async for chunk in archive.pass_on(chunks):
        yield chunk
    found, chains = archive.images(), archive.lacking
    for row in await _rows(context, {}) if chains else ():  # each has to begin an image that the scope may know
        is_known = shown.image_names(context, [*(row["RepoTags"] or ()), *(row["RepoDigests"] or ())])
        image = await _inspect(context, row["Id"]) if is_known and chains else None
        layers = tuple(image["RootFS"].get("Layers") or ()) if image else ()
        chains = {chain for chain in chains if chain != layers[: len(chain)]}
    if chains:
        message = "the archive of images: it lacks layers, and they are of no image that this scope knows"
        raise Refused(BAD_REQUEST, message)
    named = await name_own(context, [name for image in found for name in image.repo_tags])
    yield archive.end([replace(image, repo_tags=[named[name] for name in image.repo_tags]) for image in found])


async def name_own(context: Context, names: Sequence[str]) -> dict[str, str]:
    """By what the scope gives to an image, with or without a tag, the names that it then has in the Engine.

    Raises Refused.
    """
    if not all(names):
        raise Refused(BAD_REQUEST, "an image without a name would be nobody's: give it one", field="repo")
    long = {name: context.scope.long_image(full_name(name)) for name in names}
    own = {*await own_names(context), *long.values()}
    if len(own) > context.grants.images.own:
        raise too_many("names of images", context.grants.images.own, Grants(images=Images(own=len(own))))
    return long


async def _named(context: Context, asked: Asked) -> dict[str, str]:
    """The parameters `repo` and `tag`."""
    repository, tag = asked.query.get("repo", ""), asked.query.get("tag", "")
    name = f"{repository}:{tag}" if repository and tag else repository
    long = (await name_own(context, [name]))[name]
    return dict(zip(("repo", "tag"), long.rsplit(":", 1), strict=True))


async def own_names(context: Context) -> list[str]:
    """In the Engine, of the images that the scope has named."""
    names = [name for row in await _rows(context, {}) for name in row["RepoTags"] or ()]
    return [name for name in names if context.scope.owns_image(name)]


async def _rows(context: Context, query: dict[str, str]) -> list[Image]:
    return list((await context.ask("GET", "images", "json", query=query)).document or ())


async def _remove(context: Context, name: str, query: dict[str, str]) -> list[dict[str, str]]:
    reply = await context.ask("DELETE", "images", *name.split("/"), query=query)
    return [{key: context.scope.short_image(text) for key, text in line.items()} for line in reply.document]


async def find(context: Context, reference: str, *, grants_help: bool = True) -> Image:
    """An image by a name or ID that the scope may know. Raises Refused: others do not exist."""
    if not _REFERENCE.fullmatch(reference):
        raise Refused(BAD_REQUEST, f"{reference!r}: no image")
    full = full_name(reference)
    for name in (_own_name(context, reference), full if context.grants.may_use(full) else ""):
        if name and (found := await _inspect(context, name)):
            return found
    if _ID.fullmatch(reference) and (found := await _inspect(context, reference)):
        return found
    is_inner = full.startswith(f"{SCOPED_IMAGES}/")  # a scope inside asks for its own
    grants_help = grants_help and not (_ID.fullmatch(reference) or is_inner or context.grants.may_use(full))
    grant = Grants(images=Images(use=(full,))) if grants_help else None
    raise Refused(NOT_FOUND, f"No such image: {reference}", field="Image", value=short(reference), grant=grant)


async def _inspect(context: Context, reference: str) -> Image | None:
    reply = await context.upstream.ask("GET", "images", *reference.split("/"), "json")
    if reply.status != 200:
        return None
    found: Image = reply.document
    known = shown.image_names(context, [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())])
    return found if known else None


def _own_name(context: Context, reference: str) -> str:
    """Empty where nothing of the scope's own can be called so."""
    try:
        return context.scope.long_image(full_name(reference))
    except Refused:
        return ""


def labels(image: Image) -> Mapping[str, str]:
    return (image.get("Config") or {}).get("Labels") or {}


def command(image: Image) -> list[str]:
    config = image.get("Config") or {}
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def environment(image: Image) -> list[str]:
    """And what its health check runs."""
    config = image.get("Config") or {}
    return [*(config.get("Env") or ()), *((config.get("Healthcheck") or {}).get("Test") or ())]


def full_name(reference: str) -> str:
    """With its tag, as the Engine lists it."""
    has_tag = ":" in reference.rpartition("/")[2] or "@" in reference
    return (reference if has_tag else f"{reference}:latest").removeprefix("docker.io/").removeprefix("library/")


def like(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name is, or without its tag, as Go's path.Match says.

    Part by part, by expressions of fnmatch's, which never go back; its cache would hold all that was asked.
    """
    found = [[re.compile(translate(part)) for part in one.replace("[", "[[]").split("/")] for one in patterns]

    def is_like(name: str) -> bool:
        texts = [text.split("/") for text in (name, name.rpartition(":")[0])]
        return any(
            len(parts) == len(text) and all(part.fullmatch(said) for part, said in zip(parts, text, strict=True))
            for parts in found
            for text in texts
        )

    return is_like
