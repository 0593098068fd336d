"""Debian's docker-registry over a directory that tests fill.

The directory is as distribution's driver for file systems keeps it, so nothing has to be pushed.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dom0.registry.manifest import (
    CONFIGS,
    LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    digest_of,
)
from dom0.testing.namespaces import Child
from dom0.testing.tars import tar_of

PROGRAM = "docker-registry"
USER, PASSWORD = "guest", "only-a-test"
_HASHED = "$2y$05$n89xYEYXONBWTXCPfUoetu0vsbfOh6icaM/aSxZozdT/tRhkls4zu"  # bcrypt, the only one that it takes
_LISTENING = re.compile(r"listening on ([0-9.]+:[0-9]+)")


def missing() -> str:
    """Why there can be none on this machine; empty if there can."""
    return "" if shutil.which(PROGRAM) else f"not installed: {PROGRAM}"


class Content:
    """The registry's directory. Blobs and manifests are written there before it is started, or while it runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = directory / "docker/registry/v2"

    def blob(self, repository: str, content: bytes, media_type: str = LAYERS[1]) -> Descriptor:
        described = self._data(content, media_type)
        self._link(repository, "_layers", described.digest)
        return described

    def manifest(self, repository: str, document: Mapping[str, Any], tag: str = "") -> Descriptor:
        """An image or an index, of the type that it says."""
        described = self._data(json.dumps(document).encode(), document["mediaType"])
        self._link(repository, "_manifests/revisions", described.digest)
        if tag:
            self._link(repository, f"_manifests/tags/{tag}/index", described.digest)
            place = self._root / "repositories" / repository / "_manifests/tags" / tag
            _write(place / "current/link", described.digest.encode())
        return described

    def image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[Mapping[str, bytes]] = ({"text": b"hello\n"},),
        *,
        platforms: Sequence[str] = ("linux/amd64",),
    ) -> Descriptor:
        """Made of layers with those files; an index of several platforms where there are several. Returns the top."""
        packed = [tar_of(layer) for layer in layers]
        described = [self.blob(repository, gzip.compress(tar, 1, mtime=0)) for tar in packed]
        tops = [self._of_platform(repository, platform, described, packed) for platform in platforms]
        if len(tops) == 1:
            return self.manifest(repository, tops[0], tag)
        listed = []
        for platform, top in zip(platforms, tops, strict=True):
            names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
            listed.append({**written(self.manifest(repository, top)), "platform": names})
        return self.manifest(repository, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}, tag)

    def _of_platform(
        self, repository: str, platform: str, layers: Sequence[Descriptor], packed: Sequence[bytes]
    ) -> dict[str, Any]:
        os, architecture, *_ = platform.split("/")
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar) for tar in packed]}
        config = {"os": os, "architecture": architecture, "config": {}, "rootfs": rootfs, "history": []}
        described = self.blob(repository, json.dumps(config).encode(), CONFIGS[0])
        return {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": written(described),
            "layers": [written(layer) for layer in layers],
        }

    def _data(self, content: bytes, media_type: str) -> Descriptor:
        digest = digest_of(content)
        name = digest.removeprefix("sha256:")
        _write(self._root / "blobs/sha256" / name[:2] / name / "data", content)
        return Descriptor(media_type, digest, len(content))

    def _link(self, repository: str, kind: str, digest: str) -> None:
        place = self._root / "repositories" / repository / kind / "sha256" / digest.removeprefix("sha256:")
        _write(place / "link", digest.encode())


class DebianRegistry:
    """`host` is its `127.0.0.1:PORT`. `login`: it wants USER and PASSWORD; `config` is added to its own.

    `popen` starts it on another host: `Host.popen`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        login: bool = False,
        config: Mapping[str, Any] = {},
        popen: Callable[..., Child] = subprocess.Popen,
    ) -> None:
        self.content = Content(directory / "content")
        self.content.directory.mkdir(parents=True)
        settings: dict[str, Any] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.content.directory)}},
            "http": {"addr": "127.0.0.1:0"},
            **config,
        }
        if login:
            (directory / "htpasswd").write_text(f"{USER}:{_HASHED}\n")
            settings["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
        (directory / "config.yml").write_text(json.dumps(settings))  # which is YAML
        argv = [PROGRAM, "serve", str(directory / "config.yml")]
        self._process = popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._reading = threading.Thread(target=self._read_log)
        self.log: list[str] = []
        self.host = ""

    def __enter__(self) -> DebianRegistry:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = raw.decode(errors="replace")
            self.log.append(line)
            if found := _LISTENING.search(line):
                self.host = found[1]
                self._reading.start()
                return self
        raise RuntimeError(f"{PROGRAM} has ended: {self._process.wait(20)}, {self.log}")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()

    def _read_log(self) -> None:
        """Else it would wait until somebody does."""
        assert self._process.stderr is not None
        with self._process.stderr:
            self.log += (line.decode(errors="replace") for line in self._process.stderr)


def written(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
