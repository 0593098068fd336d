"""Labels that programs beside the scope act on or cannot read for their length (23): a Compose, a Traefik, a dom0."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from dom0.testing.escape.case import Attempt, Case, body, run
from dom0.testing.escape.image_attempts import archive, built, file, loaded
from dom0.testing.escape.raw import Answer, Client
from dom0.testing.escape.world import LABELLED, World

CONTROLS = {
    "traefik.enable": "true",
    "Traefik.HTTP.routers.a.rule": "PathPrefix(`/`)",
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.oneoff": "False",
    "COM.docker.compose.project.working_dir": "/",
    "com.centurylinklabs.watchtower.lifecycle.pre-update": "sh",
    "dom0.project": "shop",
    "dom0.role": "root",
    "dom0.orchestrator": "{}",
    "other/traefik.enable": "true",
    "/traefik.enable": "true",
    " traefik.enable": "true",
    "": "true",
    "caddy": "",
}
WORDS = ("traefik.enable=true", "com.docker.compose.project=shop", "dom0.role=root")
LONG = {"a": "\x01" * 60_000}  # six bytes each, as the Engine writes it
STEP = "\nRUN true\n"
DOCKERFILES: Mapping[str, str] = {
    "in each form": f"""LABEL {" ".join(WORDS)}
label traefik.enable=true
LABEL traefik.enable true
LABEL a=b \\
# nothing
 traefik.enable=true \\
 dom0.role=root
LABEL a=b\ttraefik.enable=true
LABEL "traefik.enable"='true' 'dom0.role'=root
LABEL tra"efik.enable"=true d\\om0.role=root""",
    "behind quotes": r"""LABEL a=\" traefik.enable=true b=\"
LABEL a='"' traefik.enable=true b='"'
LABEL a='\' traefik.enable=true b='\'""",
    "by variables": """ARG A=traefik.enable
ENV K=traefik.enable L="a=b dom0.role=root"
LABEL ${A}=true ${A:+dom0.role}=root $K=true "${L}"=x""",
    "by variables that double": f"ENV A={'x' * 100}\n" + "ENV A=$A$A\n" * 11 + "LABEL a=$A",
    "in a stage before": "LABEL traefik.enable=true\nFROM IMAGE AS a\nLABEL dom0.role=root\nRUN true\nFROM a",
    "beside the scope's": "LABEL guest/a=b traefik.enable=true ../traefik.enable=true =true",
}


def cases() -> Iterator[Case]:
    yield Case(23, "a container's labels", lambda c, w: run(c, body(w, Labels=CONTROLS)))
    yield Case(23, "a container's labels in small letters", lambda c, w: run(c, body(w, labels=CONTROLS)))
    yield Case(23, "a network's labels", _made("/networks/create", {"Name": "n", "Labels": CONTROLS}))
    yield Case(23, "a volume's labels", _made("/volumes/create", {"Name": "volume", "Labels": CONTROLS}))
    for source in ("", "volume"):
        yield Case(23, f"labels of the volume {source!r} in a mount", _mounted(source))
    yield Case(23, "an image's labels", lambda c, w: run(c, {**body(w), "Image": LABELLED}))
    yield Case(23, "a labelled image by a name of its own", _tagged)
    yield Case(23, "what looks below granted paths, of a labelled image", _looking)
    yield Case(23, "long labels of a container", lambda c, w: run(c, body(w, Labels=LONG)))
    yield Case(23, "long labels of a network", _made("/networks/create", {"Name": "n", "Labels": LONG}))
    yield Case(23, "long labels of a volume", _made("/volumes/create", {"Name": "volume", "Labels": LONG}))
    yield Case(23, "long labels of a volume in a mount", _mounted("volume", LONG))
    yield from _builds()
    yield from _commits()
    yield from _loads()


def _made(target: str, asked: Mapping[str, object]) -> Attempt:
    return lambda client, _world: [client.ask("POST", target, asked)]


def _mounted(source: str, labels: Mapping[str, str] = CONTROLS) -> Attempt:
    mount = {"Type": "volume", "Source": source, "Target": "/v", "VolumeOptions": {"Labels": labels}}
    return lambda client, world: run(client, body(world, HostConfig={"Mounts": [mount]}))


def _tagged(client: Client, world: World) -> list[Answer]:
    said = client.ask("POST", f"/images/{LABELLED}/tag?repo=own&tag=1")
    return [said, *run(client, {**body(world), "Image": "own:1"})]


def _looking(client: Client, world: World) -> list[Answer]:
    mount = {"Type": "bind", "Source": "/var/lib/granted/new", "Target": "/m"}
    asked = {"Mounts": [{**mount, "BindOptions": {"CreateMountpoint": True}}]}
    return run(client, {**body(world, HostConfig=asked), "Image": LABELLED})


def _builds() -> Iterator[Case]:
    for title, text in DOCKERFILES.items():
        yield Case(23, f"labels of a Dockerfile, {title}", built([file("Dockerfile", f"FROM IMAGE\n{text}{STEP}")]))
    yield Case(23, "a build on a labelled image", built([file("Dockerfile", f"FROM {LABELLED}{STEP}")]))
    query = f"&labels={quote(json.dumps(CONTROLS))}"
    yield Case(23, "labels of a build", built([file("Dockerfile", f"FROM IMAGE{STEP}")], query))


def _commits() -> Iterator[Case]:
    for change in (f"LABEL {' '.join(WORDS)}", "CMD true\nLABEL traefik.enable true"):
        yield Case(23, f"a commit with {change}", _committed(change))


def _committed(change: str) -> Attempt:
    def attempt(client: Client, world: World) -> list[Answer]:
        answers = run(client, {"Image": world.image, "Cmd": ["true"]}, query="?name=made")
        said = client.ask("POST", f"/commit?container=made&repo=own&tag=1&changes={quote(change)}", {})
        return [*answers, said, *run(client, {**body(world), "Image": "own:1"})]

    return attempt


def _loads() -> Iterator[Case]:
    layer = archive([file("got", "loaded")])
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["own:1"], "Layers": ["l.tar"]}])
    for key, labels in (
        ("config", "Labels"),
        ("Config", "labels"),
        ("config", "Label\u017f"),
        ("container_config", "Labels"),
        ("config", "long Labels"),
    ):
        said = {labels.removeprefix("long "): LONG if labels.startswith("long") else CONTROLS}
        config = json.dumps({"rootfs": rootfs, key: said})
        files = [(tarfile.TarInfo("l.tar"), layer), file("c.json", config), file("manifest.json", manifest)]
        yield Case(23, f"an image is loaded with {key}.{labels}", loaded(files))
