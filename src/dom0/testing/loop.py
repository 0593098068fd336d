"""Loop devices for tests: files as block devices, gone when their owner is, by whatever death.

Numbers of loop devices belong to the whole machine. Each is attached with the kernel's autoclear flag and held open by
this process: the kernel detaches it at its last close. Nothing here touches a loop device that it did not attach.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType

# <linux/loop.h>
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_READ_ONLY, _AUTOCLEAR, _PARTSCAN = 1, 4, 8
_CONFIG = struct.Struct("=II 5Q 4I 64s 64s 32s 2Q 8Q")  # struct loop_config with its struct loop_info64
_TRIES = 50  # somebody else may take the free number first
_FLUSH, _SET_READ_ONLY = 0x1261, 0x125D  # BLKFLSBUF and BLKROSET of <linux/fs.h>

# <linux/blkpg.h>
_PARTITIONS, _ADD_PARTITION = 0x1269, 1
_REQUEST = struct.Struct("@iiiP")
_PARTITION = struct.Struct("@qqi64s64s4x")


def missing() -> str:
    """Why this machine has no loop devices for us; empty if it has."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if Path("/dev/loop-control").exists() else "needs /dev/loop-control"


class Loop:
    """`file` as a block device, with its partitions. Use it as a context manager, or call `detach`."""

    def __init__(self, file: Path, *, read_only: bool = False) -> None:
        self.file = file
        self._handle = _attach(file, read_only=read_only)
        self.number = os.fstat(self._handle).st_rdev

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    @property
    def name(self) -> str:
        return f"loop{os.minor(self.number)}"

    @property
    def path(self) -> Path:
        return Path("/dev") / self.name

    @property
    def partitions(self) -> dict[int, int]:
        """Number of a partition -> its device number."""
        found = {}
        for file in Path("/sys/class/block", self.name).glob(f"{self.name}p*/partition"):
            major, minor = (file.parent / "dev").read_text().split(":")
            found[int(file.read_text())] = os.makedev(int(major), int(minor))
        return found

    def add_partition(self, number: int, first: int, size: int) -> None:
        """Tell the kernel of one, in bytes: kernels of test machines may not read partition tables."""
        if number not in self.partitions:
            told = ctypes.create_string_buffer(_PARTITION.pack(first, size, number, b"", b""))
            request = _REQUEST.pack(_ADD_PARTITION, 0, _PARTITION.size, ctypes.addressof(told))
            fcntl.ioctl(self._handle, _PARTITIONS, request)

    def flush(self) -> None:
        """What was written to the device is in the file, and nothing of it is kept in memory."""
        os.fsync(self._handle)
        fcntl.ioctl(self._handle, _FLUSH)

    def detach(self) -> None:
        """The kernel does it as soon as nobody has it open or mounted."""
        _make_writable(self._handle)
        os.close(self._handle)


def _attach(file: Path, *, read_only: bool) -> int:
    """A handle that holds the device."""
    flags = _AUTOCLEAR | _PARTSCAN | (_READ_ONLY if read_only else 0)
    with (
        file.open("rb" if read_only else "r+b") as backing,
        Path("/dev/loop-control").open("r+b", buffering=0) as control,
    ):
        config = _CONFIG.pack(
            *(backing.fileno(), 0, 0, 0, 0, 0, 0, 0, 0, 0, flags),
            *(file.name.encode()[:63], b"", b"", 0, 0, *(0,) * 8),
        )
        for _ in range(_TRIES):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}")
            handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(handle, _CONFIGURE, config)
            except OSError as error:
                os.close(handle)
                if error.errno != errno.EBUSY:
                    raise
            else:
                if not read_only:
                    _make_writable(handle)
                return handle
    raise OSError(errno.EBUSY, f"no free loop device in {_TRIES} tries")


def _make_writable(device: int) -> None:
    """The kernel keeps it for reading only for whoever is the next to get its number."""
    fcntl.ioctl(device, _SET_READ_ONLY, struct.pack("i", 0))
