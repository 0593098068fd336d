"""Reads the file of a base OS, a UKI: one EFI program (PE) with kernel, initrd and kernel command line as sections; and
makes the files of a slot on a boot disk from it.

The file is untrusted: every number in it is checked against the file's size before it is used, and sizes are limited.
One of ours has a section with the digests of the others, so damage anywhere in these is seen. They are no signature.
https://uapi-group.org/specifications/specs/unified_kernel_image/
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error

UNAME = {"amd64": "x86_64", "arm64": "aarch64"}  # Debian's word -> the kernel's
SUMS = "sums"  # written last to a slot: where it exists, all files do
DIGESTS = ".sums"  # the section with the digests of what a base OS is made from
_PARTS = (".linux", ".initrd", ".cmdline", ".osrel", ".uname")
_MACHINES = {0x8664: "amd64", 0xAA64: "arm64"}  # of PE -> Debian's word
_LARGEST = 2 << 30  # bytes of a section
_LONGEST_TEXT = 4096  # bytes of a section that is text
_MOST_SECTIONS = 64
_HEADER = struct.Struct("<4sHHIIIHH")  # signature, machine, sections, time, symbols (2), optional header, flags
_SECTION = struct.Struct("<8sIIII16x")  # name, size in memory, address, size in the file, place in the file
_LINE = re.compile(r"[A-Za-z0-9 ,.:/_=@%+\[\]-]+")  # characters that GRUB, iPXE and a shell read alike
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+_~-]{0,63}")  # of a kernel, or of the base OS: also the name of a directory
_CHUNK = 1 << 20  # bytes


class Section(msgspec.Struct, frozen=True):
    """A range of bytes in a file."""

    file: Path
    start: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        with self.file.open("rb") as opened:
            opened.seek(self.start)
            left = self.size
            while left:
                chunk = opened.read(min(left, _CHUNK))
                if not chunk:
                    raise Dom0Error(f"{self.file}: became shorter while it was read")
                left -= len(chunk)
                yield chunk

    def sha256(self) -> str:
        total = hashlib.sha256()
        for chunk in self.chunks():
            total.update(chunk)
        return total.hexdigest()


class BootFile(msgspec.Struct, frozen=True):
    """A file of a boot medium, or of a slot on it. `name` is its path there."""

    name: str
    content: bytes | Section

    @property
    def size(self) -> int:
        return self.content.size if isinstance(self.content, Section) else len(self.content)

    def sha256(self) -> str:
        return self.content.sha256() if isinstance(self.content, Section) else hashlib.sha256(self.content).hexdigest()


class Uki(msgspec.Struct, frozen=True):
    """`line` is the kernel command line, `release` the kernel's, `version` the base OS's ("" if it is not ours)."""

    architecture: str  # Debian's word
    linux: Section
    initrd: Section
    line: str
    release: str
    version: str

    @property
    def title(self) -> str:
        """For people: its version, and for which machines it is."""
        what = "virtual machines" if is_for_virtual_machines(self.release) else "hardware"
        return f"base OS {self.version or 'unknown'} for {what}"


def is_for_virtual_machines(release: str) -> bool:
    """Whether a kernel of that release is Debian's without drivers for hardware (its packages linux-image-cloud-*)."""
    return "-cloud-" in release


def slot_files(os: Uki) -> tuple[BootFile, ...]:
    files = (
        BootFile("linux", os.linux),
        BootFile("initrd", os.initrd),
        BootFile("line", f'set line="{os.line}"\n'.encode()),  # a script of GRUB
        BootFile("version", f"{os.version or 'unknown'} {os.release}\n".encode()),
    )
    return (*files, BootFile(SUMS, "".join(f"{file.sha256()}  {file.name}\n" for file in files).encode()))


def read(file: Path) -> Uki:
    """All of it: takes as long as reading the file does.

    Raises Dom0Error if `file` is no UKI, is damaged, or is none that GRUB and iPXE could start.
    """
    try:
        architecture, sections = _sections(file)
        told = _text(sections, DIGESTS) if DIGESTS in sections else ""
        if told and (damaged := set(_digests(sections)) - set(told.splitlines())):
            raise _damaged(file, f"its section {min(damaged).split()[1]} is not what was built")
        texts = {name: _text(sections, name) for name in (".cmdline", ".uname", ".osrel")}
        linux, initrd = sections[".linux"], sections[".initrd"]
    except KeyError as error:
        raise _refused(file, f"has no section {error.args[0]}") from error
    except UnicodeDecodeError as error:
        raise _refused(file, "holds text that is not UTF-8") from error
    line = " ".join(texts[".cmdline"].split())
    if not _LINE.fullmatch(line):
        raise _refused(file, "its kernel line holds characters that boot loaders read differently")
    release = texts[".uname"].strip()
    if not _RELEASE.fullmatch(release):
        raise _refused(file, "its kernel has no release")
    values = dict(line.split("=", 1) for line in texts[".osrel"].splitlines() if "=" in line)
    version = values.get("VERSION_ID", "").strip('"')
    is_ours = values.get("ID") == "dom0" and _RELEASE.fullmatch(version)
    if is_ours and not told:
        raise _refused(file, f"has no section {DIGESTS}, by which damage would be seen")
    return Uki(architecture, linux, initrd, line, release, version if is_ours else "")


def digests(file: Path) -> str:
    """What the section DIGESTS of `file` has to say: lines as sha256sum prints them. Raises Dom0Error."""
    _, sections = _sections(file)
    return "".join(f"{line}\n" for line in _digests(sections))


def _digests(sections: Mapping[str, Section]) -> Iterator[str]:
    """Raises KeyError for a section that is not there."""
    for name in _PARTS:
        yield f"{sections[name].sha256()}  {name}"


def _sections(file: Path) -> tuple[str, Mapping[str, Section]]:
    """The architecture, and the sections by their names. Raises Dom0Error, UnicodeDecodeError."""
    size = file.stat().st_size
    found: dict[str, Section] = {}
    with file.open("rb") as opened:
        try:
            head = opened.read(64)
            if head[:2] != b"MZ":
                raise _refused(file, "is not an EFI program")
            (at,) = struct.unpack_from("<I", head, 60)
            opened.seek(at)
            signature, machine, count, _, _, _, optional, _ = _HEADER.unpack(opened.read(_HEADER.size))
            if signature != b"PE\0\0" or machine not in _MACHINES or not 0 < count <= _MOST_SECTIONS:
                raise _refused(file, "is not an EFI program for amd64 or arm64")
            opened.seek(optional, 1)
            table = [_SECTION.unpack(opened.read(_SECTION.size)) for _ in range(count)]
        except struct.error as error:
            raise _damaged(file, "it is cut off") from error
    for name, in_memory, _, in_file, start in table:
        part = Section(file, start, min(in_memory, in_file))
        word = name.rstrip(b"\0").decode()
        if word in found or part.size > _LARGEST:
            raise _damaged(file, f"its section {word!r} is there twice, or too large")
        if (end := part.start + part.size) > size:
            raise _damaged(file, f"it is cut off: it has {size} bytes, and its section {word!r} ends at {end}")
        found[word] = part
    return _MACHINES[machine], found


def _text(sections: Mapping[str, Section], name: str) -> str:
    part = sections[name]
    if part.size > _LONGEST_TEXT:
        raise _refused(part.file, f"its section {name} is too long")
    return b"".join(part.chunks()).rstrip(b"\0").decode()


def _damaged(file: Path, what: str) -> Dom0Error:
    return Dom0Error(f"{file}: is damaged: {what}", hint="copy or fetch it again, or build it: dom0 os build")


def _refused(file: Path, what: str) -> Dom0Error:
    return Dom0Error(f"{file}: {what}", hint="a base OS is one file, dom0-os.efi, made by `dom0 os build`")
