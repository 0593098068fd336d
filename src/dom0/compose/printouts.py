"""What Compose has printed of a project, for another reading of it: as it will lie in an image, where its Compose files
have other names. Compose knows nothing but the copies that it is shown, and is not asked twice about the same ones.
For its hashes it is asked as soon as the project is known.

It is asked all the same where a `..` might lead out of the project and back by the name of its directory: that is
another one there.
"""

from __future__ import annotations

import asyncio
import re

import msgspec
from msgspec.structs import replace

from dom0.compose.files import ProjectFiles
from dom0.compose.parser import View

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)  # a path that is the same in JSON and YAML
_NAME = re.compile(rb"name: ([a-z0-9_-]+)\n")  # a Compose file that says nothing else


class Printed(msgspec.Struct, frozen=True):
    """`text` is JSON, `written` the same in YAML where it was asked for; paths are in the view."""

    version: str  # of Compose
    text: str
    written: str
    warnings: tuple[str, ...]


_Key = tuple[tuple[bytes, ...], frozenset[tuple[str, bytes]], bytes]


class _Named(msgspec.Struct):
    name: str = ""


class Printouts:
    """Of readings with the same variables and profiles. `asked`: Compose has been started."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._known: dict[_Key, tuple[str, Printed]] = {}  # with the root of its view
        self.hashes: dict[str, asyncio.Task[dict[str, str]]] = {}  # by what is hashed

    def note(self, printed: Printed, files: ProjectFiles, view: View, own: bytes) -> None:
        """`own`: our own layer above those of the project."""
        root = str(view.root)
        if _PLAIN.fullmatch(root) and not any(b".." in content for content in files.copies.values()):
            self._known[_key(files, files.layers, own)] = (root, printed)

    def find(self, files: ProjectFiles, view: View, own: bytes) -> Printed | None:
        root = str(view.root)
        found = self._known.get(_key(files, files.layers, own)) or self._find_named(files, own)
        if found is None or not _PLAIN.fullmatch(root):
            return None
        before, printed = found
        text, written, *warnings = (
            words.replace(before, root) for words in (printed.text, printed.written, *printed.warnings)
        )
        return replace(printed, text=text, written=written, warnings=tuple(warnings))

    async def end(self) -> None:
        """There is no other reading: nobody asks for the hashes any more."""
        for task in self.hashes.values():
            task.cancel()
        await asyncio.gather(*self.hashes.values(), return_exceptions=True)

    def _find_named(self, files: ProjectFiles, own: bytes) -> tuple[str, Printed] | None:
        """An image's lowest layer may say the name that the project has from its directory."""
        name = _NAME.fullmatch(files.copies[files.layers[0]])
        found = self._known.get(_key(files, files.layers[1:], own)) if name else None
        if not name or not found or msgspec.json.decode(found[1].text, type=_Named).name != name[1].decode():
            return None
        return found


def _key(files: ProjectFiles, layers: tuple[str, ...], own: bytes) -> _Key:
    others = frozenset((name, content) for name, content in files.copies.items() if name not in files.layers)
    return tuple(files.copies[layer] for layer in layers), others, own
