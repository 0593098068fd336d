"""A stand-in for dom0-rootfs: the programs that restic's container needs, of this machine's Debian."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile

PROGRAMS = ("restic", "cat", "mv", "sh", "timeout")


def debian_like() -> bytes:
    """A tar of the programs that the worker needs, with their libraries, from this machine's Debian."""
    files = {f"/usr/bin/{program}" for program in PROGRAMS}
    for program in sorted(files):
        printed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= set(re.findall(r"(/\S+) \(0x", printed))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        tar.add("/tmp", recursive=False)  # noqa: S108 -- the directory itself
        for name in sorted(files):
            tar.add(name, name.removeprefix("/"))
            if not name.startswith("/usr/"):
                continue
            link = tarfile.TarInfo(name.removeprefix("/usr/"))
            link.type, link.linkname = tarfile.SYMTYPE, name
            tar.addfile(link)
    return buffer.getvalue()
