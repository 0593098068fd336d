"""What the network loader of a machine, iPXE, gets to run and to read. No I/O.

Nothing that a machine said of itself is in these texts; names and versions have only characters that iPXE reads as they
are.
"""

from __future__ import annotations

from collections.abc import Mapping

PAUSE = 3  # seconds between two questions of a loader that waits
_HEAD = "#!ipxe\n"
_DIRECTORY, _FILE = 0o040755, 0o100600
_ARCHITECTURES = {"i386": "amd64", "x86_64": "amd64", "arm64": "arm64"}  # iPXE's word of itself -> Debian's


def can_start(arch: str, architecture: str) -> bool:
    """Whether a loader that calls itself `arch` starts a base OS for `architecture`; of others it is not known."""
    return _ARCHITECTURES.get(arch, architecture) == architecture


def first(base: str) -> str:
    """Says who the machine is; asked for again where nobody answers. `base`: URL of the server, without a path."""
    asked = "mac=${netX/mac:hexhyp}&uuid=${uuid}&arch=${buildarch}"
    return f"{_HEAD}chain --replace {base}/v1/boot?{asked} ||\n{_again(base)}"


def waiting(base: str, farm: str, code: str, own: str) -> str:
    """Shows the code and asks again; `own` is the machine's pass."""
    shown = f"echo\necho farm {farm}: this machine waits to be approved, on the farm's server by\n"
    shown += f"echo     dom0 farm approve {code} --as NAME --role ROLE\n"
    ask = f":again\nsleep {PAUSE}\nchain --replace {base}/v1/boot/{own} || goto again\n"
    return f"{_HEAD}{shown}{ask}"


def booting(base: str, files: str, line: str, archives: list[str]) -> str:
    """Starts the base OS whose kernel and initrd are at `files`, with the kernel line `line`; `archives` are URLs."""
    steps = [f"kernel {files}/linux {line}", f"initrd {files}/initrd", *(f"initrd {url}" for url in archives), "boot"]
    tried = "".join(f"{step} || goto failed\n" for step in steps)
    return f"{_HEAD}{tried}:failed\necho The base OS did not start.\n{_again(base)}"


def refused(base: str, why: str) -> str:
    return f"{_HEAD}echo {why}\n{_again(base)}"


def archive(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of files for root alone, with their directories, as the kernel unpacks it (newc)."""
    directories = dict.fromkeys(name[:at] for name in files for at, character in enumerate(name) if character == "/")
    entries = [(name, _DIRECTORY, b"") for name in directories]
    entries += [(name, _FILE, content) for name, content in files.items()]
    out = bytearray()
    for number, (name, mode, content) in enumerate((*entries, ("TRAILER!!!", 0, b"")), 1):
        ended = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(ended), 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + ended, content):
            out += part + bytes(-(len(out) + len(part)) % 4)
    return bytes(out)


def _again(base: str) -> str:
    """A script that ends gives the machine back to its firmware, which may stop there for ever."""
    return f":again\nsleep {PAUSE}\nchain --replace {base}/boot.ipxe || goto again\n"
