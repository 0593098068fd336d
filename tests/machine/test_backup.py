"""Backups of a real machine's volume by sftp: by its job, with a service stopped meanwhile, killed, and restored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dom0.testing.machines import Machine
from dom0.testing.s3_server import KEY, SECRET, S3Server

PROJECT = """
    name: box
    x-dom0:
      rollout: {{monitor: 1s, timeout: 60s}}
      notify: {{webhook: "http://127.0.0.1:9/nobody"}}
      backup:
        data:
          to: sftp:root@{address}:/srv/box
          env_file: ./backup.env
          ssh_key: backup.key
          known_hosts: ["{address} {host_key}"]
          schedule: "@yearly"
          stop: [db]
        more: {{to: "s3:{s3}/bucket", env_file: ./s3.env, schedule: "@yearly"}}
    services:
      db:
        image: busybox:test
        init: true
        command: ["sh", "-c", "until [ -e /data/stop ]; do sleep 0.1; done"]
        volumes: [data:/data, other:/other, more:/more]
        restart: always
    volumes: {{data: {{}}, other: {{}}, more: {{}}}}
    """
JOB, JOB_TO_S3, DB = "dom0-backup-data", "dom0-backup-more", "box-db-1"
SSHD = """
mkdir -p /run/sshd /root/.ssh /srv/box && ssh-keygen -q -t ed25519 -N '' -f /root/key && ssh-keygen -A
cp /root/key.pub /root/.ssh/authorized_keys && touch /root/ready
exec /usr/sbin/sshd -D -e -f /dev/null -o UsePAM=no -o StrictModes=no -o Subsystem='sftp internal-sftp'
"""


@pytest.fixture(scope="module")
def s3(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    directory = tmp_path_factory.mktemp("s3")
    (directory / "bucket").mkdir()
    with S3Server(machine.host, directory) as server:
        yield server


@pytest.fixture(scope="module")
def box(machine: Machine, s3: S3Server) -> Machine:
    """With a machine beside it that keeps its backups, and an S3 server."""
    own = ["--no-healthcheck", "--label", "dom0.project=", "--label", "dom0.role=", "--entrypoint", "sh"]
    machine.docker("run", "--detach", "--name", "nas", *own, "dom0-base", "-c", SSHD)
    machine.until(lambda: machine.docker("exec", "nas", "test", "-e", "/root/ready"))
    address = machine.container("nas")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    host_key = machine.docker("exec", "nas", "cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout
    key = machine.docker("exec", "nas", "cat", "/root/key").stdout
    s3_env = f"RESTIC_PASSWORD=x\nAWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\n"
    files = {"backup.env": "RESTIC_PASSWORD=7d1f-secret\n", "backup.key": key, "s3.env": s3_env}
    machine.write(PROJECT.format(address=address, host_key=" ".join(host_key.split()[:2]), s3=s3.url), files)
    machine.up()
    machine.until_good()
    return machine


def backups(box: Machine) -> dict[str, dict[str, Any]]:
    return {one["volume"]: one for one in box.status()["backups"]}


def failed(box: Machine) -> dict[str, str]:
    """Jobs, and what is said of them."""
    found = (problem for problem in box.status()["problems"] if problem["code"] == "job-failed")
    return {problem["subject"].removesuffix("-1"): problem["title"] for problem in found}


def in_volume(box: Machine, script: str) -> str:
    return box.docker("run", "--rm", "-v", "box_data:/data", "busybox:test", "sh", "-c", script).stdout


def test_the_status_says_what_is_in_a_backup_and_what_is_not(box: Machine) -> None:
    found = backups(box)
    assert {name: (one["service"], one["last"]) for name, one in found.items()} == {
        "box_data": (JOB, 0.0),
        "box_more": (JOB_TO_S3, 0.0),
        "box_other": ("", 0.0),
    }
    assert "in none: box_other" in box.dom0("status").stdout
    said = box.dom0("backup", "restore", "data", "--yes", check=False)
    assert (said.code, "is no backup" in said.stderr) == (1, True)


def test_a_backup_stops_the_service_and_its_killed_job_leaves_it_running(box: Machine) -> None:
    in_volume(box, "head -c 2000000 /dev/urandom >/data/random; echo one >/data/word")
    before = box.lives(DB)[DB]
    assert json.loads(box.dom0("backup", "now", "data", "--json").stdout) == [{"volume": "box_data", "exit_code": 0}]
    box.until(lambda: box.container(DB)["State"]["Running"])
    after = box.lives(DB)[DB]
    assert (after[0], after[1] == before[1]) == (before[0], False)
    assert f"stop {DB} ({JOB} runs)" in box.dom0("events").stdout
    made = backups(box)["box_data"]
    assert (made["last"] > 0, made["complete"]) == (True, True)
    assert "7d1f" not in json.dumps(box.container(JOB)) + box.docker("logs", JOB).stdout
    with box.begin("backup", "now", "data") as running:
        box.until(lambda: not box.container(DB)["State"]["Running"])
        box.docker("kill", JOB)
        assert running.wait(60) == 1
    box.until(lambda: box.container(DB)["State"]["Running"])
    box.until(lambda: failed(box))
    assert failed(box)[JOB].startswith("the backup of data failed: exited with code 137; its next run is at ")
    assert backups(box)["box_data"]["snapshot"] == made["snapshot"]


def test_a_job_to_s3_tells_its_keys_nobody_and_says_what_to_do_where_its_image_is_not_there(box: Machine) -> None:
    box.dom0("backup", "now", "more")
    assert backups(box)["box_more"]["complete"]
    box.docker("rmi", "dom0-restic")
    box.dom0("start", JOB_TO_S3)
    box.until(lambda: JOB_TO_S3 in failed(box))
    assert "apt-get install restic, then: dom0 backup now" in box.dom0("logs", JOB_TO_S3).stdout
    box.dom0("backup", "now", "more")
    box.until(lambda: JOB_TO_S3 not in failed(box))
    names = box.docker("ps", "--all", "--quiet").stdout.split()
    seen = [
        box.docker("inspect", *names).stdout,
        box.docker("logs", JOB_TO_S3).stdout,
        box.docker("logs", "dom0").stdout,
    ]
    seen += [box.dom0(*words).stdout for words in (["events", "--json"], ["status", "--json"], ["history", "1"])]
    seen += [box.host.log.read_text(errors="replace")]
    assert all(SECRET not in text for text in seen)


def test_people_are_told_in_a_process_of_the_machine(box: Machine) -> None:
    box.until(lambda: "box: dom0 will tell you here: not sent yet" in box.dom0("events").stdout)
    assert "(webhook: Connection refused)" in box.dom0("events").stdout


def test_a_restore_brings_the_volume_back_and_restarts_the_service(box: Machine) -> None:
    before = in_volume(box, "cd /data && sha256sum *")
    in_volume(box, "rm /data/random; echo two >/data/word")
    restored = json.loads(box.dom0("backup", "restore", "data", "--yes", "--json").stdout)
    assert in_volume(box, "cd /data && sha256sum *") == before
    assert box.docker("exec", DB, "cat", "/data/word").stdout == "one\n"
    kept = box.docker("run", "--rm", "-v", f"{restored['kept']}:/kept", "busybox:test", "cat", "/kept/word").stdout
    assert kept == "two\n"
    noted = map(json.loads, box.dom0("events", "--json").stdout.splitlines())
    [entry] = [one for one in noted if one["subject"] == "dom0 backup restore"]
    assert (entry["kind"], f"what was there is in {restored['kept']}" in entry["text"]) == ("command", True)
    assert entry["actor"] != "dom0"
    [snapshot] = json.loads(box.dom0("backup", "ls", "data", "--json").stdout)
    assert snapshot["id"] == backups(box)["box_data"]["snapshot"]
    box.dom0("down")


def test_a_refused_login_another_host_key_and_a_host_that_is_gone_are_said_and_nothing_is_lost(box: Machine) -> None:
    box.up()
    box.until(lambda: box.container(DB)["State"]["Running"])
    before = in_volume(box, "cd /data && echo three >word && sha256sum *")
    box.dom0("backup", "now", "data")
    known = backups(box)["box_data"]
    keys, host_key = "/root/.ssh/authorized_keys", "/etc/ssh/ssh_host_ed25519_key"

    def nas(script: str) -> str:
        return box.docker("exec", "nas", "sh", "-c", script).stdout

    def seen_from_outside() -> str:
        return nas("ssh-keyscan -q -t ed25519 127.0.0.1")

    def is_said(said: str) -> None:
        assert json.loads(box.dom0("backup", "now", "data", "--json", check=False).stdout)[0]["exit_code"] == 1
        assert said in box.output(JOB)
        restored = box.dom0("backup", "restore", "data", "--yes", check=False)
        assert (restored.code, said in restored.stderr) == (1, True), restored.stderr
        assert backups(box)["box_data"] == known
        box.until(lambda: box.container(DB)["State"]["Running"])

    nas(f"mv {keys} {keys}.away")
    is_said("Permission denied (publickey")
    nas(f"mv {keys}.away {keys}")

    own = seen_from_outside()
    nas(f"cp {host_key} /root/own; yes | ssh-keygen -q -t ed25519 -N '' -f {host_key}; kill -HUP 1")
    box.until(lambda: seen_from_outside() not in ("", own))
    is_said("Host key verification failed")
    nas(f"cp /root/own {host_key}; kill -HUP 1")
    box.until(lambda: seen_from_outside() == own)

    in_volume(box, "rm /data/word")
    box.dom0("backup", "restore", "data", "--yes")
    assert in_volume(box, "cd /data && sha256sum *") == before
    box.docker("kill", "nas")
    is_said("ssh: connect to host")
    assert in_volume(box, "cd /data && sha256sum *") == before
