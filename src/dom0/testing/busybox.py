"""The image that tests start: /bin/busybox of Debian's busybox-static and links to it, made without a registry."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
IMAGE = "busybox:test"  # has neither CMD nor ENTRYPOINT
APPLETS = (
    *("sh", "ash", "sleep", "true", "false", "wget", "nc", "cat", "ls", "id", "env", "touch", "echo", "date", "ps"),
    *("hostname", "kill", "httpd", "ping", "mkdir", "rm", "mv", "cp", "ln", "grep", "sed", "awk", "head", "tail"),
    *("test", "tr", "stat", "find", "tar", "sha256sum", "od", "printf", "pwd", "chmod", "chown", "df", "mount"),
    *("umount", "ip", "wc", "sort", "uniq", "seq", "nslookup", "expr", "cut", "dd", "nproc"),
)


def layer() -> bytes:
    """A tar of the whole file system, the same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add_file(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        _add_file(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644)
        _add_file(tar, "etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


def _add_file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
