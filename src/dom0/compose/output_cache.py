"""What Compose has printed for a project, kept for a second reading: as the project lies in an image, where its Compose
files have other names. What Compose prints depends only on the copies of files that it is given, so it does not run
twice for the same copies.

It does run again where a file has a `..`: that may lead out of the project and back in by the name of the project's
directory, which is another one in an image.
"""

from __future__ import annotations

import asyncio
import re

import msgspec
from msgspec.structs import replace

from dom0.compose.files import ProjectFiles
from dom0.compose.parser import View

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # a path that is the same in JSON and YAML
_NAME = re.compile(rb'name: "([a-z0-9_-]+)"\n')  # a Compose file that says nothing else


class ComposeOutput(msgspec.Struct, frozen=True):
    """One resolved project. Its paths are those of the view."""

    version: str  # of Compose
    json: str
    yaml: str  # "" where it was not asked for
    warnings: tuple[str, ...]


_Key = tuple[tuple[bytes, ...], frozenset[tuple[str, bytes]], bytes]


class _ProjectName(msgspec.Struct):
    name: str = ""


class OutputCache:
    """For readings with the same variables and profiles. `started` is set when Compose has been started."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.hashes: dict[str, asyncio.Task[dict[str, str]]] = {}  # by Compose's input
        self._known: dict[_Key, tuple[str, ComposeOutput]] = {}  # with the root of its view

    def store(self, output: ComposeOutput, files: ProjectFiles, view: View, own: bytes) -> None:
        """`own` is the layer that dom0 adds on top of the project's."""
        root = str(view.root)
        if _PLAIN.fullmatch(root) and not any(b".." in content for content in files.copies.values()):
            self._known[_key(files, files.layers, own)] = (root, output)

    def find(self, files: ProjectFiles, view: View, own: bytes) -> ComposeOutput | None:
        root = str(view.root)
        found = self._known.get(_key(files, files.layers, own))
        # In an image the lowest layer may be a file with the name that the project had from its directory.
        if found is None and (name := _NAME.fullmatch(files.copies[files.layers[0]])):
            found = self._known.get(_key(files, files.layers[1:], own))
            if found and msgspec.json.decode(found[1].json, type=_ProjectName).name != name[1].decode():
                return None
        if found is None or not _PLAIN.fullmatch(root):
            return None
        before, output = found
        json, yaml, *warnings = (text.replace(before, root) for text in (output.json, output.yaml, *output.warnings))
        return replace(output, json=json, yaml=yaml, warnings=tuple(warnings))

    async def close(self) -> None:
        """Cancel hashing that no reading has asked for."""
        for task in self.hashes.values():
            task.cancel()
        await asyncio.gather(*self.hashes.values(), return_exceptions=True)


def _key(files: ProjectFiles, layers: tuple[str, ...], own: bytes) -> _Key:
    others = frozenset((name, content) for name, content in files.copies.items() if name not in files.layers)
    return tuple(files.copies[layer] for layer in layers), others, own
