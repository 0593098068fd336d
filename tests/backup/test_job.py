"""Backups of a volume on a real Engine, with a real restic: what is brought back is compared byte by byte."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0 import run
from dom0.backup import job, record, restic
from dom0.engine.bodies import ContainerBody, VolumeBody
from dom0.engine.docker import DockerEngine
from dom0.errors import Dom0Error, NotFound
from dom0.names import ROOTFS_IMAGE
from dom0.plan import labels
from dom0.plan.backups import BackupJob, HookOf
from dom0.plan.desired import Hook
from dom0.run import Output
from dom0.testing import api, busybox
from dom0.testing.debian_like import debian_like
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine
from dom0.testing.hosts import Host
from dom0.testing.s3_server import KEY, SECRET, S3Server

VOLUME = "box_data"
ALL = r"""
cd /data && find . | sort | while read -r name; do
    stat -c '%n %F %a %u %g %h %Y %N' "$name"; [ -f "$name" ] && [ ! -L "$name" ] && sha256sum "$name"; done; true
"""
FILL = r"""
cd /data && mkdir -p deep/er 'a name' && printf one >deep/er/file && head -c 3000000 /dev/urandom >random
ln random hard && ln -s ../random deep/link && printf two >'a name/\tä'
dd if=/dev/zero of=sparse bs=1 count=1 seek=5000000
chmod 4751 deep/er/file && chown 999:998 deep deep/er/file && touch -d '2001-02-03 04:05:06' 'a name' && chmod 2770 .
"""


@pytest.fixture(scope="module")
def debian_layer() -> bytes:
    return debian_like()


@pytest.fixture(scope="module")
def with_restic(session_host: Host, debian_layer: bytes) -> Iterator[None]:
    """The image of the worker, made once for all tests. By its second name it stays when one of them makes another."""
    images = api.images(session_host.socket)
    api.import_image(session_host.socket, ROOTFS_IMAGE, debian_layer)
    asyncio.run(prepare(session_host))
    session_host.docker("tag", restic.IMAGE, "of-all-tests")
    yield
    session_host.clean(keep=images)


async def prepare(host: Host) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host.docker_host)
        engine = await DockerEngine.connect()
        await restic.prepare_image(engine)
        await engine.close()


@pytest.fixture
def machine(with_restic: None, engine_host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """With a volume, and what restic needs."""
    monkeypatch.setenv("DOCKER_HOST", engine_host.docker_host)
    monkeypatch.setenv("DOM0_STATE", str(tmp_path / "state"))
    (tmp_path / "backup.env").write_text("# of the test\nRESTIC_PASSWORD='top secret'\n")
    (tmp_path / "to").mkdir()
    in_volume(engine_host, FILL)
    return engine_host


@pytest.fixture
async def engine(machine: Host) -> AsyncIterator[DockerEngine]:
    engine = await DockerEngine.connect()
    yield engine
    await engine.close()


def in_volume(host: Host, script: str, volume: str = VOLUME) -> str:
    return host.docker("run", "--rm", "-v", f"{volume}:/data", busybox.IMAGE, "sh", "-c", script).stdout


def job_for(tmp_path: Path, **fields: Any) -> BackupJob:
    given: dict[str, Any] = {
        "project": "box",
        "key": "data",
        "volume": VOLUME,
        "path": "/volume/data",
        "to": str(tmp_path / "to"),
        "env_file": str(tmp_path / "backup.env"),
        "ssh_key": "",
        "known_hosts": (),
        "keep": {},
        "stop": (),
        "before": (),
        "after": (),
    }
    return BackupJob(**(given | fields))


def silent(_text: str) -> None:
    """Nobody reads it."""


async def taken(engine: DockerEngine, of: BackupJob) -> tuple[restic.Snapshot, ...]:
    return await restic.snapshots(engine, job.repository_of(of), of.path, job.worker_of(of))


async def brought_back(engine: DockerEngine, of: BackupJob, snapshot: str = "latest") -> None:
    source = await job.source_of(engine, of)
    await restic.restore(engine, source, job.repository_of(of), snapshot, kept="kept")
    await engine.remove_volume("kept")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no RESTIC_PASSWORD"),
        ("RESTIC_PASSWORD=\n", "has no RESTIC_PASSWORD"),
        ("LD_PRELOAD=/x", "1: is nothing that is known"),
    ],
)
def test_a_file_without_a_password_or_with_anything_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "backup.env").write_text(text)
    with pytest.raises(Dom0Error, match=said):
        job.repository_of(job_for(tmp_path))


async def test_a_disk_that_is_full_or_not_mounted_fails_the_backup_and_loses_nothing(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    of, before = job_for(tmp_path, to="/run/small"), in_volume(machine, ALL)
    machine.run(["mkdir", "/run/small"])
    machine.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", "/run/small"])
    made = await job.run(engine, of, silent)
    in_volume(machine, "head -c 9000000 /dev/urandom >/data/more")
    with pytest.raises(Dom0Error, match="no space left"):
        await job.run(engine, of, silent)
    assert (known := record.read("data")) is not None
    assert known.snapshot == made.snapshot
    await brought_back(engine, of)
    assert in_volume(machine, ALL) == before
    machine.run(["umount", "/run/small"])
    with pytest.raises(Dom0Error, match="the backups that were there are gone") as refused:
        await job.run(engine, of, silent)
    assert refused.value.hint.endswith(f": rm {record.file_of('data')}")
    assert machine.run(["ls", "/run/small"]).stdout == ""
    machine.run(["rmdir", "/run/small"])
    with pytest.raises(Dom0Error, match="bind source path does not exist"):
        await job.run(engine, of, silent)


async def test_after_a_kill_at_any_step_the_next_run_goes_on_and_what_is_of_others_stays(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    of, before = job_for(tmp_path, keep={"last": 1}), in_volume(machine, ALL)
    other = job_for(tmp_path, key="more", path="/volume/more")
    add_job(machine, of)
    for step in ("init", "backup", "forget", "check"):
        kill_at(step, machine, of, tmp_path)
        if step == "init":
            await job.run(engine, other, silent)
    made = await job.run(engine, of, silent)
    assert [one.id for one in await taken(engine, of)] == [made.snapshot]
    assert len(await taken(engine, other)) == 1
    in_volume(machine, "rm -r /data/deep")
    await brought_back(engine, of)
    assert in_volume(machine, ALL) == before


async def test_locks_of_killed_processes_do_not_last_whatever_their_numbers_are(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    of = job_for(tmp_path, keep={"last": 1})
    await job.run(engine, of, silent)
    repository, worker = job.repository_of(of), job.worker_of(of)
    hold = "restic --no-cache --repo /repository backup --stdin-from-command -- sh -c 'kill -STOP $$'"
    for number in range(1, 19):  # a worker's restic gets its PIDs in the same order each time: unlock one of these
        forks = f"n=0; while [ $n -lt {number + 6} ]; do (:); n=$((n+1)); done; {hold} & wait"
        async with restic._worker(engine, worker, repository, repository.mounts(writable=True)):
            machine.docker("exec", "--detach", "--env", "RESTIC_PASSWORD=top secret", worker, "sh", "-c", forks)
            locked = f"until [ $(ls {tmp_path}/to/locks | wc -l) -ge {number} ]; do sleep 0.02; done"
            machine.run(["timeout", "60", "sh", "-c", locked])
    made = await job.run(engine, of, silent)
    assert [one.id for one in await taken(engine, of)] == [made.snapshot]


def kill_at(step: str, machine: Host, of: BackupJob, tmp_path: Path) -> None:
    """Kill the job half a second after restic has begun with `step`, and wait until its container is gone."""
    watch = ["timeout", "120", "docker", "events", "--since", str(time.time()), "--format", "{{.Action}}"]
    watch += ["--filter", f"container={job.worker_of(of)}", "--filter", "event=exec_start"]
    with (
        machine.popen(watch, stdout=subprocess.PIPE) as events,
        machine.popen([sys.executable, "-m", "dom0", "backup-job", "data"], env=_env(tmp_path)) as running,
    ):
        assert events.stdout is not None
        assert any(re.search(rf" {step}\b".encode(), line) for line in events.stdout)
        time.sleep(0.5)
        running.kill()
        events.kill()
    deadline = time.monotonic() + 60
    while job.worker_of(of) in machine.docker("ps", "--all", "--format", "{{.Names}}").stdout:
        assert time.monotonic() < deadline


def _env(tmp_path: Path) -> dict[str, str]:
    return {"DOM0_STATE": str(tmp_path / "state")}


def add_job(host: Host, of: BackupJob) -> None:
    own = {
        labels.PROJECT: "box",
        labels.ROLE: "backup",
        labels.BACKUP: msgspec.json.encode(of).decode(),
        labels.SERVICE: f"dom0-backup-{of.key}",
    }
    words = [word for name, value in own.items() for word in ("--label", f"{name}={value}")]
    host.docker("create", "--name", f"dom0-backup-{of.key}", *words, busybox.IMAGE, "true")


async def test_another_machine_gets_the_volume_of_the_one_that_it_names(
    machine: Host,
    engine: DockerEngine,
    fresh_host: Callable[..., Host],
    debian_layer: bytes,
    tmp_path: Path,
) -> None:
    of, before = job_for(tmp_path), in_volume(machine, ALL)
    made = await job.run(engine, of, silent)
    known = record.read("data")
    assert known is not None
    assert (known.to, known.snapshot, known.complete) == (of.to, made.snapshot, True)
    assert all(b"deep" not in path.read_bytes() for path in (tmp_path / "to").rglob("*") if path.is_file())
    new = fresh_host(name="newbox")
    api.import_image(new.socket, ROOTFS_IMAGE, debian_layer)
    in_volume(new, "echo new >/data/file")
    add_job(new, of)

    def restore(*options: str) -> Any:
        argv = [sys.executable, "-m", "dom0", "backup", "restore", "data", "--yes", *options]
        return new.run(argv, check=False, env=_env(tmp_path))

    refused = restore()
    assert refused.code != 0
    assert f"has no snapshot of data of the machine newbox\n      it has those of {machine.name}" in refused.stderr
    assert in_volume(new, ALL) != before
    restored = restore("--machine", machine.name, "--json")
    assert restored.code == 0, restored.stderr
    assert in_volume(new, ALL) == before
    assert in_volume(new, "ls /data", json.loads(restored.stdout)["kept"]) != ""


async def test_a_restore_that_cannot_give_what_was_asked_for_replaces_nothing(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    of, other = job_for(tmp_path), job_for(tmp_path, key="more", volume="box_more", path="/volume/more")
    before = in_volume(machine, ALL)
    in_volume(machine, "echo more >/data/more", "box_more")
    await job.run(engine, of, silent)
    made = await job.run(engine, other, silent)
    with pytest.raises(NotFound, match=f"has no snapshot {made.snapshot[:8]} of {VOLUME}"):
        await brought_back(engine, of, made.snapshot[:8])
    assert in_volume(machine, ALL) == before
    machine.docker("volume", "rm", "box_more")
    where = machine.run(["mktemp", "-d"]).stdout.strip()
    mounted = [word for option in ("type=none", "o=bind", f"device={where}") for word in ("--opt", option)]
    machine.docker("volume", "create", *mounted, "box_more")
    with pytest.raises(Dom0Error, match=f"what is in it is kept in {where}"):
        await brought_back(engine, other)
    assert sorted(volume.name for volume in await engine.volumes()) == [VOLUME, "box_more"]
    machine.run(["rmdir", where])


async def test_what_was_there_stays_when_nobody_knows_whether_it_was_exchanged(
    machine: Host, engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = job_for(tmp_path)
    await job.run(engine, of, silent)
    in_volume(machine, "echo new >/data/new")
    after = in_volume(machine, ALL)
    real = shutil.which("docker")
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin" / "docker"
    broken.write_text(f'#!/bin/sh\ncase "$*" in *--exchange*) {real} "$@"; exit 125;; esac\nexec {real} "$@"\n')
    broken.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
        with pytest.raises(Dom0Error, match="may or may not have changed places with kept"):
            await brought_back(engine, of)
    assert in_volume(machine, ALL, "kept") == after
    await engine.remove_volume("kept")


async def test_snapshots_stay_when_files_could_not_be_read(machine: Host, engine: DockerEngine, tmp_path: Path) -> None:
    of = job_for(tmp_path, keep={"last": 1})
    whole = await job.run(engine, of, silent)
    in_volume(machine, "echo lost >/data/lost")
    mountpoint = (await job.source_of(engine, of)).mountpoint
    machine.run(["mount", "--bind", "/proc/1/mem", f"{mountpoint}/lost"])
    made = await job.run(engine, of, silent)
    machine.run(["umount", f"{mountpoint}/lost"])
    assert not made.complete
    assert {one.id for one in await taken(engine, of)} == {whole.snapshot, made.snapshot}


async def test_snapshots_stay_when_a_service_that_was_to_rest_ran_meanwhile(
    machine: Host, engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = job_for(tmp_path, keep={"last": 1}, stop=("db",))
    words = [f"--label={one}" for one in (f"{labels.PROJECT}=box", f"{labels.SERVICE}=db", f"{labels.ROLE}=service")]
    machine.docker("run", "--name", "db", *words, "--volume", f"{VOLUME}:/data", busybox.IMAGE, "true")
    whole = await job.run(engine, of, silent)

    async def capture(argv: Sequence[str], **options: Any) -> Output:
        if "backup" in argv:
            machine.docker("start", "--attach", "db")
        return await run.capture(argv, **options)

    monkeypatch.setattr(restic, "capture", capture)
    with pytest.raises(Dom0Error, match="db: ran meanwhile"):
        await job.run(engine, of, silent)
    assert whole.snapshot in {one.id for one in await taken(engine, of)}


async def test_a_long_backup_leaves_nothing_in_memory_but_its_summary(
    machine: Host, engine: DockerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_volume(machine, "head -c 60000000 /dev/urandom >/data/large")
    printed = []

    async def capture(argv: Sequence[str], **options: Any) -> Output:
        output = await run.capture(argv, **options)
        if "backup" in argv:
            printed.append(output.stdout)
        return output

    monkeypatch.setattr(restic, "capture", capture)
    await job.run(engine, job_for(tmp_path), silent)
    assert [len(one.splitlines()) for one in printed] == [1]


def test_a_connection_to_a_host_that_is_gone_is_given_up(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(restic._home_for_ssh(restic.Ssh(b"key", b"")))) as tar:
        tar.extract(".ssh/config", tmp_path, filter="data")
    said = subprocess.run(
        ["ssh", "-G", "-F", tmp_path / ".ssh/config", "nas"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"connecttimeout 60", "serveraliveinterval 60", "batchmode yes"} <= set(said)


async def test_what_is_gone_needs_no_restart_after_a_restore(machine: Host, engine: DockerEngine) -> None:
    restored = restic.Restored(volume=VOLUME, kept="kept", users=("gone",))
    source = restic.VolumeSource(VOLUME, "", "box", "", "")
    assert (await restic.restart_users(engine, source, restored)).users == ()


async def test_a_volume_with_the_name_of_another_ones_key_has_its_own_job(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    add_job(machine, job_for(tmp_path, key="data", volume="box_data"))
    add_job(machine, job_for(tmp_path, key="old", volume="data"))
    [found] = await job.find(engine, ["data"])
    assert found.key == "data"
    assert [one.key for one in await job.find(engine)] == ["data", "old"]


async def test_commands_run_before_and_after_and_a_wrong_password_changes_nothing(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    own = [f"{labels.PROJECT}=box", f"{labels.SERVICE}=db", f"{labels.ROLE}=service"]
    words = [word for one in own for word in ("--label", one)]
    machine.docker(
        "run", "-d", "--init", "--name", "db", *words, "-v", f"{VOLUME}:/data", busybox.IMAGE, "sleep", "600"
    )
    dump, done = ("echo dumped >/data/dump", "rm /data/dump; echo done >>/root/done")
    before, after = (HookOf(service="db", hook=Hook(argv=("sh", "-c", text))) for text in (dump, done))
    of = job_for(tmp_path, before=(before,), after=(after,))
    made = await job.run(engine, of, silent)
    known = record.read("data")
    (tmp_path / "backup.env").write_text("RESTIC_PASSWORD=guess\n")
    with pytest.raises(Dom0Error, match="the password is wrong"):
        await job.run(engine, of, silent)
    with pytest.raises(Dom0Error, match="the password is wrong"):
        await brought_back(engine, of)
    assert record.read("data") == known
    assert [volume.name for volume in await engine.volumes()] == [VOLUME]
    assert machine.docker("exec", "db", "cat", "/root/done").stdout == "done\ndone\n"
    fails = msgspec.structs.replace(before, hook=Hook(argv=("sh", "-c", "echo no such table; exit 3")))
    with pytest.raises(Dom0Error, match="exit code 3\nno such table"):
        await job.run(engine, job_for(tmp_path, before=(fails,)), silent)
    (tmp_path / "backup.env").write_text("RESTIC_PASSWORD=top secret\n")
    await brought_back(engine, of, made.snapshot)
    assert in_volume(machine, "cat /data/dump") == "dumped\n"


async def test_the_image_of_the_worker_is_made_anew_of_another_restic_or_another_base_and_else_stays(
    machine: Host, engine: DockerEngine, debian_layer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made() -> str:
        await restic.prepare_image(engine)
        return (await engine.image(restic.IMAGE)).id

    monkeypatch.setattr(restic, "BASE_IMAGE", ROOTFS_IMAGE)  # other tests may have left a dom0-base on this host
    (tmp_path / "bin").mkdir()
    own = tmp_path / "bin" / "restic"
    real = shutil.which("restic") or ""

    def change(word: bytes) -> None:
        shutil.copy(real, own)
        with own.open("ab") as file:
            file.write(word)

    change(b"older")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{own.parent}:{os.environ['PATH']}")
        first = await made()
        assert await made() == first
        change(b"newer")
        second = await made()
        machine.docker("tag", second, "mine")
        api.import_image(machine.socket, ROOTFS_IMAGE, debian_layer)  # at another time, so it is another one
        third = await made()
        patch.setenv("PATH", str(tmp_path / "none"))
        assert await made() == third
        await engine.remove_image(restic.IMAGE)
        with pytest.raises(Dom0Error, match="restic, of which it is made, is not installed here") as told:
            await made()
        assert "apt-get install restic" in told.value.hint
    assert len({first, second, third}) == 3
    assert set(api.images(machine.socket).values()).isdisjoint({first, third})
    assert (await engine.image("mine")).id == second


async def test_a_command_that_hangs_fails_the_backup_after_its_time_and_what_comes_after_runs(
    machine: Host, engine: DockerEngine, tmp_path: Path
) -> None:
    own = [f"{labels.PROJECT}=box", f"{labels.SERVICE}=db", f"{labels.ROLE}=service"]
    words = [word for one in own for word in ("--label", one)]
    machine.docker("run", "-d", "--init", "--name", "db", *words, busybox.IMAGE, "sleep", "600")
    hangs, done = (Hook(argv=("sh", "-c", text)) for text in ("sleep 600", "echo done >>/root/done"))
    before = HookOf(service="db", hook=hangs, timeout=0.5)
    after = (HookOf(service="db", hook=done), HookOf(service="db", hook=hangs, timeout=0.5))
    with pytest.raises(Dom0Error, match=r"db: sh -c sleep 600: did not end within 0\.5 s") as told:
        await job.run(engine, job_for(tmp_path, before=(before,), after=after), silent)
    assert "docker top db" in told.value.hint
    assert machine.docker("exec", "db", "cat", "/root/done").stdout == "done\n"
    assert record.read("data") is None


async def test_a_command_afterwards_that_fails_keeps_no_other_one_from_its_turn(tmp_path: Path) -> None:
    docker = FakeDocker()
    docker.images.add(busybox.IMAGE)
    db, said = FakeEngine(docker), list[str]()
    own = {labels.PROJECT: "box", labels.SERVICE: "db", labels.ROLE: "service"}
    await db.create_container("db", ContainerBody(image=busybox.IMAGE, cmd=("sleep", "600"), labels=own))
    await db.start_container("db")
    await db.create_volume(VOLUME, VolumeBody())
    (tmp_path / "backup.env").write_text("RESTIC_PASSWORD=x\n")
    fails, missing, done = (
        HookOf(service="db", hook=Hook(argv=argv)) for argv in (("false",), ("test", "-e", "/none"), ("touch", "/done"))
    )
    with pytest.raises(Dom0Error, match="db: false: exit code 1"):
        await job.run(db, job_for(tmp_path, before=(missing,), after=(fails, missing, done)), said.append)
    assert "/done" in docker.container("db").files
    assert len([text for text in said if text.startswith("db: test -e /none: exit code 1")]) == 2


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_image_of_the_worker_that_cannot_be_made_anew_is_taken_as_it_is(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = FakeDocker()
    for name in (ROOTFS_IMAGE, *([restic.IMAGE] if is_there else [])):
        docker.images.add(name)
    for program in ("restic", "docker"):  # which builds nothing
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with nullcontext() if is_there else pytest.raises(Dom0Error):
        await restic.prepare_image(FakeEngine(docker))
    tags = [tag for image in await FakeEngine(docker).images() for tag in image.tags]
    assert (f"{restic.IMAGE}:latest" in tags) is is_there


@pytest.mark.parametrize(("to", "limit"), [("/srv/backup", ()), ("s3:https://s3.example/bucket", ("timeout", "90.0"))])
async def test_a_place_elsewhere_is_looked_for_no_longer_than_that_and_a_disk_here_may_be_slow(
    to: str, limit: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[Sequence[str]]()

    async def capture(argv: Sequence[str], **_options: Any) -> Output:
        seen.append(argv)
        return Output(0, "", "")

    monkeypatch.setattr(restic, "capture", capture)
    await restic._Restic(restic.Repository(to, "x"), "worker").look()
    (argv,) = seen
    assert tuple(argv[argv.index("worker") + 1 : argv.index("restic")]) == limit


@pytest.fixture
def rest_server(machine: Host, tmp_path: Path) -> Iterator[str]:
    """Where it is, for a container of the machine."""
    gateway = machine.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout
    argv = [sys.executable, "-m", "dom0.testing.rest_server", str(tmp_path / "to"), "8123", "letmein"]
    with machine.popen(argv, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield f"rest:http://{gateway.strip()}:8123/"
        server.kill()


async def test_a_rest_server_keeps_it_and_its_password_is_seen_nowhere(
    machine: Host, engine: DockerEngine, rest_server: str, tmp_path: Path
) -> None:
    of, before = job_for(tmp_path, to=rest_server), in_volume(machine, ALL)
    (tmp_path / "backup.env").write_text("RESTIC_PASSWORD=x\nRESTIC_REST_USERNAME=box\nRESTIC_REST_PASSWORD=wrong\n")
    with pytest.raises(Dom0Error) as refused:
        await job.run(engine, of, silent)
    assert "wrong" not in refused.value.message
    (tmp_path / "backup.env").write_text("RESTIC_PASSWORD=x\nRESTIC_REST_USERNAME=box\nRESTIC_REST_PASSWORD=letmein\n")
    await job.run(engine, of, silent)
    in_volume(machine, "rm -r /data/deep")
    await brought_back(engine, of)
    assert in_volume(machine, ALL) == before


S3_ENV = "RESTIC_PASSWORD=x\nAWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n"


@pytest.fixture
def s3(machine: Host, tmp_path: Path) -> Iterator[S3Server]:
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    (tmp_path / "backup.env").write_text(S3_ENV.format(key=KEY, secret=SECRET))
    with S3Server(machine, tmp_path / "s3") as server:
        yield server


async def test_an_s3_server_keeps_it_for_another_machine_and_its_keys_are_seen_nowhere(
    machine: Host,
    engine: DockerEngine,
    s3: S3Server,
    fresh_host: Callable[..., Host],
    debian_layer: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of, before = job_for(tmp_path, to=f"s3:{s3.url}/bucket", keep={"last": 1}), in_volume(machine, ALL)
    add_job(machine, of)
    began, seen = str(time.time()), list[str]()

    async def capture(argv: Sequence[str], **options: Any) -> Output:
        output = await run.capture(argv, **options)
        if "backup" in argv:
            names = machine.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()
            assert job.worker_of(of) in names
            seen.extend([" ".join(argv), output.stdout, output.stderr, machine.docker("inspect", *names).stdout])
        return output

    with monkeypatch.context() as patch:
        patch.setattr(restic, "capture", capture)
        await job.run(engine, of, seen.append)
    seen.append(machine.docker("events", "--since", began, "--until", str(time.time())).stdout)
    seen.append(machine.log.read_text(errors="replace"))
    seen.append(record.file_of("data").read_text())
    assert len(seen) > 5
    assert all(SECRET not in text for text in seen)
    files = [path.read_bytes() for path in (tmp_path / "s3" / "bucket").rglob("*") if path.is_file()]
    assert files
    assert all(b"deep" not in content for content in files)
    new = fresh_host(name="newbox")
    api.import_image(new.socket, ROOTFS_IMAGE, debian_layer)
    in_volume(new, "echo new >/data/file")
    add_job(new, of)
    with S3Server(new, tmp_path / "s3") as there:
        assert there.url == s3.url
        argv = [sys.executable, "-m", "dom0", "backup", "restore", "data", "--yes", "--machine", machine.name]
        new.run(argv, env=_env(tmp_path))
    assert in_volume(new, ALL) == before


QUARTER_OF_AN_HOUR, MOMENT = (seconds * 10**9 for seconds in (900, 8))  # in nanoseconds, as Go counts


@pytest.fixture
def impatient_restic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, in which as a number of its machine code stands how long it tries: nothing else shortens that."""
    real = Path(shutil.which("restic") or "").read_bytes()
    patient, impatient = (struct.pack("<q", one) for one in (QUARTER_OF_AN_HOUR, MOMENT))
    assert real.count(patient)
    (tmp_path / "bin").mkdir()
    changed = tmp_path / "bin" / "restic"
    changed.write_bytes(real.replace(patient, impatient))
    changed.chmod(0o755)
    monkeypatch.setenv("PATH", f"{changed.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("step", ["backup", "forget", "prune"])
async def test_an_s3_server_that_goes_for_good_fails_the_run_and_the_next_one_after_its_return_is_good(
    machine: Host,
    engine: DockerEngine,
    s3: S3Server,
    impatient_restic: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """While data is sent, before the first snapshot is forgotten, and after it."""
    of = job_for(tmp_path, to=f"s3:{s3.url}/bucket", keep={"last": 1})
    await job.run(engine, of, silent)
    known = record.read("data")
    in_volume(machine, "head -c 1000000 /dev/urandom >/data/more")
    before = in_volume(machine, ALL)
    bucket = tmp_path / "s3" / "bucket"
    first, begun = files(bucket / "data"), files(bucket / "snapshots")
    seen = list[str]()

    def go() -> None:
        while (step == "backup" and files(bucket / "data") == first) or (
            step == "prune" and begun & files(bucket / "snapshots")
        ):
            time.sleep(0.01)
        s3.kill()

    async def capture(argv: Sequence[str], **options: Any) -> Output:
        if ("backup" if step == "backup" else "forget") in argv and not going:
            going.append(threading.Thread(target=go))
            going[0].start()
            if step == "forget":
                going[0].join()
        seen.append(argv[argv.index("--repo") + 2] if "--repo" in argv else "")
        return await run.capture(argv, **options)

    going = list[threading.Thread]()
    with monkeypatch.context() as patch:
        patch.setattr(restic, "capture", capture)
        with pytest.raises(Dom0Error, match=f"s3:{s3.url}/bucket: has gone away: .*connection refused") as told:
            await job.run(engine, of, silent)
    assert told.value.hint == "look whether it is there; the next run goes on: dom0 backup now"
    assert seen[-1] == ("backup" if step == "backup" else "forget")
    assert job.worker_of(of) not in machine.docker("ps", "--all", "--format", "{{.Names}}").stdout
    with pytest.raises(Dom0Error, match=r"has gone away: Stat: .*connection refused"):
        await job.run(engine, of, silent)
    assert record.read("data") == known
    s3.start()
    made = await job.run(engine, of, silent)
    assert [one.id for one in await taken(engine, of)] == [made.snapshot]
    in_volume(machine, "rm -r /data/deep /data/more")
    await brought_back(engine, of)
    assert in_volume(machine, ALL) == before


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*") if path.is_file()}


async def test_an_s3_server_with_other_keys_without_the_bucket_or_away_is_told_and_nothing_is_lost(
    machine: Host, engine: DockerEngine, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, before = job_for(tmp_path, to=f"s3:{s3.url}/bucket"), in_volume(machine, ALL)
    made = await job.run(engine, of, silent)
    known = record.read("data")
    monkeypatch.setattr(restic, "_FOUND_WITHIN", 5.0)
    (tmp_path / "backup.env").write_text(S3_ENV.format(key=KEY, secret="guessed"))
    for tried in (job.run(engine, of, silent), brought_back(engine, of), taken(engine, of)):
        with pytest.raises(Dom0Error, match="The request signature we calculated does not match") as refused:
            await tried
        assert "guessed" not in refused.value.message
    (tmp_path / "backup.env").write_text(S3_ENV.format(key=KEY, secret=SECRET))
    s3.kill()
    for tried in (job.run(engine, of, silent), brought_back(engine, of)):
        with pytest.raises(Dom0Error, match="connection refused"):
            await tried
    bucket = tmp_path / "s3" / "bucket"
    bucket.rename(tmp_path / "gone")
    s3.start()
    with pytest.raises(Dom0Error, match="cannot be had for 5 s: Stat: The specified bucket does not exist"):
        await job.run(engine, of, silent)
    assert not bucket.exists()
    assert record.read("data") == known
    assert [volume.name for volume in await engine.volumes()] == [VOLUME]
    (tmp_path / "gone").rename(bucket)
    assert [one.id for one in await taken(engine, of)] == [made.snapshot]
    in_volume(machine, "rm -r /data/deep")
    await brought_back(engine, of)
    assert in_volume(machine, ALL) == before
