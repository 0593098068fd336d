"""The container dom0-sshd on a real Engine: who gets in, and what they may do there."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import PurePosixPath

import pytest
from msgspec.structs import replace

from dom0.compose.model import Project
from dom0.compose.x_dom0 import HomeSettings, MachineSettings, SshSettings
from dom0.engine.docker import DockerEngine
from dom0.names import BASE_IMAGE, HOME, SSHD
from dom0.plan.builtins import builtin_slots, with_home_volume
from dom0.plan.desired import Slot
from dom0.plan.facts import Facts
from dom0.testing.hosts import Host

PORT = 2222
CLIENT = "ssh-client"
DEADLINE = 90.0


@pytest.fixture
def client(host: Host) -> Iterator[str]:
    """A container with a key pair, which reaches the host's ports; gives the public key."""
    run = ["run", "--detach", "--name", CLIENT, "--network", "host", "--entrypoint", "sleep", BASE_IMAGE, "infinity"]
    host.docker(*run)
    host.docker("exec", CLIENT, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    yield host.docker("exec", CLIENT, "cat", "/root/.ssh/id_ed25519.pub").stdout.strip()
    host.docker("rm", "--force", CLIENT)


def machine(key: str = "", **ssh: object) -> Project:
    keys = (key,) if key else ()
    of = MachineSettings(hostname="box", ssh=SshSettings(port=PORT, authorized_keys=keys, **ssh), home=HomeSettings())  # type: ignore[arg-type]
    return Project(name="box", machine=of)


async def bring_up(engine: DockerEngine, project: Project) -> None:
    for volume in with_home_volume(project, ()):
        await engine.create_volume(volume.name, volume.create)
    for slot in builtin_slots(project, Facts(images={}, base=await engine.image(BASE_IMAGE))):
        await create(engine, slot)
        if slot.runs:
            await engine.start_container(slot.name)


async def create(engine: DockerEngine, slot: Slot) -> None:
    await engine.create_container(slot.name, replace(slot.create, image=slot.image_id))
    for file in slot.files:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(PurePosixPath(file.path).name)
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
        await engine.put_archive(slot.name, str(PurePosixPath(file.path).parent), buffer.getvalue())


def ssh(host: Host, *command: str, user: str = "dom0", options: tuple[str, ...] = ()) -> str:
    argv = ["ssh", "-p", str(PORT), "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", *options]
    done = host.docker("exec", CLIENT, *argv, f"{user}@127.0.0.1", *command, check=False)
    return done.stdout.strip() if done.code == 0 else f"refused: {done.stderr.strip().splitlines()[-1]}"


def host_keys(host: Host) -> list[str]:
    return sorted(
        host.docker("exec", CLIENT, "ssh-keyscan", "-T", "60", "-p", str(PORT), "127.0.0.1").stdout.splitlines()
    )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110 -- it is on the other side of the Engine
            await asyncio.sleep(0.1)


async def listening(host: Host) -> None:
    async def is_listening() -> bool:
        return ":0016 00000000:0000 0A" in host.docker("exec", SSHD, "cat", "/proc/net/tcp").stdout

    await until(is_listening)


async def test_a_key_of_the_project_lets_in_and_the_user_may_use_docker(
    host: Host, engine: DockerEngine, client: str
) -> None:
    await bring_up(engine, machine(client))
    await listening(host)
    assert ssh(host, "id -un; hostname; pwd") == "dom0\nbox\n/home/dom0"
    assert "dom0-sshd" in ssh(host, "docker ps --format '{{.Names}}'")


async def test_what_is_written_at_home_is_in_the_volume(host: Host, engine: DockerEngine, client: str) -> None:
    await bring_up(engine, machine(client))
    await listening(host)
    ssh(host, "echo hello > note")
    beside = ["run", "--rm", "--volumes-from", HOME, "busybox:test", "stat", "-c", "%u", "/home/dom0/note"]
    assert host.docker(*beside).stdout.strip() == "1000"


async def test_nobody_else_gets_in(host: Host, engine: DockerEngine, client: str) -> None:
    await bring_up(engine, machine())
    await listening(host)
    assert "Permission denied (publickey)" in ssh(host, "true")
    assert "Permission denied (publickey)" in ssh(host, "true", user="root")
    assert "Permission denied (publickey)" in ssh(host, "true", options=("-o", "PubkeyAuthentication=no"))


async def test_a_key_that_is_added_later_lets_in_at_once(host: Host, engine: DockerEngine, client: str) -> None:
    await bring_up(engine, machine())
    await listening(host)
    keys = host.path("/var/lib/dom0/ssh/authorized_keys")
    keys.write_text(f"{client}\n")
    keys.chmod(0o644)
    assert ssh(host, "echo in") == "in"


async def test_another_container_has_the_same_host_keys(host: Host, engine: DockerEngine, client: str) -> None:
    await bring_up(engine, machine(client))
    await listening(host)
    before = host_keys(host)
    for name in (SSHD, HOME):
        await engine.remove_container(name, force=True)
    await bring_up(engine, machine(client))
    await listening(host)
    after = host_keys(host)
    assert before
    assert before == after


async def test_another_number_of_the_user_owns_the_home(host: Host, engine: DockerEngine, client: str) -> None:
    await bring_up(engine, machine(client, uid=2000))
    await listening(host)
    assert ssh(host, "stat --format %u . .profile; touch mine && echo written") == "2000\n2000\nwritten"


async def test_another_name_and_number_of_the_user(host: Host, engine: DockerEngine, client: str) -> None:
    await bring_up(engine, machine(client, user="ada", uid=2000))
    await listening(host)
    assert ssh(host, "id -un; id -u; pwd; ls -A | head -n 1", user="ada") == "ada\n2000\n/home/ada\n.bash_logout"
    await engine.stop_container(SSHD)
    await engine.start_container(SSHD)
    await listening(host)
    assert ssh(host, "docker version --format '{{.Client.Os}}'", user="ada") == "linux"


async def test_an_open_session_is_seen_in_the_processes(host: Host, engine: DockerEngine, client: str) -> None:
    project = machine(client)
    await bring_up(engine, project)
    await listening(host)
    marks = builtin_slots(project, Facts(images={}, base=await engine.image(BASE_IMAGE)))[1].defer_while

    async def in_use() -> bool:
        lines = await engine.top(SSHD)
        return any(mark in line for mark in marks for line in lines)

    assert not await in_use()
    session = ["ssh", "-p", str(PORT), "-o", "StrictHostKeyChecking=no", "dom0@127.0.0.1", "sleep 60"]
    host.docker("exec", "--detach", CLIENT, *session)
    await until(in_use)
