"""The files of a network boot, as a directory for a web server (and for firmware a TFTP server).

    boot.ipxe       names the base OS and its kernel command line; written last, so that all that it names is there
    VERSION/        linux, initrd, and medium.cpio with the boot contract, unpacked to /medium, as of a boot medium
    autoexec.ipxe   what iPXE runs when the firmware has loaded it from here
    undionly.kpxe, snponly.efi, ipxe.efi   iPXE for BIOS and EFI, where Debian's package ipxe is installed

Machines are updated by another boot.ipxe and a restart; nothing is ever installed on them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from dom0.errors import UsageError
from dom0.host.uki import BootFile, Uki
from dom0.osimage import initramfs, medium
from dom0.osimage.boot_contract import BootContract
from dom0.run import sync
from dom0.wording import excerpt

IPXE = Path("/usr/lib/ipxe")
_LOADERS = {
    "amd64": {"undionly.kpxe": "undionly.kpxe", "snponly.efi": "snponly.efi", "ipxe.efi": "ipxe-amd64.efi"},
    "arm64": {"ipxe.efi": "ipxe-arm64.efi"},
}
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


def directory_of(os: Uki) -> str:
    """The name of the directory with its files."""
    return os.version or f"os-{os.initrd.sha256()[:12]}"


def refuse(url: str) -> None:
    """Raises UsageError for what iPXE would not read as an address of a web server."""
    if url and not _URL.fullmatch(url):
        raise UsageError(f"--url {excerpt(url)}: is not an address of a web server", hint="http://192.168.0.1/dom0")


async def write(os: Uki, contract: BootContract, directory: Path, url: str) -> list[str]:
    """Fill `directory`, which is served as `url` ("": by TFTP alone). Returns the loaders that are in it.

    Raises Dom0Error.
    """
    refuse(url)
    base = f"{url.rstrip('/')}/" if url else ""
    name = directory_of(os)
    files = medium.contract_files(contract)
    (directory / name).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dom0-netboot-", dir=directory) as scratch:
        fresh = Path(scratch)
        medium.write_files([BootFile("linux", os.linux), BootFile("initrd", os.initrd)], fresh / name)
        if files:
            medium.write_files(files, fresh / "tree" / "medium")
            await initramfs.write(fresh / "tree", fresh / "names", fresh / name / "medium.cpio")
        for file in (fresh / name).iterdir():
            file.replace(directory / name / file.name)
        sources = {loader: IPXE / source for loader, source in _LOADERS[os.architecture].items()}
        loaders = [loader for loader, source in sources.items() if source.is_file()]
        for loader in loaders:
            shutil.copyfile(sources[loader], fresh / loader)
            (fresh / loader).replace(directory / loader)
        # EFI's network has to be set up by iPXE itself before it reaches a web server. Firmware may stop for ever at a
        # loader that ends: one that is here already waits for a server that is away.
        first = f"#!ipxe\n:again\ndhcp && chain {base}boot.ipxe ||\nsleep 3\ngoto again\n"
        # Names in it are relative to its URL.
        boot = f"#!ipxe\nkernel {name}/linux dom0.medium=none {os.line}\ninitrd {name}/initrd\n"
        boot += f"initrd {name}/medium.cpio\n" if files else ""
        scripts = {"autoexec.ipxe": first, "boot.ipxe": f"{boot}boot\n"}
        for script, text in scripts.items():
            (fresh / script).write_text(text)
        await sync(directory)
        for script in scripts:
            (fresh / script).replace(directory / script)
    return loaders
