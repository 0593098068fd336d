"""Logins by ssh in the journal: what sshd's log says of them, and nothing twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from dom0.agent.events import Entry
from dom0.agent.journal import Journal
from dom0.agent.logins import Logins, SshLogin, comments, read_login
from dom0.agent.progress import Changes
from dom0.engine.values import Image
from dom0.testing.builders import asking, image_id, slot
from dom0.testing.fake_docker import FakeDocker
from dom0.testing.fake_engine import FakeEngine

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb0VFTnGnlJmnBcoG3YOU8zyGp5UKUqmvDkXVZ8zK1A you@laptop"
PRINT = "SHA256:37QTj6+jDZEih/cTtzMB37EALtXc6RGbCyohPNFKkk0"
LINE = "Accepted publickey for dom0 from 192.168.1.7 port 41234 ssh2: ED25519 {print}"


@pytest.mark.parametrize(
    "line",
    [
        "Invalid user Accepted publickey for dom0 from 1.2.3.4 port 1 ssh2: ED25519 SHA256:abc from 5.6.7.8 port 2",
        "Failed publickey for dom0 from 1.2.3.4 port 1 ssh2: ED25519 SHA256:abc",
        "Accepted publickey for dom0",
        "Connection closed by authenticating user dom0 192.168.1.7 port 41234 [preauth]",
        "",
    ],
)
def test_who_was_not_let_in_is_no_login(line: str) -> None:
    assert read_login(line.encode()) is None


@pytest.mark.parametrize(
    ("line", "login"),
    [
        (LINE.format(print="SHA256:a+b/c"), SshLogin("dom0", "192.168.1.7", "ED25519", "SHA256:a+b/c")),
        (
            "Accepted publickey for me from fe80::1%eth0 port 1 ssh2: RSA-CERT SHA256:x ID me (serial 0) CA RSA y",
            SshLogin("me", "fe80::1%eth0", "RSA-CERT", "SHA256:x"),
        ),
        (
            "Accepted publickey for me from ::1 port 1 ssh2: RSA-CERT SHA256:x ID a b (serial 0) CA ED25519 SHA256:y/+",
            SshLogin("me", "::1", "RSA-CERT", "SHA256:x", "SHA256:y/+"),
        ),
    ],
)
def test_a_login_has_a_user_a_key_and_an_address(line: str, login: SshLogin) -> None:
    assert read_login(line.encode()) == login


def test_keys_are_called_what_their_line_says() -> None:
    """The fingerprint is that of `ssh-keygen -l`."""
    lines = [f'command="echo AAAA" {KEY}', "# AAAA", "ssh-rsa AAAA=%", "nothing", ""]
    assert comments(lines) == {PRINT: "you@laptop"}


class Machine:
    """sshd's container on the fake Engine, and the agent beside it, which may be another one later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = FakeEngine(FakeDocker())
        self.engine.docker.images.all[image_id("app")] = Image(id=image_id("app"), tags=("app:latest",))
        self.changed = Changes()
        self.container: str | None = None
        self.now = 1000.0

    async def start_sshd(self) -> None:
        create = replace(asking(slot("sshd")).create, image=image_id("app"))
        self.container = await self.engine.create_container("dom0-sshd", create)
        self.engine.docker.container("dom0-sshd").log.clear()

    def say(self, at: float, line: str) -> None:
        self.engine.docker.container("dom0-sshd").log.append((at, f"{line}\n", ""))
        self.changed.tell()

    async def noted(self, most: int) -> list[Entry]:
        """By an agent that begins now, and ends when it has noted so many, or has nothing to note for a while."""
        journal = Journal(self.path, now=lambda: self.now, boot="0" * 8)
        logins = Logins(
            self.engine,
            self.path,
            journal,
            self.changed,
            container=lambda: self.container,
            keys=lambda: [KEY],
            now=lambda: self.now,
        )
        before, task = journal.last, asyncio.create_task(logins.run())
        for _ in range(100):
            await asyncio.sleep(0.5)
            self.changed.tell()
            if journal.last >= before + most > before:
                break
        task.cancel()
        await asyncio.wait([task])
        journal.close()
        return journal.read(before, 100)


async def test_each_login_is_noted_once_whatever_agent_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await machine.start_sshd()
    machine.say(500.0, LINE.format(print="SHA256:old"))  # before this machine had a journal of them
    assert await machine.noted(0) == []
    machine.say(1001.0, "Server listening on 0.0.0.0 port 22.")
    machine.say(1002.0, LINE.format(print=PRINT))
    (login,) = await machine.noted(1)
    assert (login.kind, login.subject, login.actor) == ("login", PRINT, "ssh from 192.168.1.7")
    assert login.text == f"login of dom0 with the key you@laptop (ED25519 {PRINT})"
    assert login.reason == ""
    machine.say(1003.0, LINE.format(print=PRINT))
    machine.now = 5000.0
    (later,) = await machine.noted(1)
    assert later.text == f"login of dom0 with the key you@laptop (ED25519 {PRINT})"
    assert "while no agent ran" in later.reason
    assert await machine.noted(0) == []


async def test_what_the_refused_make_up_is_told_as_that_and_pushes_nothing_out(tmp_path: Path) -> None:
    """As sshd logs a disconnect with line breaks in its reason."""
    machine = Machine(tmp_path)
    await machine.start_sshd()
    assert await machine.noted(0) == []
    for number in range(200):
        made_up = f"Accepted publickey for u{number} from 6.6.6.{number} port 1 ssh2: ED25519 SHA256:{number}"
        machine.say(1001.0 + number / 100, f"Received disconnect from 9.9.9.9 port 9:11: x\n{made_up} [preauth]")
    machine.say(1004.0, LINE.format(print=PRINT))
    machine.now = 1010.0
    noted = await machine.noted(6)
    assert [one.subject for one in noted if one.count == 1] == 5 * ["unknown key"] + [PRINT]
    assert [one.count for one in noted if one.count > 1] == [195]
    assert noted[0].actor == "ssh"
    assert "log tells of a login of u0 ssh from 6.6.6.0, with a key that is not let in" in noted[0].text
    assert noted[0].reason == "it was taken away since, or who was refused has made this up"


async def test_a_key_of_an_authority_that_is_let_in_has_its_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await machine.start_sshd()
    assert await machine.noted(0) == []
    machine.say(1001.0, f"{LINE.format(print='SHA256:x')} ID me (serial 0) CA ED25519 {PRINT}")
    (login,) = await machine.noted(1)
    assert login.text == "login of dom0 with the key you@laptop (ED25519 SHA256:x)"


async def test_a_clock_that_was_put_back_hides_no_login(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    await machine.start_sshd()
    machine.now = 9e9
    assert await machine.noted(0) == []
    machine.now = 1000.0
    assert await machine.noted(0) == []
    machine.say(1001.0, LINE.format(print=PRINT))
    assert len(await machine.noted(1)) == 1


async def test_without_sshd_nothing_is_asked(tmp_path: Path) -> None:
    assert await Machine(tmp_path).noted(0) == []


@pytest.mark.parametrize("kept", ["{", '{"moment": "yesterday"}'])
async def test_a_damaged_file_ends_no_agent(tmp_path: Path, kept: str) -> None:
    machine = Machine(tmp_path)
    await machine.start_sshd()
    (tmp_path / "logins.json").write_text(kept)
    assert await machine.noted(0) == []
