"""Update files with a kernel and next to nothing else: they say on the console what they were told, and end.

With one of them a virtual machine is on and off again in seconds, which is enough to see what a boot loader decides.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from dom0.host import uki
from dom0.osimage import build, initramfs
from dom0.testing import vm
from dom0.testing.busybox import BUSYBOX
from dom0.testing.fake_uki import make_uki

_LINE = b"console=ttyS0 quiet panic=1 no_timer_check dom0.medium=LABEL=DOM0-BOOT"
_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox echo "tiny {version}: $(/bin/busybox cat /proc/cmdline)"
{end}
"""
WORKS = "/bin/busybox poweroff -f"
PANICS = "exit 1"


def make(directory: Path, version: str, end: str = WORKS) -> uki.Uki:
    """An update file in `directory` that does `end` when it has started."""
    linux = (vm.base_os() / build.LINUX).read_bytes()
    file = directory / f"tiny-{version}.efi"
    file.write_bytes(make_uki(version=version, linux=linux, initrd=_initrd(version, end), cmdline=_LINE))
    return uki.read(file)


def _initrd(version: str, end: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="dom0-tiny-") as scratch:
        tree = Path(scratch) / "tree"
        (tree / "bin").mkdir(parents=True)
        (tree / "proc").mkdir()
        (tree / "dev").mkdir()
        shutil.copy2(BUSYBOX, tree / "bin/busybox")
        (tree / "init").write_text(_INIT.format(version=version, end=end))
        (tree / "init").chmod(0o755)
        asyncio.run(initramfs.write(tree, Path(scratch) / "names", Path(scratch) / "initrd"))
        return (Path(scratch) / "initrd").read_bytes()
