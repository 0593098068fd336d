"""A tar archive that is read while it comes and written anew: what passes has one reading. No more of it is kept than
one header. Refused is what readers differ about: sparse files, devices, names that lead upwards, unknown extensions.

Formats: ustar, pax and GNU (long names), as POSIX.1-2017 and Python's tarfile say.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import AsyncIterator

import msgspec

from dom0.socketproxy.refusal import BAD_REQUEST, Refused

BLOCK = 512  # bytes
GZIP = b"\x1f\x8b"
LONGEST_EXTENSION = 64 << 10  # bytes, of a pax header or a long name
PIECE = 64 << 10  # bytes that are unpacked at once
KEPT = ("path", "linkpath", "size", "mtime", "uid", "gid")
DROPPED = ("atime", "ctime", "comment", "uname", "gname")
DROPPED_GROUPS = ("SCHILY.", "LIBARCHIVE.")
FILE, DIRECTORY, SYMBOLIC_LINK, HARD_LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
Pieces = AsyncIterator[bytes | memoryview]
"""Of an archive; each is there until the next one is asked for."""


class TarMember(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # relative, its parts separated by one slash each; "" for the archive's root
    type: bytes = FILE  # one of the four
    size: int = 0  # of its content, bytes
    mode: int = 0o644
    mtime: int = 0
    uid: int = 0
    gid: int = 0
    target: str = ""  # of a link
    start: int = 0  # where its content begins in the archive that is read, bytes


class TarWriter:
    """The bytes of an archive: `begin` an entry, pass its content on, and at last `end`."""

    def __init__(self) -> None:
        self._padding = b""

    def begin(self, entry: TarMember) -> bytes:
        info = tarfile.TarInfo(entry.name)
        info.type, info.size, info.mode, info.mtime = entry.type, entry.size, entry.mode, entry.mtime
        info.uid, info.gid, info.linkname = entry.uid, entry.gid, entry.target
        padding, self._padding = self._padding, bytes(-entry.size % BLOCK)
        return padding + info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")

    def end(self) -> bytes:
        return self._padding + bytes(2 * BLOCK)


async def read(chunks: Pieces) -> AsyncIterator[TarMember | memoryview]:
    """Each entry, followed by the pieces of its content. What stands behind the archive's end is read and dropped.

    `chunks` may be compressed by gzip, as docker compose does. Raises Refused.
    """
    chunks = _plain(chunks)
    source = _ByteReader(chunks)
    extension: dict[str, str] = {}  # of the entry that comes next
    while any(block := await source.exactly(BLOCK)):
        try:  # the beginning of a long name ends anywhere
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _unclear(f"no header: {error}") from error
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if not 0 <= info.size <= LONGEST_EXTENSION:
                raise _unclear("an extended header is too long")
            content = await source.exactly(info.size)
            await source.exactly(-info.size % BLOCK)
            extension |= _extension(info.type, content)
            continue
        entry, extension = _entry(info, extension, source.at), {}
        yield entry
        left = entry.size
        while left:
            piece = await source.some(left)
            left -= len(piece)
            yield piece
        await source.exactly(-entry.size % BLOCK)
    if extension:
        raise _unclear("an extended header is of nothing")
    async for _ in chunks:
        pass


async def _plain(chunks: Pieces) -> Pieces:
    """In pieces, however much a chunk is of. Raises Refused."""
    first = await anext(chunks, b"")
    if first[: len(GZIP)] != GZIP:
        yield first
        async for chunk in chunks:
            yield chunk
        return
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    rest = first
    while rest:
        try:
            yield unpacking.decompress(rest, PIECE)
        except zlib.error as error:
            raise _unclear(f"gzip: {error}") from error
        rest = unpacking.unconsumed_tail or (b"" if unpacking.eof else await anext(chunks, b""))
    if not unpacking.eof:
        raise _unclear("it ends before its end")
    async for _ in chunks:
        pass


class _ByteReader:
    def __init__(self, chunks: Pieces) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.at = 0  # bytes of the archive that were taken

    async def some(self, most: int) -> memoryview:
        while not self._rest:
            try:
                self._rest = memoryview(await anext(self._chunks))
            except StopAsyncIteration:
                raise _unclear("it ends before its end") from None
        piece, self._rest = self._rest[:most], self._rest[most:]
        self.at += len(piece)
        return piece

    async def exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            content += await self.some(size - len(content))
        return content


def _extension(kind: bytes, content: bytes) -> dict[str, str]:
    try:
        if kind == tarfile.GNUTYPE_LONGNAME:
            return {"path": content.rstrip(b"\0").decode()}
        if kind == tarfile.GNUTYPE_LONGLINK:
            return {"linkpath": content.rstrip(b"\0").decode()}
        found = _records(content)
    except ValueError as error:
        raise _unclear(f"an extended header: {error}") from error
    for key in found:
        is_dropped = key in DROPPED or key.startswith(DROPPED_GROUPS)
        if not is_dropped and (key not in KEPT or kind == tarfile.XGLTYPE):
            raise _unclear(f"the extended header {key!r}")
    return {key: value for key, value in found.items() if key in KEPT}


def _records(content: bytes) -> dict[str, str]:
    """Each is LENGTH KEY=VALUE and a line feed. Raises ValueError."""
    found: dict[str, str] = {}
    while content:
        digits, space, _ = content[:21].partition(b" ")
        record, content = content[: int(digits)], content[int(digits) :]
        key, equals, value = record[len(digits) + 1 : -1].decode().partition("=")
        if not digits.isdigit() or not (space and equals) or len(record) != int(digits) or record[-1:] != b"\n":
            raise ValueError("a record that is none")
        if key in found:
            raise ValueError(f"{key} twice")
        found[key] = value
    return found


def _entry(info: tarfile.TarInfo, extension: dict[str, str], start: int) -> TarMember:
    kind = FILE if info.type == tarfile.AREGTYPE else info.type
    try:
        size = int(extension.get("size", info.size))
        entry = TarMember(
            name=_path(extension.get("path", info.name)),
            type=kind,
            size=size,
            mode=info.mode & 0o7777,
            mtime=int(float(extension.get("mtime", info.mtime))),
            uid=int(extension.get("uid", info.uid)),
            gid=int(extension.get("gid", info.gid)),
            target=_target(kind, extension.get("linkpath", info.linkname)),
            start=start,
        )
    except (ValueError, OverflowError) as error:
        raise _unclear(f"a header: {error}") from error
    if (
        kind not in (FILE, DIRECTORY, SYMBOLIC_LINK, HARD_LINK)
        or not 0 <= size < 1 << 62
        or (size and kind != FILE)
        or not (entry.name or kind == DIRECTORY)
    ):
        raise _unclear(f"{entry.name}: is no file, directory or link")
    return entry


def _target(kind: bytes, target: str) -> str:
    """Raises ValueError."""
    if kind not in (HARD_LINK, SYMBOLIC_LINK):
        return ""
    if not target or "\0" in target or not _is_utf8(target):
        raise ValueError("a link to nothing")
    return _path(target) if kind == HARD_LINK else target


def _path(name: str) -> str:
    """Raises ValueError."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not _is_utf8(name):
        raise ValueError(f"the name {name!r} leads out of the archive")
    return "/".join(parts)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _unclear(what: str) -> Refused:
    return Refused(BAD_REQUEST, f"the archive: {what}")
