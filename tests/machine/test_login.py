"""Logging in: by key only, into a home that stays, on a machine whose dom0 may be replaced meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing.hosts import PATIENCE
from dom0.testing.machines import Machine
from dom0.testing.namespaces import Child

COMPOSE = """
    name: box
    x-dom0:
      hostname: boxhost
      ssh:
        port: 2022
        user: dom0 # the default, which this host's Compose and the machine's may print apart
        authorized_keys: ["{key}"]
      home: {{}}
      dev: {{image: "busybox:test", command: ["id"]}}
      rollout: {{monitor: 1s, timeout: 60s}}
    services:
      web:
        image: busybox:test
        command: ["sleep", "100000"]
        init: true
        environment: {{VERSION: "{version}"}}
    """
PORT = "2022"


@dataclass(frozen=True)
class Login:
    child: Child

    def says(self, text: str) -> str:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(f"{text}\n".encode())
        self.child.stdin.flush()
        return self.child.stdout.readline().decode()


@dataclass(frozen=True)
class Client:
    """OpenSSH's client on the host, with a key that the project lets in and its own known_hosts."""

    machine: Machine
    directory: Path

    @property
    def public_key(self) -> str:
        return (self.directory / "key.pub").read_text().strip()

    def argv(self, *command: str, user: str = "dom0", key: str = "key", more: Sequence[str] = ()) -> list[str]:
        known_hosts = self.directory / "known_hosts"
        options = ["StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={known_hosts}", "IdentitiesOnly=yes"]
        words = [word for option in (*options, *more) for word in ("-o", option)]
        return [
            "ssh",
            "-F",
            "none",
            *words,
            "-i",
            str(self.directory / key),
            "-p",
            "2022",
            f"{user}@127.0.0.1",
            *command,
        ]

    def run(self, *command: str, user: str = "dom0", key: str = "key", more: Sequence[str] = ()) -> Output:
        argv = self.argv(*command, user=user, key=key, more=("BatchMode=yes", *more))
        return self.machine.host.run(argv, check=False)

    @contextmanager
    def login(self) -> Iterator[Login]:
        """A session that repeats what it is told, until the block ends."""
        child = self.machine.host.popen(self.argv("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with child:
            login = Login(child)
            assert login.says("hello") == "hello\n"
            yield login
            assert child.stdin is not None
            child.stdin.close()
            assert child.wait(PATIENCE) == 0

    def make_key(self, name: str) -> None:
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"test-{name}",
            "-f",
            str(self.directory / name),
        ]
        subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def client(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Client:
    client = Client(machine, tmp_path_factory.mktemp("ssh"))
    client.make_key("key")
    client.make_key("stranger")
    write(client, "first")
    machine.up()
    machine.until_good()
    machine.until(lambda: client.run("true").code == 0)
    return client


def write(client: Client, version: str) -> None:
    client.machine.write(COMPOSE.format(key=client.public_key, version=version))


def new_base(client: Client) -> None:
    recipe = b"FROM dom0-base\nLABEL test.another=login\n"
    client.machine.host.run(["docker", "build", "--quiet", "--tag", "dom0-base", "-"], stdin=recipe)


def test_the_key_lets_in_and_the_user_owns_its_home(client: Client) -> None:
    said = client.run("id -un; id -u; pwd; stat -c %U . ; hostname")
    assert said.stdout.splitlines() == ["dom0", "1000", "/home/dom0", "dom0", "boxhost"], said


def test_who_has_come_in_is_an_event(client: Client) -> None:
    assert client.run("true").code == 0
    listed = client.machine.host.run(["ssh-keygen", "-l", "-f", str(client.directory / "key.pub")]).stdout
    fingerprint = listed.split()[1]

    def logins() -> list[str]:
        said = client.machine.dom0("events").stdout.splitlines()
        return [line for line in said if f"login of dom0 with the key test-key (ED25519 {fingerprint})" in line]

    before = len(client.machine.until(logins))
    assert re.search(r"  by ssh from [0-9.]+$", logins()[-1])
    assert client.run("true", key="stranger").code == 255
    assert client.run("true", user="root").code == 255
    assert "stranger" not in client.machine.dom0("events").stdout
    assert len(logins()) >= before


@pytest.mark.parametrize(
    "options",
    [
        ("PreferredAuthentications=password,keyboard-interactive",),
        ("PubkeyAuthentication=no",),
    ],
)
def test_nobody_comes_in_by_password(client: Client, options: tuple[str, ...]) -> None:
    refused = client.run("true", more=options)
    assert refused.code == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_neither_root_nor_a_stranger_comes_in(client: Client) -> None:
    for user, key in (("root", "key"), ("dom0", "stranger"), ("root", "stranger"), ("nobody", "key")):
        refused = client.run("true", user=user, key=key)
        assert (refused.code, "Permission denied (publickey)" in refused.stderr) == (255, True), (user, key, refused)


def test_who_is_refused_again_and_again_shuts_nobody_else_out(client: Client) -> None:
    """Over loopback they all come from one address, that of Docker's proxy."""
    for _ in range(8):
        assert client.run("true", key="stranger").code == 255
    assert client.run("true").code == 0


def test_docker_and_dom0_work_inside_a_login(client: Client) -> None:
    said = client.run("docker ps --format '{{.Names}}' && dom0 status --json")
    assert said.code == 0, said
    assert "box-web-1" in said.stdout.splitlines()
    assert '"project": "box"' in said.stdout


def test_a_key_may_be_added_and_taken_away_while_it_runs(client: Client) -> None:
    public = str(client.directory / "stranger.pub")
    client.machine.dom0("ssh", "add", public)
    assert client.run("true", key="stranger").code == 0
    client.machine.dom0("ssh", "rm", "test-stranger")
    assert client.run("true", key="stranger").code == 255
    noted = map(json.loads, client.machine.dom0("events", "--json").stdout.splitlines())
    told = {one["subject"]: one["text"] for one in noted if one["subject"].startswith("dom0 ssh")}
    assert told.keys() == {"dom0 ssh add", "dom0 ssh rm"}
    assert all(text.endswith("  test-stranger") for text in told.values())


def test_a_login_goes_on_while_dom0_is_replaced(client: Client) -> None:
    root = client.machine.container("dom0")["Id"]
    with client.login() as login:
        write(client, "second")
        client.machine.up()
        assert client.machine.container("dom0")["Id"] != root
        assert login.says("still there") == "still there\n"


def test_a_login_goes_on_while_the_base_is_replaced_and_sshd_is_replaced_after_it(client: Client) -> None:
    machine = client.machine
    keys = host_keys(client)
    sshd = machine.container("dom0-sshd")["Id"]
    with client.login() as login:
        new_base(client)
        machine.up()
        machine.until_good()
        assert machine.container("dom0")["Image"] == machine.image_id("dom0:latest")
        assert machine.container("dom0-sshd")["Id"] == sshd
        assert login.says("still there") == "still there\n"
    machine.docker("run", "--rm", "busybox:test", "true")  # at any event the agent looks, else once a minute
    machine.until_running("dom0-sshd", not_id=sshd)
    machine.until(lambda: client.run("true").code == 0)
    assert host_keys(client) == keys


def host_keys(client: Client) -> list[str]:
    scanned = client.machine.host.run(["ssh-keyscan", "-T", "60", "-p", PORT, "127.0.0.1"])
    return sorted(line for line in scanned.stdout.splitlines() if not line.startswith("#"))


def test_plain_docker_reaches_the_home_by_its_container(client: Client) -> None:
    client.run("echo text > note")
    run = ("run", "--rm", "--volumes-from", "home-volume", "busybox:test")
    assert client.machine.docker(*run, "cat", "/home/dom0/note").stdout == "text\n"
    assert client.machine.docker(*run, "stat", "-c", "%u:%g", "/home/dom0/note").stdout == "1000:1000\n"


def test_a_login_has_the_commands_of_the_machine_but_says_nothing_untrue_of_the_host(client: Client) -> None:
    examined = client.run("dom0", "doctor")
    assert examined.code == 0, examined.stdout
    assert not re.search("missing|buildx|is free|mmdebstrap", examined.stdout)
    assert "ok       dom0: runs, generation" in examined.stdout
    inside = client.machine.docker("exec", "dom0", "dom0", "doctor")
    assert inside.stdout == examined.stdout


def test_a_login_makes_a_project_from_an_example(client: Client) -> None:
    made = client.run("cd && dom0 init made")
    assert (made.code, made.stderr) == (0, "")
    assert client.run("cat", "made/compose.yaml").stdout.startswith("#")


def test_a_login_lists_the_snapshots_of_the_home(client: Client) -> None:
    """They are in a directory of the host, which a login does not see."""
    repository = client.machine.state / "home-snapshots"
    seen_by_root = client.machine.docker("exec", "dom0", "dom0", "home", "ls", "--json", check=False)
    seen = client.run("dom0", "home", "ls", "--json")
    assert (seen.code, seen.stdout) == (0, seen_by_root.stdout)
    repository.mkdir()
    (repository / "config").write_text("no repository")
    try:
        assert client.run("dom0", "home", "ls").code != 0, "it was looked at"
    finally:
        shutil.rmtree(repository)


def test_dom0_dev_runs_as_the_owner_of_the_home_and_leaves_only_what_it_wrote_there(client: Client) -> None:
    machine = client.machine
    before = machine.containers()
    assert machine.dom0("dev").stdout.startswith("uid=1000 gid=1000")
    said = machine.dom0("dev", "--", "sh", "-c", "pwd; echo $HOME; echo by-dev > by-dev; exit 3", check=False)
    assert (said.code, said.stdout) == (3, "/home/dom0\n/home/dom0\n")
    assert machine.containers() == before
    assert client.run("cat", "by-dev").stdout == "by-dev\n"
    machine.dom0("dev", "busybox:test", "touch", "/home/dom0/other")
    assert client.run("stat -c %U other").stdout == "dom0\n"


def test_dom0_dev_runs_while_the_machine_changes(client: Client) -> None:
    machine = client.machine
    dev = machine.begin("dev", "--name", "working", "--", "sleep", "1000")
    with dev:
        started = machine.until_running("working")
        write(client, "third")
        machine.up()
        assert machine.until_running("working")["Id"] == started["Id"]
        machine.docker("kill", "working")
        dev.wait(PATIENCE)
    machine.until(lambda: "working" not in machine.containers())
