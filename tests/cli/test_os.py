"""`dom0 os`: what it asks, refuses and says. The media themselves are in tests/osimage."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dom0.host.slots import OsStatus
from dom0.osimage.boot_contract import BootContract
from dom0.osimage.qemu import PROGRAM
from dom0.run import Output
from dom0.testing import loop
from dom0.testing.fake_agent import serving
from dom0.testing.fake_uki import make_uki

RunCommand = Callable[..., Output]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOwNtx0/2wPZbCCPnA1BWPrAUDmJQAsXkF1Rf1kPjQfE me@here\n"
pytestmark = pytest.mark.skipif(not shutil.which("grub-mkimage"), reason="needs grub-mkimage")


@pytest.fixture
def work(dom0: RunCommand, tmp_path: Path) -> Path:
    """The directory that commands run in, with a base OS where they look for one."""
    (tmp_path / "work" / "dom0-os").mkdir()
    (tmp_path / "work" / "dom0-os" / "dom0-os.efi").write_bytes(make_uki(version="1.0"))
    (tmp_path / "work" / "key.pub").write_text(KEY)
    return tmp_path / "work"


def test_write_makes_a_disk_and_says_what_is_in_it(dom0: RunCommand, work: Path) -> None:
    written = dom0("os", "write", "dom0.img", "--size", "400M", "--ssh-key", "key.pub", "--config", "hostname=attic")
    assert (written.code, written.stderr) == (0, "")
    assert written.stdout == "dom0.img: boot disk of 419MB, base OS 1.0 for hardware in slot a\n"
    assert (work / "dom0.img").stat().st_size == 400 << 20


def test_write_does_not_replace_a_file_unasked(dom0: RunCommand, work: Path) -> None:
    (work / "dom0.img").write_text("precious")
    refused = dom0("os", "write", "dom0.img")
    assert (refused.code, refused.stderr) == (2, "dom0: dom0.img: exists\n      --yes confirms\n")
    assert (work / "dom0.img").read_text() == "precious"
    assert dom0("os", "write", "dom0.img", "--yes").code == 0
    assert (work / "dom0.img").stat().st_size > 1 << 20


@pytest.fixture
def image(work: Path) -> str:
    """What passes for an archive of images, and cannot be prepared."""
    (work / "manifest.json").write_text("[]")
    with tarfile.open(work / "image.tar", "w") as archive:
        archive.add(work / "manifest.json", "manifest.json")
    return "image.tar"


@pytest.mark.parametrize("command", [("write", "dom0.img"), ("netboot", "tree")])
def test_images_that_cannot_be_prepared_are_written_as_they_are(
    command: tuple[str, ...], dom0: RunCommand, image: str
) -> None:
    written = dom0("os", *command, "--image", image)
    assert written.code == 0
    assert "the images are not prepared, and loaded at the first boot" in written.stdout
    assert "base OS 1.0" in written.stdout.splitlines()[-1 if command[0] == "write" else -2]


def test_what_is_too_large_for_a_medium_when_it_is_prepared_is_said(
    dom0: RunCommand, image: str, work: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The program that would prepare the images is played by a script."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").write_text("#!/bin/bash\ntruncate --size 4G ${@: -2:1}\n")
    (tmp_path / "bin" / "setpriv").chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    written = dom0("os", "write", "dom0.img", "--image", image)
    assert written.code == 0
    assert "takes longer: what was prepared of them: is larger than 4 GiB" in written.stdout
    listed = subprocess.run(["mdir", "-b", "-i", f"{work / 'dom0.img'}@@2M", "::dom0"], check=True, capture_output=True)
    assert b"image.tar" in listed.stdout
    assert b"image.store" not in listed.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        *(["write", "there.img"], ["write", "dom0.img", "--size", "10M"], ["write", "dom0.img", "--size", "big"]),
        *(["write", "nowhere/dom0.img"], ["netboot", "tree", "--url", "somewhere"]),
    ],
)
def test_it_asks_and_refuses_before_it_prepares_the_images(
    arguments: list[str], dom0: RunCommand, image: str, work: Path
) -> None:
    (work / "there.img").touch()
    refused = dom0("os", *arguments, "--image", image)
    assert (refused.code, refused.stdout) == (2, "")


def test_write_shows_what_a_device_is_and_writes_it_with_consent(dom0: RunCommand, work: Path, tmp_path: Path) -> None:
    if reason := loop.missing():
        pytest.skip(reason)
    stick = tmp_path / "stick"
    with stick.open("xb") as opened:
        opened.truncate(600 << 20)
    with loop.Loop(stick) as device:
        refused = dom0("os", "write", str(device.path))
        assert refused.code == 2
        assert "nothing that is known" in refused.stderr
        assert "not confirmed, nothing was written" in refused.stderr
        assert not stick.stat().st_blocks
        written = dom0("os", "write", str(device.path), "--yes")
        assert written.code == 0, written.stderr
        assert written.stdout.endswith("base OS 1.0 for hardware in slot a\n")
    with stick.open("rb") as opened:
        opened.seek(-512, os.SEEK_END)
        assert opened.read(8) == b"EFI PART"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["dom0.img", "--size", "big"], "--size big: is no size"),
        (["dom0.img", "--size", "10M"], "--size 10M: is too small"),
        (["dom0.img", "--config", "hostnam=x"], "did you mean hostname?"),
        (["dom0.img", "--ssh-key", "dom0-os/dom0-os.efi"], "not a public key"),
        (["dom0.img", "--image", "key.pub"], "is not a tar file"),
        (["dom0.img", "--os", "key.pub"], "key.pub: is not an EFI program"),
        (["nowhere/dom0.img"], "nowhere: no such directory"),
        (["dom0.img", "--size", "999999999999G"], "more than a boot disk can have"),
        (["dom0.img", "--os", "nowhere"], "dom0 os build --out nowhere"),
        (["/dev/null"], "/dev/null: is no file"),
        (["/dev/no-such-stick"], "/dev/no-such-stick: no such device"),
    ],
)
def test_write_refuses_before_it_writes(arguments: list[str], what: str, dom0: RunCommand, work: Path) -> None:
    refused = dom0("os", "write", *arguments)
    assert refused.code in (1, 2)
    assert what in refused.stderr
    assert not (work / "dom0.img").exists()


def damage(work: Path) -> None:
    """One bit of the base OS's root is another one, and no digest lies beside the file."""
    file = work / "dom0-os" / "dom0-os.efi"
    content = bytearray(file.read_bytes())
    content[content.index(b"initrd of")] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("command", [["write", "made"], ["iso", "made"], ["netboot", "made"], ["run", "--dir", "made"]])
def test_no_medium_is_made_of_a_damaged_base_os(command: list[str], dom0: RunCommand, work: Path) -> None:
    damage(work)
    refused = dom0("os", *command)
    assert refused.code == 1
    assert "dom0-os.efi: is damaged: its section .initrd is not what was built" in refused.stderr
    assert not (work / "made").is_file()
    assert not list((work / "made").glob("*.i*"))


def test_without_a_base_os_the_error_says_how_to_make_one(dom0: RunCommand, work: Path) -> None:
    (work / "empty").mkdir()
    refused = dom0("os", "write", "dom0.img", "--os", "empty")
    assert refused.code == 2
    assert "dom0 os build --out empty" in refused.stderr


def test_iso_makes_one_and_does_not_replace_another_unasked(dom0: RunCommand, work: Path) -> None:
    made = dom0("os", "iso", "dom0.iso", "--config", "hostname=attic")
    assert (made.code, made.stderr) == (0, "")
    assert made.stdout.endswith(", base OS 1.0 for hardware\n")
    refused = dom0("os", "iso", "dom0.iso")
    assert (refused.code, refused.stderr) == (2, "dom0: dom0.iso: exists\n      --yes confirms\n")


def test_iso_takes_no_device(dom0: RunCommand, work: Path, tmp_path: Path) -> None:
    device = tmp_path / "stick"
    os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(7, 250))
    refused = dom0("os", "iso", str(device), "--yes")
    assert (refused.code, "is a device" in refused.stderr) == (2, True)
    assert device.is_block_device()


def test_run_refuses_what_it_would_not_follow(dom0: RunCommand, work: Path) -> None:
    (work / "dom0.iso").touch()
    refused = dom0("os", "run", "--iso", "dom0.iso", "--ssh-key", "key.pub", "-p", "0:22")
    assert (refused.code, "they are given to `dom0 os iso`" in refused.stderr) == (2, True)
    (work / "dom0-os" / "dom0-os.efi").write_bytes(make_uki(machine=0xAA64))
    refused = dom0("os", "run")
    assert (refused.code, "is for arm64" in refused.stderr) == (2, True)
    assert not (work / "dom0-vm" / "boot.img").exists()


def test_netboot_fills_a_directory(dom0: RunCommand, work: Path) -> None:
    made = dom0("os", "netboot", "tree", "--url", "http://192.168.0.1/dom0", "--ssh-key", "key.pub")
    assert (made.code, made.stderr) == (0, "")
    assert made.stdout.startswith("tree: boot.ipxe starts base OS 1.0 for hardware\niPXE for firmware: ")
    assert (work / "tree" / "boot.ipxe").exists()
    refused = dom0("os", "netboot", "other", "--url", "somewhere")
    assert refused.code == 2
    assert not (work / "other").exists()


# updates, on a machine whose programs are played by a script

STATUS = """\
version=1.0
machine=x86_64
running=a
good=a
next=
left=
failed=
a=1.0 6.12.0
b=0.9 6.11.0
room=200000
memory=500000
"""
DOCKER = """\
#!/bin/sh
# Plays `docker exec … nsenter … -- /usr/lib/dom0/slots COMMAND`, and the root container.
case $* in *" dom0 dom0 os restart") echo there >"$HOME/restarted"; exit ;; esac
while [ "$1" != -- ]; do shift; done
case $2:$3 in
*/slots:status) cat "$HOME/status" ;;
*/slots:update) cat >"$HOME/update.tar" ;;
*/slots:rollback) echo "the next start is of slot b" ;;
*/slots:restart) echo restart >"$HOME/restarted" ;;
*/slots:signers) cat "$HOME/signers" 2>/dev/null || : ;;
esac
"""


@pytest.fixture
def machine(work: Path, tmp_path: Path, environment: dict[str, str]) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    (tmp_path / "status").write_text(STATUS)
    return tmp_path


def test_status_shows_both_slots(dom0: RunCommand, machine: Path) -> None:
    assert dom0("os", "status").stdout == (
        "base OS 1.0\nSLOT  BASE OS  KERNEL  STATE\na     1.0      6.12.0  runs, good\nb     0.9      6.11.0\n"
    )
    shown = msgspec.json.decode(dom0("os", "status", "--json").stdout, type=OsStatus)
    assert (shown.running, shown.slots[1].version) == ("a", "0.9")


def test_a_machine_without_slots_says_how_it_is_updated(dom0: RunCommand, machine: Path) -> None:
    (machine / "status").write_text("version=1.0\nmachine=x86_64\n")
    assert "no slots: it is updated by restarting" in dom0("os", "status").stdout
    refused = dom0("os", "update", "dom0-os/dom0-os.efi", "--yes")
    assert refused.code == 1
    assert "replace the files there and restart" in refused.stderr
    assert not (machine / "update.tar").exists()


def test_an_update_reaches_the_machine_in_parts(dom0: RunCommand, machine: Path) -> None:
    updated = dom0("os", "update", "dom0-os/dom0-os.efi", "--yes")
    assert (updated.code, updated.stderr) == (0, "")
    lines = updated.stdout.splitlines()
    assert lines[0].endswith("  slot b: base OS 1.0 for hardware, kernel 6.12.0-test")
    assert lines[1].endswith("  writing slot b")
    assert lines[2].startswith("the next start tries it")
    with tarfile.open(machine / "update.tar") as tar:
        assert tar.getnames() == ["linux", "initrd", "line", "version", "sums.new"]
    assert not (machine / "restarted").exists()


def test_programs_get_the_state_after_an_update_and_what_a_medium_is(dom0: RunCommand, machine: Path) -> None:
    for command in (("update", "dom0-os/dom0-os.efi"), ("rollback",)):
        told = dom0("os", *command, "--yes", "--json")
        assert msgspec.json.decode(told.stdout, type=OsStatus).running == "a"
    assert (machine / "update.tar").exists()
    disk = json.loads(dom0("os", "write", "dom0.img", "--size", "400M", "--json").stdout)
    assert disk == {"target": "dom0.img", "size": 400 << 20, "version": "1.0"}
    iso = json.loads(dom0("os", "iso", "dom0.iso", "--json").stdout)
    assert (iso["size"], iso["version"]) == ((machine / "work" / "dom0.iso").stat().st_size, "1.0")
    tree = json.loads(dom0("os", "netboot", "tree", "--json").stdout)
    assert (tree["directory"], tree["version"]) == ("tree", "1.0")


def test_an_update_may_restart_the_machine(dom0: RunCommand, machine: Path) -> None:
    assert dom0("os", "update", "dom0-os/dom0-os.efi", "--reboot").code == 0
    assert (machine / "restarted").exists()


def test_a_machine_elsewhere_restarts_by_what_its_own_root_container_knows(
    dom0: RunCommand, machine: Path, tmp_path: Path
) -> None:
    """A node of a farm, whose server is asked first, with what is on the node's disk."""
    root = {"Id": "1", "Name": "/dom0", "Config": {}, "State": {"Running": True}}
    with serving(tmp_path / "no-engine.sock") as engine:
        engine.answers["GET /containers/dom0/json"] = root
        restarted = dom0("os", "rollback", "--reboot", env={"DOM0_RUN": ""})
    assert (restarted.code, restarted.stderr) == (0, "")
    assert (machine / "restarted").read_text() == "there\n"


def test_an_update_that_nobody_confirms_changes_nothing(dom0: RunCommand, machine: Path) -> None:
    refused = dom0("os", "update", "dom0-os/dom0-os.efi")
    assert (refused.code, refused.stderr.splitlines()[0]) == (2, "dom0: os update: not confirmed, nothing was changed")
    assert not (machine / "update.tar").exists()


@pytest.mark.parametrize(
    ("status", "arguments", "what"),
    [
        (STATUS, ["--sha256", "0" * 64], "has the digest"),
        (STATUS.replace("room=200000", "room=10"), [], "has room for 0 MiB"),
        (STATUS.replace("good=a", "good=b"), [], "slot a has not proved itself yet"),
    ],
)
def test_what_is_wrong_is_said_before_the_machine_is_touched(
    status: str, arguments: list[str], what: str, dom0: RunCommand, machine: Path
) -> None:
    (machine / "status").write_text(status)
    refused = dom0("os", "update", "dom0-os/dom0-os.efi", "--yes", *arguments)
    assert refused.code == 1
    assert what in refused.stderr
    assert not (machine / "update.tar").exists()


def test_a_damaged_update_is_refused_before_the_machine_is_touched(dom0: RunCommand, machine: Path) -> None:
    damage(machine / "work")
    refused = dom0("os", "update", "dom0-os/dom0-os.efi", "--reboot")
    assert (refused.code, "is damaged: its section .initrd" in refused.stderr) == (1, True)
    assert not (machine / "update.tar").exists()
    assert not (machine / "restarted").exists()


def test_where_signers_are_named_an_update_without_signature_is_refused(dom0: RunCommand, machine: Path) -> None:
    (machine / "signers").write_text(f"me@here {KEY}")
    refused = dom0("os", "update", "dom0-os/dom0-os.efi", "--yes")
    assert refused.code == 1
    assert "is not signed" in refused.stderr
    assert not (machine / "update.tar").exists()


def test_rollback_says_what_the_next_start_is(dom0: RunCommand, machine: Path) -> None:
    assert dom0("os", "rollback", "--yes").stdout == "the next start is of slot b\n"
    assert dom0("os", "rollback").code == 2


# run


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-p", "22"], "--publish 22: is no PORT:PORT"),
        (["-p", "99999:22"], "--publish 99999:22: is no PORT:PORT"),
        (["--config", "hostname=Ä"], "is not a value for hostname"),
        (["-m", "1"], "-m"),
    ],
)
def test_run_refuses_before_it_makes_a_machine(arguments: list[str], what: str, dom0: RunCommand, work: Path) -> None:
    refused = dom0("os", "run", *arguments)
    assert refused.code == 2
    assert what in refused.stderr
    assert not list((work / "dom0-vm").glob("*.img"))


def test_run_does_not_replace_the_boot_disk_of_a_machine_unasked(dom0: RunCommand, work: Path) -> None:
    (work / "dom0-vm").mkdir()
    (work / "dom0-vm" / "boot.img").write_text("mine")
    (work / "dom0-vm" / "boot.settings").write_text(BootContract(b"hostname=box\n").digest())
    refused = dom0("os", "run", "--ssh-key", "key.pub")
    assert refused.code == 2
    assert "start it as it is: leave --config, --ssh-key and --image out; --rewrite writes it anew" in refused.stderr
    assert (work / "dom0-vm" / "boot.img").read_text() == "mine"


def test_the_same_run_again_starts_the_machine_that_is_there(dom0: RunCommand, work: Path) -> None:
    """With all that it was made with; what the machine has since made of its disk stays."""
    qemu = work / "bin" / PROGRAM
    qemu.parent.mkdir()
    qemu.write_text('#!/bin/sh\ncase "$*" in *boot.img*) echo on ;; esac\n')
    qemu.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    def run(*more: str) -> Output:
        typed = ("--firmware", "bios", "--ssh-key", "key.pub", "-p", f"{port}:22", *more)
        return dom0("os", "run", *typed, env={"PATH": f"{qemu.parent}:{os.environ['PATH']}"})

    assert run().stdout == "on\n"
    (work / "dom0-vm" / "boot.img").write_text("updated")
    assert (run().code, run().stdout) == (0, "on\n")
    assert (work / "dom0-vm" / "boot.img").read_text() == "updated"
    assert run("--config", "hostname=attic").code == 2


def test_run_says_which_port_is_taken(dom0: RunCommand, work: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = dom0("os", "run", "-p", f"{port}:22")
    assert refused.code == 2
    assert f"--publish {port}:22: Address already in use" in refused.stderr
