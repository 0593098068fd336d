"""A virtual machine for the base OS, as QEMU's command line. Pure but for `accelerator`, which asks QEMU.

Unless other devices are named, only those that the flavour `vm` has drivers for are used: virtio, and AHCI for a CD.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from dom0.errors import Dom0Error
from dom0.run import capture

PROGRAM = "qemu-system-x86_64"
PROGRAM_ARM64 = "qemu-system-aarch64"
_EMULATED = "tcg,thread=multi"
# Debian's package ovmf: read-only code, and the template of a machine's variables.
UEFI_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
UEFI_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_PROBE_DEADLINE = 20.0  # seconds


class Drive(msgspec.Struct, frozen=True):
    """A file with the content of a disk. `temporary`: what the machine writes is lost when it ends. `device` is QEMU's
    name of the device (`usb-storage`), a virtio disk if empty.
    """

    file: Path
    format: str = "raw"
    read_only: bool = False
    temporary: bool = False
    device: str = ""


class Direct(msgspec.Struct, frozen=True):
    """Kernel and initramfs loaded by QEMU itself, without firmware that looks for a boot medium."""

    linux: Path
    initrd: Path
    command_line: str


class Bios(msgspec.Struct, frozen=True):
    """SeaBIOS: boots a disk, a CD, or from the network by the iPXE of the network card."""


class Uefi(msgspec.Struct, frozen=True):
    """OVMF. `variables` is this machine's copy of UEFI_VARIABLES, which it writes to."""

    variables: Path


class NetworkBoot(msgspec.Struct, frozen=True):
    """Network boot by QEMU's own network: the files below `directory` by TFTP, of which `file` is booted."""

    directory: Path
    file: str


class MachineSpec(msgspec.Struct, frozen=True):
    """`forwards`: port on this machine's 127.0.0.1 -> port of the virtual machine. `memory` is in MiB. `controllers`
    are the devices that drives are attached to (`qemu-xhci`). Without a `network_card` there is no network.
    """

    boot: Direct | Bios | Uefi
    memory: int = 1024
    processors: int = 2
    drives: Sequence[Drive] = ()
    cd: Path | None = None
    architecture: Literal["amd64", "arm64"] = "amd64"
    controllers: Sequence[str] = ()
    network_card: str = "virtio-net-pci"
    network_boot: NetworkBoot | None = None
    forwards: dict[int, int] = {}


def command(machine: MachineSpec, accelerator: Literal["kvm", "tcg"], console: Sequence[str]) -> list[str]:
    """`console`: QEMU's options for the serial port, and whether a reboot ends QEMU (`-no-reboot`)."""
    if machine.architecture == "arm64":  # pointer authentication by QEMU's own fast algorithm
        processor = [PROGRAM_ARM64, "-machine", "virt", "-accel", _EMULATED, "-cpu", "max,pauth-impdef=on"]
    else:
        how, model = ("kvm", "host") if accelerator == "kvm" else (_EMULATED, "max")
        processor = [PROGRAM, "-machine", "q35", "-accel", how, "-cpu", model]
    return [
        *processor,
        *("-smp", str(machine.processors), "-m", str(machine.memory)),
        *("-nodefaults", "-display", "none", "-monitor", "none", *console),
        *_boot(machine.boot),
        *(option for controller in machine.controllers for option in ("-device", controller)),
        *(option for number, drive in enumerate(machine.drives) for option in _drive(number, drive)),
        *(("-drive", f"media=cdrom,readonly=on,format=raw,file={_escaped(machine.cd)}") if machine.cd else ()),
        *(_network(machine) if machine.network_card else ()),
        *("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci"),
    ]


async def accelerator() -> Literal["kvm", "tcg"]:
    """What works here: /dev/kvm may open and still not work. Raises Dom0Error where QEMU is not installed.

    A KVM without the processor's own virtualisation (PVM, nested) makes a machine too, but runs only kernels that were
    built for it: others end with "KVM internal error" at an instruction that is not emulated.
    """
    if shutil.which(PROGRAM) is None:
        raise Dom0Error(f"{PROGRAM}: not installed", hint="apt-get install qemu-system-x86")
    if not _has_virtualisation():
        return "tcg"
    # Creates the virtual processor, which is where it fails, and does not start it.
    argv = [PROGRAM, "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-nodefaults", "-display", "none"]
    probed = await capture([*argv, "-S", "-monitor", "stdio"], stdin=b"quit\n", timeout=_PROBE_DEADLINE, check=False)
    return "kvm" if probed.code == 0 else "tcg"


def _has_virtualisation() -> bool:
    """Of the processor's own, by Intel's or AMD's name."""
    return not {"vmx", "svm"}.isdisjoint(Path("/proc/cpuinfo").read_text().split())


def _boot(boot: Direct | Bios | Uefi) -> list[str]:
    match boot:
        case Direct():
            return ["-kernel", str(boot.linux), "-initrd", str(boot.initrd), "-append", boot.command_line]
        case Uefi():
            code = f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(UEFI_CODE)}"
            return ["-drive", code, "-drive", f"if=pflash,unit=1,format=raw,file={_escaped(boot.variables)}"]
        case Bios():
            return []


def _drive(number: int, drive: Drive) -> list[str]:
    options = [f"format={drive.format},file={_escaped(drive.file)}"]
    options += ["readonly=on"] if drive.read_only else ["discard=unmap"]
    options += ["snapshot=on"] if drive.temporary else []
    if not drive.device:
        return ["-drive", ",".join(["if=virtio", *options])]
    name = f"drive{number}"
    return ["-drive", ",".join([f"if=none,id={name}", *options]), "-device", f"{drive.device},drive={name}"]


def _network(machine: MachineSpec) -> list[str]:
    options = ["user,id=net0"]
    options += [f"hostfwd=tcp:127.0.0.1:{outside}-:{inside}" for outside, inside in machine.forwards.items()]
    if found := machine.network_boot:
        options += [f"tftp={_escaped(found.directory)}", f"bootfile={found.file}"]
    return ["-netdev", ",".join(options), "-device", f"{machine.network_card},netdev=net0"]


def _escaped(path: Path) -> str:
    """In QEMU's options a comma is written twice."""
    return str(path).replace(",", ",,")
