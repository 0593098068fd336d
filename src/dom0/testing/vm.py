"""Virtual machines for tests of the base OS: QEMU with a console to read and type on, and ssh into the machine's dom0.

Theory of operation: QEMU is a child of ours that the kernel kills when we end, by whatever death.
All its files lie in a directory of this run, whose name is on its command line, so that the next run finds what is
left (owned.py). The console is a socket that QEMU also writes to a file; a power cut is SIGKILL to QEMU. What a
machine has been told to keep is kept in disk files that outlive it and that the next machine is given.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from dom0.osimage import build, qemu, recipe
from dom0.run import CommandFailed, Output
from dom0.testing import owned
from dom0.testing.chain import CACHE

PATIENCE = 600.0  # seconds: a deadline, without KVM and beside other machines; not an expectation
PAUSE = 0.1  # seconds between two looks
CONSOLE = "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check"
"""Beginning of a kernel line: words on the serial port; after a panic the machine ends; timers may come late."""
SSH_PORT = 2222  # of examples/mybox
VARIABLE = "DOM0_TEST_VM"
_PROGRAMS = (
    *(qemu.PROGRAM, qemu.PROGRAM_ARM64, "qemu-img"),
    *("ssh", "ssh-keygen", "mcopy", "mkfs.vfat", "ukify", "mksquashfs"),
)
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
_CONTROL = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\r")
_numbers = itertools.count()


def missing() -> str:
    """Why virtual machines are not tested here; empty if they are."""
    if os.environ.get(VARIABLE) != "1":
        return f"virtual machines take minutes: `make test-vm` runs them ({VARIABLE}=1)"
    programs = [program for program in _PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(programs)}" if programs else ""


def base_os(flavour: str = "vm", *, arch: str = "") -> Path:
    """The directory with the base OS as the sources say, built once for all; the cache is the checkout's own."""
    argv = [sys.executable, "-m", "dom0.testing.vm", arch, flavour]
    environment = os.environ | {"XDG_CACHE_HOME": str(CACHE)}
    built = subprocess.run(argv, check=True, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return Path(os.fsdecode(built.stdout).strip())


def direct(command_line: str = "") -> qemu.Direct:
    """Kernel and initramfs of that base OS, and what is said to it besides where its console is."""
    files = base_os()
    return qemu.Direct(files / build.LINUX, files / build.INITRD, f"{CONSOLE} {command_line}".strip())


class Key:
    """An ssh key of this run."""

    def __init__(self, directory: Path, name: str = "id_ed25519") -> None:
        self.file = directory / name
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(self.file)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

    @property
    def public(self) -> str:
        return self.file.with_suffix(".pub").read_text().strip()

    @property
    def setting(self) -> str:
        """As the boot contract takes it on the kernel line."""
        return f"dom0.ssh_key={self.public.replace(' ', ',')}"


class Cable(msgspec.Struct, frozen=True):
    """Leads a machine to the port `tap` of a switch, in place of QEMU's own network; `network`: the path of its network
    namespace. `number` tells the machine's network card and board from others.
    """

    network: str
    tap: str
    number: int

    @property
    def mac(self) -> str:
        return f"52:54:00:00:00:{self.number:02x}"

    def options(self, *, has_rom: bool) -> list[str]:
        """QEMU's. The machine starts from the network before anything else; `has_rom`: by the iPXE of the card, else by
        what its firmware has for that.
        """
        card = f"virtio-net-pci,netdev=net0,mac={self.mac},bootindex=0{'' if has_rom else ',romfile='}"
        tap = ["-netdev", f"tap,id=net0,ifname={self.tap},script=no,downscript=no", "-device", card]
        return [*tap, "-uuid", f"11111111-1111-4111-8111-{self.number:012x}", "-machine", "graphics=off"]


class VirtualMachine:
    """A machine that has been switched on. Use it as a context manager, or call `stop`; both pull the plug."""

    def __init__(
        self,
        boot: qemu.Direct | qemu.Bios | qemu.Uefi,
        *,
        drives: Sequence[qemu.Drive] = (),
        cd: Path | None = None,
        architecture: Literal["amd64", "arm64"] = "amd64",
        controllers: Sequence[str] = (),
        network_card: str = "virtio-net-pci",
        network_boot: qemu.NetworkBoot | None = None,
        cable: Cable | None = None,
        restarts: bool = False,  # else what would restart it ends it
        memory: int = 1024,
        processors: int = 1,  # without KVM, two that wait for each other on a busy machine may stand still for minutes
        key: Key | None = None,
    ) -> None:
        self.directory = owned.run_root() / f"vm{next(_numbers)}"
        self.directory.mkdir()
        self._console_file = self.directory / "console"
        self._key = key
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self._port = int(unused.getsockname()[1])
        machine = qemu.MachineSpec(
            boot=boot,
            memory=memory,
            processors=processors,
            drives=drives,
            cd=cd,
            architecture=architecture,
            controllers=controllers,
            network_card="" if cable else network_card,
            network_boot=network_boot,
            forwards={self._port: SSH_PORT},
        )
        terminal = f"socket,id=console,path={self.directory}/socket,server=on,wait=off,logfile={self._console_file}"
        console = ["-chardev", terminal, "-serial", "chardev:console", *([] if restarts else ["-no-reboot"])]
        console += cable.options(has_rom=isinstance(boot, qemu.Bios)) if cable else []
        inside = ["nsenter", f"--net={cable.network}"] if cable else []
        self._log = (self.directory / "qemu").open("wb")
        self.process = subprocess.Popen(
            [*inside, *_DIE_WITH_US, *qemu.command(machine, "tcg", console), "-name", str(self.directory)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def console(self) -> str:
        """All that it has said so far."""
        return self._console_file.read_text(errors="replace") if self._console_file.exists() else ""

    def screen(self) -> str:
        """The same without what moves a terminal's cursor."""
        return _CONTROL.sub("", self.console())

    def wait_for(self, pattern: str, *, patience: float = PATIENCE) -> re.Match[str]:
        """Wait until the console says something that matches. Raises AssertionError with what it did say."""
        deadline = time.monotonic() + patience
        while (found := re.search(pattern, self.console())) is None:
            assert self.process.poll() is None, f"the machine ended before it said {pattern!r}:\n{self._report()}"
            assert time.monotonic() < deadline, f"the machine has not said {pattern!r}:\n{self._report()}"
            time.sleep(PAUSE)
        return found

    def type(self, line: str) -> None:
        """Type a line on the console; the first one wakes the shell there."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{self.directory}/socket")
            connection.sendall(line.encode() + b"\n")
            deadline = time.monotonic() + PATIENCE
            while _not_taken(connection):  # which QEMU drops when the connection ends
                assert time.monotonic() < deadline, f"the machine does not read its console:\n{self._report()}"
                time.sleep(PAUSE)

    def ssh(
        self,
        *command: str,
        user: str = "dom0",
        patience: float = PATIENCE,
        check: bool = True,
        key: Key | None = None,
    ) -> Output:
        """Run a shell command in the dom0 of examples/mybox; tries until sshd lets us in. Raises CommandFailed.

        As `root`: in the rescue container. `key`: another one than the machine was given.
        """
        key = key or self._key
        assert key is not None, "this machine was given no key"
        argv = ["ssh", "-i", str(key.file), "-p", str(self._port), *_SSH_OPTIONS, f"{user}@127.0.0.1", *command]
        deadline = time.monotonic() + patience
        while True:
            done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode != 255:  # ssh(1): its own failure
                break
            assert self.process.poll() is None, f"the machine ended before sshd let us in:\n{self._report()}"
            assert time.monotonic() < deadline, f"sshd did not let us in: {done.stderr}\n{self._report()}"
            time.sleep(1)
        if check and done.returncode != 0:
            raise CommandFailed(argv, done.returncode, done.stderr)
        return Output(done.returncode, done.stdout, done.stderr)

    def status(self, *, patience: float = PATIENCE) -> Any:
        """As `dom0 status --json` prints it. Waits until dom0 runs: sshd may be there before it."""
        deadline = time.monotonic() + patience
        while (said := self.ssh("dom0 status --json", patience=patience, check=False)).code != 0:
            assert time.monotonic() < deadline, f"dom0 does not run: {said.stderr}\n{self._report()}"
            time.sleep(1)
        return json.loads(said.stdout)

    def wait_for_services(self, *, patience: float = PATIENCE) -> None:
        """Wait until all that examples/mybox names runs."""
        deadline = time.monotonic() + patience
        while not (status := self.status(patience=patience))["converged"]:
            assert time.monotonic() < deadline, f"dom0 still has to do {status['steps']}\n{self._report()}"
            time.sleep(1)

    def wait(self, *, patience: float = PATIENCE) -> None:
        """Wait until it has switched itself off, or restarts."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the machine did not end:\n{self._report()}") from None

    def cut_power(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.cut_power()
        self._log.close()
        owned.remove_directory(self.directory)

    def _report(self) -> str:
        return f"{self.console()[-4000:]}\n{(self.directory / 'qemu').read_text(errors='replace')}"


_SSH_OPTIONS = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-F", "none"),
)


def _not_taken(connection: socket.socket) -> bool:
    """Whether something lies in a Unix socket that its other end has not read (SIOCOUTQ, as tcp(7) has it)."""
    return any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for disks that several machines use one after the other."""
    directory = owned.run_root() / f"disks{next(_numbers)}"
    directory.mkdir()
    try:
        yield directory
    finally:
        owned.remove_directory(directory)


def overlay(file: Path, of: Path) -> qemu.Drive:
    """A new disk that begins with the content of `of`, which nobody writes to."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(of.resolve()), str(file)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return qemu.Drive(file, format="qcow2")


def blank(file: Path, size: int) -> qemu.Drive:
    """A new disk of `size` bytes that holds nothing."""
    with file.open("xb") as opened:
        opened.truncate(size)
    return qemu.Drive(file)


if __name__ == "__main__":
    wanted = recipe.load(*sys.argv[1:])
    sys.stdout.write(f"{asyncio.run(build.build(wanted, lambda line: None)).directory}\n")
