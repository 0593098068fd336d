"""The steps of the Makefile: what they say, and that they stop where something is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dom0.testing.hosts import Host

CHECKOUT = Path(__file__).parents[2]
SCRIPTS = CHECKOUT / "scripts"


def run(directory: Path, *argv: str, stdin: str = "", path: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOCKER_HOST": "unix:///nobody/answers.sock"} | ({"PATH": path} if path else {})
    return subprocess.run(
        argv, cwd=directory, input=stdin, env=environment, check=False, capture_output=True, text=True
    )


def test_make_without_a_target_lists_every_target_that_is_for_people() -> None:
    listed = run(CHECKOUT, "make").stdout
    for target in ("up", "down", "clean", "test", "lint", "bench"):
        assert f"make {target} " in listed


def test_every_step_of_lint_is_a_hook_of_pre_commit_that_fetches_nothing() -> None:
    (repository,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"]
    steps = re.findall(
        r'\$\(STEP\) "(.*)" ', (CHECKOUT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    )
    assert repository["repo"] == "local"
    assert [hook["name"] for hook in repository["hooks"]] == steps
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_a_step_says_how_long_it_took_and_what_came_last(tmp_path: Path) -> None:
    done = run(tmp_path, str(SCRIPTS / "step"), "count", "sh", "-c", "echo one; echo two >&2")
    assert done.returncode == 0
    assert done.stdout.startswith(" ok count (0.")
    assert done.stdout.endswith("s): two\n")


def test_a_step_that_fails_shows_its_output_and_how_to_see_it_again(tmp_path: Path) -> None:
    done = run(tmp_path, str(SCRIPTS / "step"), "count", "sh", "-c", "echo because; exit 3")
    assert done.returncode == 3
    assert "ERR count failed" in done.stderr
    assert "    because\n" in done.stderr
    assert "'sh' '-c' 'echo because; exit 3'" in done.stderr


@pytest.mark.parametrize("line", ["--index-url https://index.example/simple", "dom0 @ https://files.example/dom0.whl"])
def test_a_lock_file_that_says_where_packages_come_from_is_refused(tmp_path: Path, line: str) -> None:
    image = tmp_path / "images" / "dom0-base"
    image.mkdir(parents=True)
    good = "click==8.4.2 \\\n    --hash=sha256:00\n"
    (image / "requirements.lock").write_text(good)
    (tmp_path / "requirements.lock").write_text(good)
    assert run(tmp_path, str(SCRIPTS / "check-locks")).returncode == 0
    (tmp_path / "requirements.lock").write_text(f"{line}\n{good}")
    refused = run(tmp_path, str(SCRIPTS / "check-locks"))
    assert refused.returncode == 1
    assert line in refused.stdout


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("", True), ("y\n", False)])
def test_clean_says_what_it_would_delete_and_needs_a_yes(tmp_path: Path, answer: str, left: bool) -> None:
    (tmp_path / ".cache").mkdir()
    # The machine's own /var/lib/dom0 is out of reach of a test: only run where there is none.
    if Path("/var/lib/dom0").exists() or Path("/run/dom0").exists():
        pytest.skip("dom0 runs on this machine")
    done = run(tmp_path, str(SCRIPTS / "clean"), stdin=answer)
    assert "    .cache\n" in done.stdout
    assert (tmp_path / ".cache").exists() is left
    assert (done.returncode == 0) is not left


def test_clean_empties_a_mount_point_and_leaves_what_is_mounted_below_it(tmp_path: Path) -> None:
    """As /var/lib/dom0 is one where the machine's data has a disk of its own."""
    script = (SCRIPTS / "clean").read_text().replace("/var/lib/dom0 /run/dom0 ", "")  # out of reach of a test
    mounted = "mkdir .cache && mount -t tmpfs own .cache && mkdir .cache/a && echo 1 >.cache/a/file"
    below = "mkdir .cache/b && mount -t tmpfs other .cache/b && echo 1 >.cache/b/theirs"

    def clean(*mounts: str) -> subprocess.CompletedProcess[str]:
        shell = " && ".join([*mounts, 'bash -c "$0" >said', "find .cache -mindepth 1"])
        argv = ["unshare", "--mount", "sh", "-c", f"{shell} || {{ find .cache -mindepth 1; exit 1; }}", script]
        return run(tmp_path, *argv, stdin="y\n")

    alone = clean(mounted)
    assert (alone.returncode, alone.stdout) == (0, "")
    (tmp_path / ".cache").rmdir()
    refused = clean(mounted, below)
    assert (refused.returncode, refused.stdout.split()) == (1, [".cache/b", ".cache/b/theirs"])
    assert ".cache/b" in refused.stderr


def test_clean_leaves_images_that_somebody_else_built_on_ours(
    fresh_host: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where `dom0-kept` names them too."""
    host = fresh_host()  # it deletes the images that other tests begin with
    monkeypatch.setenv("DOCKER_HOST", host.docker_host)
    script = (SCRIPTS / "clean").read_text()
    assert "/var/lib/dom0 /run/dom0 " in script
    script = script.replace("/var/lib/dom0 /run/dom0 ", "")  # the machine's own stay out of reach of a test
    built = """dom0.images='{"box-web":"sha256:0","box/db:2":"sha256:0"}'"""
    host.docker("create", "--name", "made", "busybox:test", "true")
    for name, *more in (
        ("dom0-rootfs",),
        ("box-web",),
        ("box/db:2",),
        ("team/box:1", "dom0.project=box", built),
        ("dom0:latest", "dom0.project=box", built),
        ("mine/app:1",),
    ):
        changes = (part for label in ("dom0.inputs=x", *more) for part in ("--change", f"LABEL {label}"))
        host.docker("commit", *changes, "made", name)
    host.docker("tag", "mine/app:1", "dom0-kept:app")
    argv = ["bash", "-c", script]
    said = subprocess.run(argv, cwd=tmp_path, input="y\n", check=True, capture_output=True, text=True).stdout
    listed = re.findall(r"^    (\S+), ", said, re.MULTILINE)
    assert sorted(listed) == [
        "box-web:latest",
        "box/db:2",
        "dom0-kept:app",
        "dom0-rootfs:latest",
        "dom0:latest",
        "team/box:1",
    ]
    left = host.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(left) == ["busybox:test", "mine/app:1"]


def test_a_python_that_is_too_old_is_named_with_the_way_out(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run(tmp_path, str(SCRIPTS / "venv"), "run", path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert str(old) in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_missing_packages_are_named_with_the_command_where_they_cannot_be_installed(tmp_path: Path) -> None:
    for program in ("bash", "cat", "id", "env"):
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    done = run(tmp_path, str(tmp_path / "bash"), str(SCRIPTS / "packages"), "run", path=str(tmp_path))
    assert done.returncode == 1
    assert "docker-cli" in done.stderr


def with_newer_engine(checkout: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in a checkout of its own, in which it unpacks."""
    scripts = checkout / "scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPTS / "with-newer-engine", scripts)
    if not (checkout / ".venv").exists():
        (checkout / ".venv").symlink_to(CHECKOUT / ".venv")
    argv = (str(scripts / "with-newer-engine"), *argv)
    return subprocess.run(argv, env=os.environ | environment, check=False, capture_output=True, text=True)


def engine_that_says(directory: Path, version: str) -> Path:
    """A directory of programs whose dockerd is of that version."""
    directory.mkdir(parents=True)
    program = directory / "dockerd"
    program.write_text(f"#!/bin/sh\necho Docker version {version}, build 0\n")
    program.chmod(0o755)
    return directory


def test_a_newer_engine_that_cannot_be_had_is_said_and_nothing_is_run_nor_left(tmp_path: Path) -> None:
    unpacking = tmp_path / ".cache" / "newer-engine" / "unpacking"
    (unpacking / "root").mkdir(parents=True)  # as if killed at it
    done = with_newer_engine(tmp_path, "touch", str(tmp_path / "ran"), SUITE="no-such-suite")
    assert done.returncode == 1
    assert "with-newer-engine: the packages of Debian no-such-suite cannot be had from " in done.stderr
    assert done.stderr.endswith("with-newer-engine: the newer Engine was not tried\n")
    assert not (tmp_path / "ran").exists()
    assert not unpacking.exists()
    assert not (unpacking.parent / "no-such-suite").exists()


def test_a_machine_whose_own_engine_is_as_new_takes_it(tmp_path: Path) -> None:
    own = engine_that_says(tmp_path / "own", "28.5.2")
    engine_that_says(tmp_path / ".cache" / "newer-engine" / "testing" / "usr" / "sbin", "28.5.2")
    done = with_newer_engine(tmp_path, "sh", "-c", "command -v dockerd", PATH=f"{own}:{os.environ['PATH']}")
    assert done.stdout == f"{own}/dockerd\n"
    assert "own Engine 28.5.2 is as new as 28.5.2 of Debian testing" in done.stderr
