"""Ways out by images: names of others (24, 29) and builds (30). What an image has got is read by running it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from dom0.testing.escape.case import Attempt, Case, run
from dom0.testing.escape.raw import Answer, Client
from dom0.testing.escape.world import FOREIGN_IMAGE, PRIVATE, VICTIM, World

BUILD_PATIENCE = 30.0  # seconds
TAR = {"Content-Type": "application/x-tar"}
Files = Sequence[tuple[tarfile.TarInfo, bytes]]


def cases() -> Iterator[Case]:
    yield from _names()
    yield from _dockerfiles()
    yield from _queries()
    yield from _contexts()
    yield from _loads()


def _ask(method: str, target: str, content: Any = None, **headers: str) -> Attempt:
    """`{victim}` is the foreign container's ID, `{image}` the image that may be used, `{foreign}` another's ID."""

    def attempt(client: Client, world: World) -> list[Answer]:
        places = {"victim": world.victim_id, "image": world.image, "foreign": world.foreign_image_id}
        return [client.ask(method, target.format(**places), content, headers=headers)]

    return attempt


def _names() -> Iterator[Case]:
    yield Case(24, "a foreign image", lambda c, w: run(c, {"Image": FOREIGN_IMAGE, "Cmd": ["/secret"]}))
    yield Case(24, "a foreign image by ID", _foreign_image_by_id)
    yield Case(29, "a foreign image is inspected", _ask("GET", f"/images/{FOREIGN_IMAGE}/json"))
    yield Case(29, "a foreign image is saved", _ask("GET", f"/images/{FOREIGN_IMAGE}/get"))
    yield Case(29, "a foreign image is saved by ID", _ask("GET", "/images/{foreign}/get"))
    yield Case(29, "a foreign image is saved by name", _ask("GET", f"/images/get?names={FOREIGN_IMAGE}"))
    yield Case(29, "a foreign image is removed", _ask("DELETE", f"/images/{FOREIGN_IMAGE}?force=1"))
    yield Case(29, "a foreign image is removed by ID", _ask("DELETE", "/images/{foreign}?force=1"))
    yield Case(29, "an image that may be used is removed", _ask("DELETE", "/images/{image}?force=1"))
    yield Case(29, "an image that may be used is removed by its ID", _removed_by_id)
    yield Case(29, "a name is taken over", _ask("POST", "/images/{image}/tag?repo=private/secret&tag=1"))
    yield Case(29, "a foreign image gets a name", _ask("POST", f"/images/{FOREIGN_IMAGE}/tag?repo=stolen&tag=1"))
    yield Case(29, "a foreign image gets a name, by ID", _ask("POST", "/images/{foreign}/tag?repo=stolen&tag=1"))
    for name in ("dom0", "dom0.invalid/other/app", "../private/secret", "dom0.invalid/guest/../../private/secret"):
        yield Case(29, f"a new name {name}", _ask("POST", f"/images/{{image}}/tag?repo={quote(name, safe='')}&tag=1"))
    yield Case(29, "the images' names are saved", _ask("GET", "/images/get?names={image}&names=" + FOREIGN_IMAGE))
    yield Case(29, "an image is pushed", _ask("POST", f"/images/{FOREIGN_IMAGE}/push", **{"X-Registry-Auth": "e30="}))
    yield Case(
        29, "an image from a URL", _ask("POST", "/images/create?fromSrc=http://127.0.0.1:1/x&repo=private/secret&tag=1")
    )
    yield Case(
        29, "a file system for an image", _ask("POST", "/images/create?fromSrc=-&repo=private/secret&tag=1", b"")
    )
    for query in ("fromImage=private/secret&tag=1", "fromImage=pulled/x:1&tag=@sha256:0", "fromImage=pulled/x"):
        yield Case(29, f"a pull of {query}", _ask("POST", f"/images/create?{query}"))
    yield Case(29, "a foreign container is committed", _ask("POST", "/commit?container={victim}&repo=stolen", {}))
    yield Case(29, "a commit over a foreign name", _committed)
    yield Case(29, "search at a registry", _ask("GET", "/images/search?term=127.0.0.1:1/x"))
    yield Case(29, "ask a registry", _ask("GET", "/distribution/127.0.0.1:1/x/json"))


def _foreign_image_by_id(client: Client, world: World) -> list[Answer]:
    image_id = world.foreign_image_id
    return [
        a for ref in (image_id, image_id[7:], image_id[7:19]) for a in run(client, {"Image": ref, "Cmd": ["/secret"]})
    ]


def _removed_by_id(client: Client, world: World) -> list[Answer]:
    found = client.ask("GET", f"/images/{world.image}/json")
    image_id = (found.document or {}).get("Id", "0" * 64)
    tagged = client.ask("POST", f"/images/{world.image}/tag?repo=own&tag=1")
    return [tagged, *(client.ask("DELETE", f"/images/{image_id}?force=1") for _ in range(2))]


def _committed(client: Client, world: World) -> list[Answer]:
    answers = run(client, {"Image": world.image, "Cmd": ["true"]}, query="?name=made")
    return [*answers, client.ask("POST", "/commit?container=made&repo=private/secret&tag=1", {})]


def built(files: Files, query: str = "", command: Sequence[str] = ("cat", "/got"), tail: bytes = b"") -> Attempt:
    """Build of an archive, and run what was built. In files and query `IMAGE`, `FOREIGN`, `URL` are put in."""

    def attempt(client: Client, world: World) -> list[Answer]:
        packed = archive([(entry, _filled(content, world)) for entry, content in files])
        target = f"/build?version=1&t=built:1{_filled(query, world)}"
        said = client.ask("POST", target, packed + tail, headers=TAR, patience=BUILD_PATIENCE)
        return [said, *run(client, {"Image": "built:1", "Cmd": list(command)})]

    return attempt


def _filled(text: Any, world: World) -> Any:
    for word, value in (("IMAGE", world.image), ("FOREIGN", world.foreign_image_id), ("URL", world.loopback)):
        text = text.replace(word.encode(), value.encode()) if isinstance(text, bytes) else text.replace(word, value)
    return text


def archive(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, content in files:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def file(name: str, text: str = "", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(entry, key, value)
    return entry, text.encode()


def _dockerfile(text: str) -> Attempt:
    return built([file("Dockerfile", text)])


GOT = "FROM scratch\nCOPY --from=private/secret:1 /secret /got\n"
FETCH = "FROM IMAGE\nADD URL /got\n"
HARMLESS = "FROM IMAGE\nRUN true\n"
DOCKERFILES: Mapping[str, str] = {
    "a foreign image": "FROM private/secret:1 AS a\nFROM IMAGE\nCOPY --from=a /secret /got\n",
    "a foreign image by ID": "FROM FOREIGN AS a\nFROM IMAGE\nCOPY --from=a /secret /got\n",
    "a foreign image by a variable": "ARG A=private/secret:1\nFROM $A AS a\nFROM IMAGE\nCOPY --from=a /secret /got\n",
    "files of a foreign image": "FROM IMAGE\nCOPY --from=private/secret:1 /secret /got\n",
    "files of a foreign image by ID": "FROM IMAGE\nCOPY --from=FOREIGN /secret /got\n",
    "files of a foreign image by a variable": "FROM IMAGE\nENV A=FOREIGN\nCOPY --from=$A /secret /got\n",
    "files by --from in quotes": 'FROM IMAGE\nCOPY --from="private/secret:1" /secret /got\n',
    "files of a stage that has a foreign name": "FROM IMAGE\nCOPY --from=private/secret:1 /secret /got\n"
    "FROM IMAGE AS private/secret:1\n",
    "a mount of a foreign image": "FROM IMAGE\nRUN --mount=from=private/secret:1,target=/m cp /m/secret /got\n",
    "a download by the Engine": FETCH,
    "a download, as JSON": 'FROM IMAGE\nADD ["URL", "/got"]\n',
    "a download by a variable": "FROM IMAGE\nENV A=URL\nADD $A /got\n",
    "a download by a build argument": "FROM IMAGE\nARG A\nADD ${A:-URL} /got\n",
    "a download, in quotes": 'FROM IMAGE\nADD "URL" /got\n',
    "a download in two lines": "FROM IMAGE\nADD \\\n URL /got\n",
    "a download behind a comment": "FROM IMAGE\nADD \\\n# nothing\n URL /got\n",
    "a download behind another escape": "# escape=`\nFROM IMAGE\nRUN true \\\nADD URL /got\n",
    "a download in a here-document": "FROM IMAGE\nRUN <<A\nA\nADD URL /got\n",
    "a download when it is built on": "FROM IMAGE AS a\nONBUILD ADD URL /got\nFROM a\n",
    "a download by a step": "FROM IMAGE\nRUN wget -O /got URL\n",
    "a step in the host's network": "FROM IMAGE\nRUN --network=host wget -O /got URL\n",
    "a step that may all": "FROM IMAGE\nRUN --security=insecure mount -t tmpfs none /mnt && echo canary-by-mount\n",
    "another reader of it": "# syntax=127.0.0.1:1/x\nFROM IMAGE\nADD URL /got\n",
    "two lines in one": "FROM IMAGE\nRUN true\x0bADD URL /got\n",
    "a carriage return for a line's end": "FROM IMAGE\rADD URL /got\n",
    "the label of another scope": "FROM IMAGE\nLABEL dom0.scope=/other\nRUN echo >/got\n",
}


def _dockerfiles() -> Iterator[Case]:
    for title, text in DOCKERFILES.items():
        yield Case(30, f"a build with {title}", _dockerfile(text))
    yield Case(30, "a build on an image with steps", _on_steps)


def _on_steps(client: Client, world: World) -> list[Answer]:
    answers = run(client, {"Image": world.image, "Cmd": ["true"]}, query="?name=steps")
    change = quote(_filled("ONBUILD ADD URL /got", world))
    made = client.ask("POST", f"/commit?container=steps&repo=steps&tag=1&changes={change}", {})
    return [*answers, made, *_dockerfile("FROM steps:1\n")(client, world)]


def _queries() -> Iterator[Case]:
    fetching = file("Dockerfile", "FROM IMAGE\nRUN wget -O /got URL\n")
    for query in (
        "&networkmode=host",
        f"&networkmode=container:{VICTIM}",
        f"&networkmode={PRIVATE}",
        "&remote=URL",
        "&version=2",
        "&cgroupparent=/",
        "&t=private/secret:1",
        "&extrahosts=host:host-gateway",
        "&squash=1",
        "&isolation=hyperv",
        "&securityopt=%5B%22seccomp%3Dunconfined%22%5D",
        "&outputs=%5B%7B%22Type%22%3A%22local%22%7D%5D",
        "&session=x",
        "&buildargs=%7B%22A%22%3A%22private/secret:1%22%7D",
        "&cachefrom=%5B%22private/secret:1%22%5D",
        "&dockerfile=../../../var/lib/escape/canary",
        "&dockerfile=/var/lib/escape/canary",
    ):
        yield Case(30, f"a build with {query[1:]}", built([fetching], query))
    yield Case(
        30,
        "a build that takes a foreign name",
        _ask("POST", "/build?version=1&t=private/secret:1", archive([file("Dockerfile", HARMLESS)]), **TAR),
    )


def _contexts() -> Iterator[Case]:
    harmless, evil = file("Dockerfile", HARMLESS), file("Dockerfile", FETCH)
    link: dict[str, Any] = {"type": tarfile.SYMTYPE}
    copy = file("Dockerfile", "FROM IMAGE\nCOPY . /all\nRUN cat /all/* >/got; true\n")
    contexts: Mapping[str, Files] = {
        "twice": [harmless, evil],
        "twice, in other spellings": [harmless, file("./Dockerfile", FETCH)],
        "twice, by two slashes": [harmless, file(".//Dockerfile", FETCH)],
        "in small letters": [file("dockerfile", FETCH)],
        "a link": [file("other", FETCH), file("Dockerfile", linkname="other", **link)],
        "a hard link": [file("other", FETCH), file("Dockerfile", linkname="other", type=tarfile.LNKTYPE)],
        "written through a hard link": [
            harmless,
            file("o", linkname="Dockerfile", type=tarfile.LNKTYPE),
            file("o", FETCH),
        ],
        "written through a link to here": [harmless, file("d", linkname=".", **link), file("d/Dockerfile", FETCH)],
        "under a long name": [harmless, file("x", FETCH, pax_headers={"path": "Dockerfile"})],
        "a directory first": [file("Dockerfile", type=tarfile.DIRTYPE), evil],
    }
    for title, files in contexts.items():
        yield Case(30, f"a Dockerfile that is there {title}", built(files))
    second = archive([file("Dockerfile", "FROM private/secret:1\n")])
    yield Case(30, "a Dockerfile behind the archive's end", built([harmless], tail=second))
    hostile: Mapping[str, Files] = {
        "a link to a file of the host": [file("l", linkname="/var/lib/escape/canary", **link), copy],
        "a link that climbs": [file("l", linkname="../../../../../../var/lib/escape/canary", **link), copy],
        "a hard link to a file of the host": [
            file("l", linkname="/var/lib/escape/canary", type=tarfile.LNKTYPE),
            copy,
        ],
        "a file above it": [file("../../../../../../var/lib/escape/made", "x"), copy],
        "a file of the host": [file("/var/lib/escape/made", "x"), copy],
        "a file behind a link": [file("d", linkname="/var/lib/escape", **link), file("d/made", "x"), copy],
        "a device": [file("Dockerfile", HARMLESS), file("d", type=tarfile.BLKTYPE, devmajor=7, devminor=0)],
    }
    for title, files in hostile.items():
        yield Case(30, f"a context with {title}", built(files))
    yield Case(
        30,
        "a Dockerfile in a file of the host",
        built([file("d", linkname="/var/lib/escape", **link), file("x")], "&dockerfile=d/canary"),
    )


def _loads() -> Iterator[Case]:
    layer = archive([file("got", "loaded")])
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}})

    def files(name: str, **more: Any) -> Files:
        image = {"Config": "c.json", "RepoTags": [name], "Layers": ["l.tar"], **more}
        return [(tarfile.TarInfo("l.tar"), layer), file("c.json", config), file("manifest.json", json.dumps([image]))]

    taken, own = files("private/secret:1"), files("own:1")
    repositories = file("repositories", json.dumps({"private/secret": {"1": "a"}}))
    twice = file("manifest.json", taken[-1][1].decode())
    folded = file("manifest.json", own[-1][1].decode().replace("RepoTags", "repotags"))
    link: dict[str, Any] = {"type": tarfile.SYMTYPE, "linkname": "/var/lib/escape/canary"}
    loads: Mapping[str, Files] = {
        "a foreign name": taken,
        "no name": files("", RepoTags=None),
        "a name in small letters": [*own[:-1], folded],
        "two manifests": [*own, twice],
        "two manifests, in other spellings": [*own, file("./manifest.json", twice[1].decode())],
        "a manifest behind a link": [*own[:-1], file("m", twice[1].decode()), file("manifest.json", **link)],
        "repositories alone": [(tarfile.TarInfo("a/layer.tar"), layer), file("a/json", config), repositories],
        "repositories beside it": [*own, repositories],
        "a link for a layer": [file("l.tar", **link), *own[1:]],
        "a link for a configuration": [own[0], file("c.json", **link), own[2]],
        "a layer of the host": files("own:1", Layers=["/var/lib/escape/canary"]),
        "a layer above it": files("own:1", Layers=["../../../../var/lib/escape/canary"]),
        "a file of the host": [file("/var/lib/escape/made", "x"), *own],
    }
    for title, entries in loads.items():
        yield Case(29, f"an image is loaded with {title}", loaded(entries))
    yield Case(29, "an image is loaded with layers of a foreign one", _loaded_without_layers)


def loaded(files: Files) -> Attempt:
    def attempt(client: Client, world: World) -> list[Answer]:
        said = client.ask("POST", "/images/load", archive(files), headers=TAR, patience=BUILD_PATIENCE)
        return [said, *run(client, {"Image": "own:1", "Cmd": ["/got"]})]

    return attempt


def _loaded_without_layers(client: Client, world: World) -> list[Answer]:
    """Only named, by who knows their digests: the Engine has them already."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": world.foreign_layers}, "config": {"Cmd": ["/got"]}})
    image = {"Config": "c.json", "RepoTags": ["own:1"], "Layers": [f"l{n}" for n, _ in enumerate(world.foreign_layers)]}
    empty = [file(name) for name in image["Layers"]]
    for files in ([], empty):
        packed = archive([*files, file("c.json", config), file("manifest.json", json.dumps([image]))])
        said = client.ask("POST", "/images/load", packed, headers=TAR, patience=BUILD_PATIENCE)
    made = client.ask("POST", "/containers/create?name=own", {"Image": "own:1"})
    return [said, made, client.ask("GET", "/containers/own/archive?path=/secret")]
