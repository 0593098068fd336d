"""An image that is one more layer on another one, as the Engine loads it: in the format of `docker save`.

The layers below are only named: an Engine that keeps images itself knows them, and takes what it has from there.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import IO, Any

import msgspec

_PIECE = 1 << 20
_AS_BELOW = ("Architecture", "Variant", "Os", "OsVersion")  # of an image's document
_NAMES = {"OsVersion": "os.version"}


def whiteout(names: Iterable[str]) -> str:
    """The first name that a layer cannot hold, "" if there is none: it would say that a file below is gone."""
    return next((name for name in names if PurePath(name).name.startswith(".wh.")), "")


def pack(below: bytes, layer: IO[bytes], into: IO[bytes], *, tag: str, labels: Mapping[str, str], created: int) -> str:
    """Write what is sent for the image of the tar `layer` on the one that the document `below` is about; its ID."""
    digest = hashlib.sha256()
    while piece := layer.read(_PIECE):
        digest.update(piece)
    config = _config(msgspec.json.decode(below), f"sha256:{digest.hexdigest()}", labels, created)
    text = msgspec.json.encode(config, order="sorted")
    image = hashlib.sha256(text).hexdigest()
    names = [f"{one.removeprefix('sha256:')}.tar" for one in config["rootfs"]["diff_ids"]]
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, names[-1], layer)
        _add(archive, f"{image}.json", io.BytesIO(text))
        manifest = [{"Config": f"{image}.json", "RepoTags": [tag], "Layers": names}]
        _add(archive, "manifest.json", io.BytesIO(msgspec.json.encode(manifest)))
    return f"sha256:{image}"


def _config(below: dict[str, Any], digest: str, labels: Mapping[str, str], created: int) -> dict[str, Any]:
    time = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    layers = [*below["RootFS"]["Layers"], digest]
    config = below["Config"]
    return {
        **{_NAMES.get(key, key.lower()): below[key] for key in _AS_BELOW if below.get(key)},
        "config": {**config, "Labels": {**(config.get("Labels") or {}), **labels}},
        "created": time,
        "history": [{"created": time, "created_by": f"layer of {below['Id']}"}] * (len(layers) - 1)
        + [{"created": time, "created_by": "dom0"}],
        "rootfs": {"type": "layers", "diff_ids": layers},
    }


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, io.SEEK_END)
    content.seek(0)
    archive.addfile(entry, content)
