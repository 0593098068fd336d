"""The launcher on a foreign host: installed, found unchanged, and removed without a trace of it or of others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dom0 import cli
from dom0.errors import Dom0Error
from dom0.host.install import (
    PROGRAMS,
    RECEIPT,
    InstalledFile,
    digest,
    files,
    install,
    plan_install,
    plan_removal,
    uninstall,
)
from dom0.testing.hosts import Host
from dom0.testing.launcher import HEALTHY, Launcher, forget_stop

UNIT = "etc/systemd/system/dom0.service"
A, B = InstalledFile("usr/lib/dom0/a", b"1", 0o755), InstalledFile("usr/lib/dom0/b", b"2", 0o755)


def tree(root: Path) -> dict[str, tuple[bool, bytes]]:
    """Path -> whether it is a link, and what it says."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = (True, str(path.readlink()).encode())
        elif path.is_file():
            found[str(path.relative_to(root))] = (False, path.read_bytes())
    return found


# plans

ROOT = Path("/mnt/new root")


def test_what_is_there_as_wanted_is_not_written() -> None:
    assert plan_install([A, B], {A.path: b"1"}, {}, ROOT) == (B,)


def test_an_older_one_of_ours_is_replaced() -> None:
    assert plan_install([A], {A.path: b"0"}, {A.path: digest(b"0")}, ROOT) == (A,)


@pytest.mark.parametrize("installed", [{}, {A.path: digest(b"0")}])
def test_what_is_somebody_elses_is_refused(installed: dict[str, str]) -> None:
    with pytest.raises(Dom0Error, match=r"^/mnt/new root/usr/lib/dom0/a: ") as caught:
        plan_install([A, B], {A.path: b"theirs"}, installed, ROOT)
    path = f"{ROOT}/{A.path}"
    assert caught.value.hint.endswith(f"mv '{path}' '{path}.old'")


def test_what_was_changed_is_kept() -> None:
    plan = plan_removal({A.path: b"theirs", B.path: b"2"}, {A.path: A.digest, B.path: B.digest, "gone": "0"})
    assert (plan.remove, plan.keep) == ((B.path,), (A.path,))


# files


def test_it_comes_and_goes_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/other.service").write_text("theirs")
    before = tree(tmp_path)
    assert set(install(tmp_path)) == {file.path for file in files()}
    assert (tmp_path / PROGRAMS[0]).stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "etc/systemd/system/multi-user.target.wants/dom0.service").is_symlink()
    uninstall(tmp_path)
    assert tree(tmp_path) == before
    assert not (tmp_path / "usr/lib/dom0").exists()


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert install(tmp_path) == ()
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_receipt_can_be_checked_by_hand(tmp_path: Path) -> None:
    install(tmp_path)
    lines = (tmp_path / RECEIPT).read_text().replace("  /", "  ").splitlines()
    listed = "\n".join(line for line in lines if "wants" not in line)
    subprocess.run(["sha256sum", "-c"], input=listed, text=True, check=True, cwd=tmp_path, capture_output=True)


@pytest.mark.parametrize("number", range(len(files())))
def test_an_installation_that_was_cut_off_goes_on(tmp_path: Path, number: int) -> None:
    install(tmp_path)
    whole = tree(tmp_path)
    (tmp_path / RECEIPT).unlink()
    for file in files()[number:]:
        (tmp_path / file.path).unlink()
    install(tmp_path)
    assert tree(tmp_path) == whole


def test_a_changed_file_stays_and_is_named_and_the_rest_goes(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / UNIT).write_text("mine")
    with pytest.raises(Dom0Error, match="was changed"):
        install(tmp_path)
    plan = uninstall(tmp_path)
    assert plan.keep == (UNIT,)
    assert tree(tmp_path).keys() == {UNIT, RECEIPT}
    assert (tmp_path / UNIT).read_text() == "mine"


def test_the_base_os_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/dom0-os").write_text("1\n")
    with pytest.raises(Dom0Error, match="runs the base OS"):
        install(tmp_path)


# the command


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["install-host", "--root", str(tmp_path)]) == 0
    assert f"install /{UNIT}" in capsys.readouterr().out
    (tmp_path / UNIT).write_text("mine")
    assert cli.run(["install-host", "--uninstall", "--root", str(tmp_path)]) == 1
    assert f"keep /{UNIT}" in capsys.readouterr().err
    (tmp_path / UNIT).unlink()
    assert cli.run(["install-host", "--uninstall", "--root", str(tmp_path)]) == 0
    assert tree(tmp_path) == {}


def test_programs_get_what_the_command_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["install-host", "--json", "--root", str(tmp_path)]) == 0
    installed = json.loads(capsys.readouterr().out)
    assert {"action": "install", "path": f"/{UNIT}"} in installed
    (tmp_path / UNIT).write_text("mine")
    assert cli.run(["install-host", "--uninstall", "--json", "--root", str(tmp_path)]) == 1
    done = json.loads(capsys.readouterr().out)
    assert [change["path"] for change in done if change["action"] == "keep"] == [f"/{UNIT}"]
    assert len([change for change in done if change["action"] == "remove"]) == len(installed) - 1


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    install(tmp_path)
    text = (tmp_path / UNIT).read_text()
    program = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert program is not None
    unit = tmp_path / "dom0.service"  # the program is not at its place on this machine, nor has it to be a Docker host
    unit.write_text(text.replace(program[1], f"{tmp_path}{program[1]}").replace("docker.service", "basic.target"))
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], check=False, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")


# on a host


@pytest.fixture
def machine(engine_host: Host, tmp_path: Path) -> Iterator[Launcher]:
    install(tmp_path)
    forget_stop(engine_host)
    made = Launcher(engine_host, interpreter=("dash",), program=tmp_path / PROGRAMS[0])
    yield made
    made.stop()
    engine_host.run(["rm", "-rf", "/run/dom0", "/var/lib/dom0/launcher"])


def test_what_is_installed_is_enough_to_run(machine: Launcher) -> None:
    image = machine.image(HEALTHY)
    machine.start()
    machine.until_good(image)
    machine.reboot()
    machine.until_runs(image, "latest")
    assert "not found" not in machine.log()
