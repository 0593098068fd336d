"""`dom0 os run`: the base OS in a virtual machine, from the same boot disk that a real one would get."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import sys
from pathlib import Path

import click

from dom0 import terminal
from dom0.cli.os.contract_options import MediumOptions, contract_options
from dom0.errors import UsageError
from dom0.run import become
from dom0.wording import excerpt

_DATA_SIZE = 16 << 30  # bytes; the file takes what is written to it
_CONSOLE = ("-serial", "mon:stdio")  # Ctrl-A x ends QEMU, Ctrl-A h says what else there is


@click.command("run")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default="dom0-vm",
    show_default=True,
    metavar="DIR",
    help="What the machine consists of: boot.img, data.img. Made if it is not there.",
)
@click.option("--rewrite", is_flag=True, help="Write the boot disk anew; the data disk stays.")
@contract_options
@click.option(
    "--iso",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Start this, of `dom0 os iso`, instead of a boot disk.",
)
@click.option(
    "--firmware",
    type=click.Choice(["uefi", "bios"]),
    default="uefi",
    show_default=True,
    metavar="NAME",
    help="uefi or bios.",
)
@click.option(
    "-m", "--memory", type=click.IntRange(min=256), default=1024, show_default=True, metavar="MIB", help="In MiB."
)
@click.option("--cpus", type=click.IntRange(min=1), default=2, show_default=True, metavar="N", help="Processors.")
@click.option(
    "-p",
    "--publish",
    multiple=True,
    default=("2222:2222",),
    show_default="2222:2222",
    metavar="PORT:PORT",
    help="Port of 127.0.0.1 here, and port of the machine. Can be given more than once.",
)
def run(
    directory: Path,
    rewrite: bool,
    given: MediumOptions,
    iso: Path | None,
    firmware: str,
    memory: int,
    cpus: int,
    publish: tuple[str, ...],
) -> None:
    """Run the base OS in a virtual machine of QEMU, with its console on this terminal. Ctrl-A x switches it off.

    It starts from a boot disk as `dom0 os write` makes it, and may format its data disk: both are files in DIR, and
    what the machine keeps is there when it is started again. KVM is used where it works.

    $ dom0 os run --ssh-key ~/.ssh/id_ed25519.pub --image dom0.tar -p 2223:2222
    $ ssh -p 2223 dom0@127.0.0.1
    $ dom0 os run -m 512 -p 8080:80 -p 2222:2222
    $ dom0 os run --dir another --iso dom0.iso
    """
    from dom0.osimage import qemu

    if iso and (rewrite or given.is_for_the_machine()):
        raise UsageError(f"--iso {iso}: has its own settings", hint="they are given to `dom0 os iso`")
    forwards = dict(_forward(one) for one in publish)
    accelerator = asyncio.run(qemu.accelerator())
    directory.mkdir(parents=True, exist_ok=True)
    drives = [] if iso else [_boot_disk(directory, given, rewrite=rewrite)]
    drives.append(directory / "data.img")
    if not drives[-1].exists():
        with drives[-1].open("xb") as data:
            data.truncate(_DATA_SIZE)
    boot: qemu.Bios | qemu.Uefi = qemu.Bios()
    if firmware == "uefi":
        if not qemu.UEFI_CODE.exists():
            raise UsageError(f"{qemu.UEFI_CODE}: not installed", hint="apt-get install ovmf, or --firmware bios")
        variables = directory / "uefi-variables"
        if not variables.exists():
            shutil.copyfile(qemu.UEFI_VARIABLES, variables)
        boot = qemu.Uefi(variables)
    machine = qemu.MachineSpec(
        boot=boot,
        memory=memory,
        processors=cpus,
        drives=[qemu.Drive(file) for file in drives],
        cd=iso,
        forwards=forwards,
    )
    if accelerator == "tcg":
        terminal.say_to_stderr("KVM does not work here: the machine is emulated, which is ten times slower")
    sys.stdout.flush()
    become(qemu.command(machine, accelerator, _CONSOLE))


def _boot_disk(directory: Path, given: MediumOptions, *, rewrite: bool) -> Path:
    """Written once: updates of the base OS, and which slot is good, are on it."""
    from dom0.osimage import disk_image, media

    disk, settings = directory / "boot.img", directory / "boot.settings"
    contract = given.contract(format="blank")
    if disk.exists() and not rewrite:
        if given.is_for_the_machine() and (not settings.exists() or settings.read_text() != contract.digest()):
            raise UsageError(
                f"{disk}: is there already, with other settings",
                hint="start it as it is: leave --config, --ssh-key and --image out; --rewrite writes it anew",
            )
        return disk
    os = given.os()
    if os.architecture != "amd64":
        raise UsageError(
            f"--os {given.os_file}: is for {os.architecture}, the machine is an amd64 one",
            hint="dom0 os build --arch amd64 --out DIR, and --os DIR",
        )
    contract = asyncio.run(given.prepared(contract, terminal.say_to_stderr))
    files = asyncio.run(media.disk_files(os, contract))
    settings.unlink(missing_ok=True)
    asyncio.run(media.write_disk(os, files, disk, disk_image.least_size(files)))
    settings.write_text(contract.digest())
    return disk


def _forward(publish: str) -> tuple[int, int]:
    """Raises UsageError for what is no pair of ports, and for a port that somebody uses."""
    found = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,5})", publish)
    if not found or not all(0 < int(port) < 65536 for port in found.groups()):
        raise UsageError(f"--publish {excerpt(publish)}: is no PORT:PORT", hint="as 2222:22")
    outside, inside = int(found[1]), int(found[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", outside))
        except OSError as error:
            hint = f"take another port: -p {outside + 1}:{inside}"
            raise UsageError(f"--publish {publish}: {error.strerror}", hint=hint) from error
    return outside, inside
