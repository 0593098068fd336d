"""Secrets, env files and `.env` are on the machine and in no image."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from dom0.testing.machines import Machine

COMPOSE = """
    name: box
    x-dom0: {rollout: {monitor: 1s}}
    services:
      app:
        image: busybox:test
        user: "1000:1000"
        init: true
        command: ["sh", "-c", "cat /run/secrets/word; echo $$FROM_ENV_FILE $FROM_DOTENV; exec sleep 100000"]
        env_file: conf/app.env
        secrets: [word]
        volumes: ["./conf:/conf"]
    secrets:
      word: {file: secret/word}
"""
APP = "box-app-1"
FILES = {
    "secret/word": "7d1f-first-secret\n",
    "conf/app.env": "FROM_ENV_FILE=7d1f-env-file\n",
    ".env": "FROM_DOTENV=7d1f-dotenv\n",
    "conf/app.ini": "public",
}
PRIVATE = ".env, conf/app.env, secret/word"


@pytest.fixture(scope="module")
def box(machine: Machine) -> Machine:
    machine.write(COMPOSE, FILES)
    os.chown(machine.project / "secret" / "word", 1000, 1000)
    (machine.project / "secret" / "word").chmod(0o600)
    machine.up()
    machine.until_good()
    return machine


def said_by_app(box: Machine) -> list[str]:
    """Both lines, which come one after the other."""
    box.until_running(APP)

    def both() -> list[str]:
        lines = box.output(APP).splitlines()
        return lines if len(lines) > 1 else []

    return box.until(both)


def in_images(box: Machine, tmp_path: Path, text: bytes) -> list[str]:
    """Where it stands in what `docker save` writes, layers unpacked."""
    file = tmp_path / "saved.tar"
    tags = box.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    box.docker("save", "--output", str(file), *(tag for tag in tags if tag.startswith("dom0")))
    found = []
    with tarfile.open(file) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is not None and text in content.read():
                found.append(entry.name)
    return found


def test_the_service_reads_them_as_the_user_that_they_belong_to(box: Machine) -> None:
    assert said_by_app(box) == ["7d1f-first-secret", "7d1f-env-file 7d1f-dotenv"]


def test_no_image_holds_a_byte_of_them(box: Machine, tmp_path: Path) -> None:
    assert in_images(box, tmp_path, b"7d1f-") == []
    assert in_images(box, tmp_path, b"cat /run/secrets/word") != []


def test_what_stays_out_is_said(box: Machine, tmp_path: Path) -> None:
    said = box.dom0("build", "--no-cache", "--tag", "another").stdout
    assert f"private, so not in the image: {PRIVATE}" in said
    saved = box.dom0("image", "save", str(tmp_path / "saved.tar"))
    assert f"{PRIVATE}: private, so not saved" in saved.stderr
    box.docker("image", "rm", "another")


def test_nobody_but_root_gets_to_them_on_the_machine(box: Machine) -> None:
    found = box.host.path("/var/lib/dom0/private").stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o700, 0)


def test_an_up_without_a_change_has_nothing_to_do(box: Machine) -> None:
    assert "nothing to do" in box.up().stdout


def test_another_secret_replaces_the_service_and_a_rollback_brings_the_old_one_back(box: Machine) -> None:
    before = box.lives(APP)
    box.write(COMPOSE, {"secret/word": "7d1f-second-secret\n"})
    box.up()
    box.until_good()
    assert said_by_app(box)[0] == "7d1f-second-secret"
    assert box.lives(APP) != before
    box.dom0("rollback")
    box.until_good()
    assert said_by_app(box)[0] == "7d1f-first-secret"
    box.up()
    box.until_good()
    assert said_by_app(box)[0] == "7d1f-second-secret"


def test_dom0_started_by_hand_takes_those_that_the_machine_has(box: Machine) -> None:
    box.docker("rm", "--force", "dom0")
    box.write(COMPOSE.replace("100000", "200000"))
    box.build()
    box.run_by_hand()
    box.until(lambda: "200000" in str(box.container(APP)["Config"]["Cmd"]))
    assert said_by_app(box)[0] == "7d1f-second-secret"
    box.until_good()


def test_a_machine_that_never_had_them_names_them_and_takes_what_is_put_there(box: Machine) -> None:
    box.dom0("down")
    box.docker("rm", "--force", "dom0", check=False)
    box.host.run(["sh", "-c", "rm -rf /var/lib/dom0/*"])
    box.run_by_hand()
    title = f"{PRIVATE}: private, so not in the image, and not on this machine"
    (problem,) = box.until(lambda: [problem for problem in box.status()["problems"] if problem["title"] == title])
    place = problem["hint"].rpartition(" ")[2].removesuffix("/.env")
    for name in FILES:
        box.host.run(["install", "-D", "-m", "600", "-o", "1000", str(box.project / name), f"{place}/{name}"])
    box.docker("restart", "dom0")
    box.until_good()
    assert said_by_app(box) == [(box.project / "secret" / "word").read_text().strip(), "7d1f-env-file 7d1f-dotenv"]


def test_an_up_that_is_killed_anywhere_is_made_good_by_the_next_one(box: Machine) -> None:
    for number in range(6):
        secret = f"7d1f-number-{number}"
        box.write(COMPOSE, {"secret/word": f"{secret}\n"})
        command = box.begin("up", str(box.project))
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(timeout=0.4 * (number + 1))
        command.kill()
        command.wait()
        box.until(lambda: box.up(check=False).code == 0)  # what the killed one began may still go on: busy
        box.until_good()
        assert said_by_app(box)[0] == secret


def test_a_file_that_dockerignore_lets_in_is_in_the_image(box: Machine, tmp_path: Path) -> None:
    box.write(COMPOSE, {".dockerignore": "!.env\n"})
    assert "private, so not in the image: conf/app.env, secret/word" in box.dom0("build").stdout
    assert in_images(box, tmp_path, b"7d1f-dotenv") != []
