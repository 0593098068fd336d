"""`dom0 farm` as people call it, on the farm's server and on a machine. What is decided: tests/farms."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dom0.farms.directory import FarmDirectory
from dom0.run import Output
from dom0.testing.receiver import Receiver

RunCommand = Callable[..., Output]


@pytest.fixture
def farm(dom0: RunCommand, tmp_path: Path) -> Path:
    """Listens at a port of this host that was free."""
    directory = tmp_path / "attic"
    assert dom0("farm", "init", str(directory)).code == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (directory / "farm.yaml").write_text(f"name: attic\nlisten: 127.0.0.1:{port}\n")
    return directory


@contextmanager
def started(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv = ["setpriv", "--pdeathsig=KILL", "--", sys.executable, "-m", "dom0", "farm", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str], stream: str = "stdout") -> str:
    found = getattr(process, stream)
    return str(found.readline())


def nodes(dom0: RunCommand, farm: Path) -> Any:
    return json.loads(dom0("farm", "nodes", "--dir", str(farm), "--json").stdout)


def test_the_server_tells_people_where_it_will_tell_them_of_lost_nodes(
    dom0: RunCommand, environment: dict[str, str], farm: Path
) -> None:
    settings = (farm / "farm.yaml").read_text()
    (farm / "farm.yaml").write_text(f"{settings}notify: {{env_file: ../notify.env}}\n")
    refused = dom0("farm", "serve", "--dir", str(farm))
    what = "farm.yaml: notify.env_file: '../notify.env' is no file of this directory"
    assert (refused.code, what in refused.stderr) == (3, True)
    with Receiver() as receiver:
        (farm / "state/notify.env").write_text("NTFY_TOKEN=tk_1\n")
        (farm / "farm.yaml").write_text(
            f"{settings}notify: {{ntfy: '{receiver.url}/attic', env_file: ./state/notify.env}}\n"
        )
        with started(environment, "serve", "--dir", str(farm)) as server:
            assert "answers at" in line(server)
            assert "attic: dom0 will tell you here: sent by ntfy" in line(server, "stderr")
        (posted,) = receiver.got
        assert (posted.path, posted.headers["Title"]) == ("/attic", "attic: dom0 will tell you here")
        assert posted.headers["Authorization"] == "Bearer tk_1"


def test_from_nothing_to_a_node(dom0: RunCommand, environment: dict[str, str], farm: Path, tmp_path: Path) -> None:
    assert dom0("farm", "nodes", "--dir", str(farm)).stdout.splitlines()[1:] == []
    node = environment | {"DOM0_STATE": str(tmp_path / "node")}
    with started(environment, "serve", "--dir", str(farm), "--json") as server:
        served = json.loads(line(server))
        assert served["name"] == "attic"
        with started(node, "join", served["join"]) as joining:
            code = line(joining, "stderr").partition(":")[0].removeprefix("code ")
            (waiting,) = nodes(dom0, farm)
            assert (waiting["state"], waiting["code"], waiting["address"]) == ("waiting", code, "127.0.0.1")
            wrong = dom0("farm", "approve", code, "--as", "nas", "--role", "helo", "--dir", str(farm))
            assert (wrong.code, "did you mean hello?" in wrong.stderr) == (2, True)
            approved = dom0("farm", "approve", code, "--as", "nas", "--role", "hello", "--dir", str(farm))
            assert approved.stdout.startswith("nas: approved, with the role hello")
            assert line(joining) == "nas: a node of the farm attic, with the role hello\n"
            assert joining.wait(60) == 0
        (row,) = dom0("farm", "nodes", "--dir", str(farm)).stdout.splitlines()[1:]
        assert row.split()[:4] == ["nas", "enrolled", "hello", "-"]
        again = dom0("farm", "join", served["join"], "--json", env={"DOM0_STATE": node["DOM0_STATE"]})
        assert json.loads(again.stdout)["name"] == "nas"
        other = dom0("farm", "join", served["join"][:-4] + "0000", env={"DOM0_STATE": node["DOM0_STATE"]})
        assert (other.code, "this machine is in the farm attic" in other.stderr) == (1, True)
        assert dom0("farm", "remove", "nas", "--dir", str(farm)).stdout == "nas: is not known any more\n"
        assert nodes(dom0, farm) == []
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_a_role_is_changed_while_no_server_runs(
    dom0: RunCommand, environment: dict[str, str], farm: Path, tmp_path: Path
) -> None:
    (farm / "roles" / "store").mkdir()
    (farm / "roles" / "store" / "compose.yaml").write_text("name: store\n")
    with (
        started(environment, "serve", "--dir", str(farm), "--json") as server,
        started(environment | {"DOM0_STATE": str(tmp_path / "n")}, "join", json.loads(line(server))["join"]) as joining,
    ):
        line(joining, "stderr")
    (waiting,) = nodes(dom0, farm)
    inside = str(farm)
    assert dom0("farm", "approve", waiting["code"], "--as", "nas", "--role", "hello", "--dir", inside).code == 0
    assigned = dom0("farm", "assign", "nas", "store", "--dir", inside, "--json")
    assert json.loads(assigned.stdout) == nodes(dom0, farm)[0]
    assert (nodes(dom0, farm)[0]["role"], nodes(dom0, farm)[0]["state"]) == ("store", "approved")


def test_a_farm_is_made_where_nothing_is(dom0: RunCommand, tmp_path: Path) -> None:
    made = dom0("farm", "init", str(tmp_path / "attic"), "--json")
    assert json.loads(made.stdout) == {
        "directory": str(tmp_path / "attic"),
        "name": "attic",
        "fingerprint": json.loads(made.stdout)["fingerprint"],
    }
    again = dom0("farm", "init", str(tmp_path / "attic"))
    assert (again.code, "is not empty" in again.stderr) == (3, True)
    (tmp_path / "Attic!").mkdir()
    refused = dom0("farm", "init", str(tmp_path / "Attic!"))
    assert (refused.code, "Attic!: is no name for a farm" in refused.stderr) == (2, True)
    assert list((tmp_path / "Attic!").iterdir()) == []


def test_an_example_of_a_farm_is_one_of_the_name_that_it_gets(dom0: RunCommand, tmp_path: Path) -> None:
    made = dom0("farm", "init", "--example", "house", str(tmp_path / "attic"))
    assert made.stdout.splitlines()[0] == f"{tmp_path / 'attic'}: the farm attic, with the roles store, web"
    assert dom0("farm", "status", "--json", "--dir", str(tmp_path / "attic")).code == 0
    assert "name: attic\n" in (tmp_path / "attic" / "farm.yaml").read_text()
    assert (tmp_path / "attic" / "roles" / "web" / "page" / "visit.sh").exists()
    unknown = dom0("farm", "init", "--example", "home", str(tmp_path / "other"))
    assert (unknown.code, "there are: hello, house" in unknown.stderr) == (2, True)
    assert not (tmp_path / "other").exists()


def test_a_node_that_cannot_be_reached_is_refused_with_what_to_do(
    dom0: RunCommand, environment: dict[str, str], farm: Path, tmp_path: Path
) -> None:
    joined, inside = environment | {"DOM0_STATE": str(tmp_path / "n")}, ("--dir", str(farm))
    with started(environment, "serve", *inside, "--json") as server:
        with started(joined, "join", json.loads(line(server))["join"]) as joining:
            code = line(joining, "stderr").partition(":")[0].removeprefix("code ")
            joining.kill()
        assert dom0("farm", "approve", code, "--as", "nas", "--role", "hello", *inside).code == 0
        early = dom0("farm", "exec", *inside, "nas", "--", "true")
        assert (early.code, early.stderr.splitlines()[0]) == (
            1,
            "dom0: nas: is approved, and has not asked yet what it is to run",
        )
        unknown = dom0("farm", "logs", *inside, "nsa")
        assert (unknown.code, "did you mean nas?" in unknown.stderr) == (2, True)
        server.kill()
        server.wait(20)
    gone = dom0("-H", "nas", "status", env={"DOM0_FARM": str(farm)})
    assert (gone.code, "the server of attic does not run on this machine" in gone.stderr) == (1, True)
    nowhere = dom0("-H", "nas", "status")
    assert (nowhere.code, "DOM0_FARM=DIR dom0 -H NODE" in nowhere.stderr) == (2, True)
    nothing = dom0("farm", "exec", *inside, "nas", "--")
    assert (nothing.code, "COMMAND is missing" in nothing.stderr) == (2, True)


def test_people_pause_roles_and_drain_nodes_while_no_server_runs(
    dom0: RunCommand, environment: dict[str, str], farm: Path, tmp_path: Path
) -> None:
    inside = ("--dir", str(farm))
    assert dom0("farm", "status", *inside).code == 0
    joined = environment | {"DOM0_STATE": str(tmp_path / "n")}
    with started(environment, "serve", *inside, "--json") as server:
        address = json.loads(line(server))["join"]
        with started(joined, "join", address) as joining:
            code = line(joining, "stderr").partition(":")[0].removeprefix("code ")
            assert dom0("farm", "approve", code, "--as", "nas", "--role", "hello", *inside).code == 0
            assert joining.wait(60) == 0
    paused = dom0("farm", "pause", "hello", *inside)
    assert (paused.code, paused.stdout) == (0, "hello: paused\n")
    assert json.loads(dom0("farm", "pause", *inside, "--json").stdout) == {
        "paused": {"hello": "a person has paused it"}
    }
    assert dom0("farm", "drain", "nas", *inside).stdout == "nas: gets nothing any more\n"
    said = json.loads(dom0("farm", "status", *inside, "--json").stdout)
    assert (said["farm"], said["revision"], said["drained"]) == ("attic", 0, ["nas"])
    assert said["paused"] == {"hello": "a person has paused it"}
    assert [(node["name"], node["target"]) for node in said["nodes"]] == [("nas", 0)]
    assert dom0("farm", "undrain", "nas", *inside).stdout == "nas: follows its role\n"
    shown = dom0("farm", "status", *inside)
    assert (shown.code, "next: dom0 farm resume hello" in shown.stdout) == (10, True)
    assert json.loads(dom0("farm", "resume", *inside, "--json").stdout) == {"paused": {}}
    for command, hint in (
        (["pause", "helo"], "hello?"),
        (["drain", "nass"], "nas?"),
        (["unlock", "nas"], "status says"),
    ):
        refused = dom0("farm", *command, *inside)
        assert (refused.code, hint in refused.stderr) == (2, True), refused
    dom0("farm", "drain", "nas", *inside)
    dom0("farm", "remove", "nas", *inside)
    assert json.loads(dom0("farm", "status", *inside, "--json").stdout)["drained"] == []


def test_a_copy_that_was_superseded_changes_nothing_and_says_so(dom0: RunCommand, farm: Path, tmp_path: Path) -> None:
    other = shutil.copytree(farm, tmp_path / "other")
    assert json.loads(dom0("farm", "promote", "--dir", str(other), "--json").stdout) == {"name": "attic", "epoch": 1}
    FarmDirectory(farm).hear_epoch(FarmDirectory(other).epochs().own)
    for command in (["pause"], ["serve"]):
        refused = dom0("farm", *command, "--dir", str(farm))
        assert (refused.code, "another copy of this farm was promoted" in refused.stderr) == (2, True), refused
        assert "dom0 farm promote" in refused.stderr
    said = dom0("farm", "status", "--dir", str(farm)).stdout
    assert "another copy of this farm was promoted: all of this is old\n" in said
    assert json.loads(dom0("farm", "status", "--dir", str(farm), "--json").stdout)["superseded"] is True
    assert dom0("farm", "promote", "--dir", str(farm)).stdout.startswith(
        "attic: this copy is the farm's server, with epoch 2"
    )
    assert json.loads(dom0("farm", "pause", "--dir", str(farm), "--json").stdout)["paused"] != {}


def test_who_watches_sees_every_change(dom0: RunCommand, environment: dict[str, str], farm: Path) -> None:
    with started(environment, "status", "--watch", "--json", "--dir", str(farm)) as watching:
        assert json.loads(line(watching))["paused"] == {}
        dom0("farm", "pause", "hello", "--dir", str(farm))
        assert json.loads(line(watching))["paused"] == {"hello": "a person has paused it"}
        dom0("farm", "resume", "hello", "--dir", str(farm))
        assert json.loads(line(watching))["paused"] == {}
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130


@pytest.mark.parametrize(
    "command", [["serve"], ["nodes"], ["remove", "x"], ["assign", "x", "y"], ["pause"], ["drain", "x"], ["unlock", "x"]]
)
def test_where_no_farm_is_that_is_said(dom0: RunCommand, command: list[str]) -> None:
    refused = dom0("farm", *command)
    assert (refused.code, "no farm is here" in refused.stderr) == (3, True)


def test_a_port_that_is_taken_is_named(dom0: RunCommand, farm: Path) -> None:
    port = int((farm / "farm.yaml").read_text().rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)):
        refused = dom0("farm", "serve", "--dir", str(farm))
    assert refused.code == 6
    assert f"farm.yaml: listen: 127.0.0.1:{port}: Address already in use\n" in refused.stderr


def test_a_server_at_every_address_answers_by_ipv4_too(
    dom0: RunCommand, environment: dict[str, str], farm: Path, tmp_path: Path
) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    port = (farm / "farm.yaml").read_text().strip().rpartition(":")[2]
    (farm / "farm.yaml").write_text(f"name: attic\nlisten: '[::]:{port}'\n")
    with started(environment, "serve", "--dir", str(farm), "--json") as server:
        fingerprint = json.loads(line(server))["join"].rpartition(":")[2]
        for host in ("127.0.0.1", "::1"):
            node = environment | {"DOM0_STATE": str(tmp_path / f"node{len(host)}")}
            with started(node, "join", f"{host}:{port}:{fingerprint}") as joining:
                assert line(joining, "stderr").startswith("code ")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root")
def test_an_address_that_machines_cannot_be_told_is_asked_for(environment: dict[str, str], farm: Path) -> None:
    """The machine has no way out, and a name that is none of a host."""
    (farm / "farm.yaml").write_text("name: attic\n")
    script = 'echo my_host > /proc/sys/kernel/hostname; exec "$@"'
    argv = ["unshare", "--net", "--uts", "sh", "-c", script, "sh", sys.executable, "-m", "dom0", "farm", "serve"]
    refused = subprocess.run(
        [*argv, "--dir", str(farm)], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert refused.returncode == 2
    assert "farm.yaml: listen: 0.0.0.0:7701: machines cannot be told my_host\n" in refused.stderr


def test_a_server_that_is_none_is_refused(dom0: RunCommand) -> None:
    refused = dom0("farm", "join", "192.168.0.2:7701")
    assert (refused.code, "is not HOST:PORT:FINGERPRINT" in refused.stderr) == (2, True)
