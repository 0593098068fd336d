"""The recipe of the base OS: the lists in `os/`, read for one architecture and flavour. Only reads files."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error
from dom0.host.uki import UNAME
from dom0.images.contents import digest, entries
from dom0.images.recipe import EPOCH
from dom0.package_data import PACKAGE, os_recipe

FLAVOURS = ("vm", "metal")


class Architecture(msgspec.Struct, frozen=True):
    """`name` is Debian's; the others are of the C library and EFI."""

    name: str
    libraries: str  # directory
    loader: str  # of dynamic programs; path as they carry it
    efi: str


ARCHITECTURES = {
    arch.name: arch
    for arch in (
        Architecture("amd64", "usr/lib/x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2", "x64"),
        Architecture("arm64", "usr/lib/aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1", "aa64"),
    )
}


class OsRecipe(msgspec.Struct, frozen=True):
    """Builds are reproducible: the same recipe and the same packages make the same bytes."""

    architecture: Architecture
    flavour: str
    directory: Path

    @property
    def packages(self) -> tuple[str, ...]:
        return self._lists("packages")

    @property
    def files(self) -> tuple[str, ...]:
        return self._list("files")

    @property
    def links(self) -> dict[str, str]:
        """Path of a link -> its target."""
        return dict(line.split() for line in self._list("links"))

    @property
    def applets(self) -> tuple[str, ...]:
        return self._list("applets")

    @property
    def modules(self) -> tuple[str, ...]:
        return self._lists("modules")

    @property
    def first_modules(self) -> tuple[str, ...]:
        """Those of the initramfs."""
        return self._list("modules/initramfs")

    def inputs(self) -> str:
        """Digest of all inputs but the packages: the recipe, and the code that uses it."""
        return self._digest((*_ROOT_CODE, *_CODE), (*_ROOT_DATA, *_DATA))

    def root_inputs(self) -> str:
        """Digest of what the squashfs is made from: without our own programs."""
        return self._digest(_ROOT_CODE, _ROOT_DATA)

    def _digest(self, code: tuple[str, ...], data: tuple[str, ...]) -> str:
        told = [(PACKAGE / name).read_text() for name in code]
        text = f"{EPOCH} {self.architecture.name} {self.flavour} {told}"
        return digest(entries(self.directory, lambda name: name.split("/")[0] not in data), text=text)

    def _lists(self, name: str) -> tuple[str, ...]:
        """The common list, the flavour's, and that of the flavour for this architecture, if there is one."""
        lists = [f"{name}/common", f"{name}/{self.flavour}"]
        own = f"{name}/{self.flavour}-{self.architecture.name}"
        if (self.directory / own).exists():
            lists.append(own)
        return tuple(line for each in lists for line in self._list(each))

    def _list(self, name: str) -> tuple[str, ...]:
        text = (self.directory / name).read_text()
        lines = (line.strip() for line in text.splitlines())
        names = {"arch": self.architecture.name, "lib": self.architecture.libraries}
        return tuple(line.format(**names) for line in lines if line and not line.startswith("#"))


_ROOT_CODE = ("osimage/elf.py", "osimage/modules.py", "osimage/recipe.py", "osimage/root.py", "osimage/squash.py")
_ROOT_DATA = ("applets", "files", "links", "modules", "packages")
_CODE = ("osimage/build.py", "osimage/initramfs.py", "osimage/manifest.py", "images/contents.py")
_DATA = ("init", "tree")


def load(arch: str = "", flavour: str = "vm") -> OsRecipe:
    """The recipe for `arch` (Debian's word; this machine's if empty). Raises Dom0Error."""
    machine = os.uname().machine
    arch = arch or next((name for name, uname in UNAME.items() if uname == machine), "")
    if not arch:
        raise Dom0Error(f"{machine}: there is no base OS for this kind of processor", hint="name one with --arch")
    return OsRecipe(ARCHITECTURES[arch], flavour, os_recipe())
