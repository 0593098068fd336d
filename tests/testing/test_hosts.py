"""The hosts that other tests stand on: apart from each other and from this machine, and gone afterwards."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dom0.run import CommandFailed, Output
from dom0.testing import api, owned
from dom0.testing.hosts import Host, Switch
from dom0.testing.wires import eventually

MakeHost = Callable[..., Host]
LONG = ("sleep", "1000")


def containers(host: Host) -> list[str]:
    return host.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()


def start_sleeper(host: Host, name: str, *options: str) -> None:
    host.docker("run", "--detach", "--init", "--name", name, *options, "busybox:test", *LONG)


def test_a_container_runs_and_the_outside_sees_it_through_docker_host(engine_host: Host) -> None:
    start_sleeper(engine_host, "outside-view")
    seen = subprocess.run(
        ["docker", "--host", engine_host.docker_host, "ps", "--format", "{{.Names}}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert seen.stdout.split() == ["outside-view"]


def test_the_next_test_on_the_same_host_finds_it_as_this_one_did(engine_host: Host) -> None:
    before = api.images(engine_host.socket)
    assert containers(engine_host) == []
    assert "busybox:test" in before
    engine_host.docker("network", "create", "leftover")
    engine_host.docker("volume", "create", "leftover")
    engine_host.docker("tag", "busybox:test", "leftover:1")
    start_sleeper(engine_host, "leftover", "--volume", "/anonymous")
    engine_host.docker("commit", "leftover", "busybox:test")
    api.clean(engine_host.socket, keep=before)
    assert api.images(engine_host.socket) == before
    assert containers(engine_host) == []
    assert engine_host.docker("volume", "ls", "--quiet").stdout == ""
    assert "leftover" not in engine_host.docker("network", "ls").stdout


def test_a_clean_host_has_no_process_that_its_engine_has_lost(engine_host: Host) -> None:
    start_sleeper(engine_host, "lost")
    lost = api.request(engine_host.socket, "GET", "/containers/lost/json")
    engine_host.lose(lost["Id"], lost["State"]["Pid"])
    process = engine_host.path(f"/proc/{lost['State']['Pid']}")
    eventually(lambda: engine_host.docker("ps", "--quiet").stdout == "")
    assert process.exists()
    engine_host.clean(keep=api.images(engine_host.socket))
    eventually(lambda: not process.exists())
    assert containers(engine_host) == []


def test_a_container_that_is_on_its_way_out_hinders_no_cleaning(engine_host: Host) -> None:
    start_sleeper(engine_host, "slow")
    state = api.request(engine_host.socket, "GET", "/containers/slow/json")["State"]
    holder = engine_host.popen(["nsenter", "--target", str(state["Pid"]), "--pid", "sleep", "777"])
    eventually(lambda: "\nsleep 777" in engine_host.run(["ps", "-eo", "args"]).stdout)
    holder.send_signal(signal.SIGSTOP)  # the kernel lets a process 1 go when all below it are reaped
    remove = partial(api.request, engine_host.socket, "DELETE", "/containers/slow", query={"force": "1"})
    with pytest.raises(TimeoutError):
        remove(timeout=1.0)
    with pytest.raises(api.EngineRefused, match="already in progress"):
        remove()
    threading.Timer(0.5, holder.send_signal, [signal.SIGCONT]).start()
    engine_host.clean(keep=api.images(engine_host.socket))
    assert containers(engine_host) == []
    holder.wait(60)


def test_two_hosts_share_neither_containers_nor_ports_nor_state(engine_host: Host, fresh_host: MakeHost) -> None:
    other = fresh_host()
    for host in (engine_host, other):
        start_sleeper(host, "same-name", "--publish", "8080:80")
        host.run(["touch", f"/var/lib/dom0/{host.name}", f"/run/{host.name}"])
    assert containers(engine_host) == containers(other) == ["same-name"]
    assert engine_host.name not in other.run(["ls", "/var/lib/dom0", "/run"]).stdout
    assert (other.state / other.name).exists()
    assert other.path(f"/run/{other.name}").exists()


def test_a_privileged_container_in_the_hosts_namespaces_sees_only_the_host(engine_host: Host) -> None:
    inside = ("sh", "-c", "ps; ip -o link; hostname")
    seen = engine_host.docker(
        *("run", "--rm", "--init", "--privileged", "--pid", "host", "--network", "host", "--uts", "host"),
        *("busybox:test", *inside),
    ).stdout
    assert "dockerd" in seen
    assert f"pid {os.getpid()}" not in seen
    assert engine_host.name in seen
    assert len([line for line in seen.splitlines() if " docker0" in line]) == 1


def test_what_is_written_below_var_lib_does_not_reach_this_machine(engine_host: Host) -> None:
    engine_host.run(["touch", "/var/lib/dom0-test-file"])
    assert not Path("/var/lib/dom0-test-file").exists()


def test_what_programs_leave_in_their_temporary_directory_does_not_reach_this_machine(engine_host: Host) -> None:
    """Nor does what buildx leaves for each Dockerfile that it read from standard input."""
    left = Path(engine_host.run(["mktemp"]).stdout.strip())
    assert engine_host.path(str(left)).exists()
    assert not left.exists()


def test_a_published_port_answers_on_loopback_inside_and_not_outside(engine_host: Host) -> None:
    with socket.socket() as held:  # bound here, so that nobody else of this machine listens there
        held.bind(("127.0.0.1", 0))
        port = str(held.getsockname()[1])
        serve(engine_host, port)
        url = f"http://127.0.0.1:{port}/passwd"
        answer = fetch(lambda url: engine_host.run(["busybox", "wget", "-q", "-O-", url]), url)
        assert answer.startswith("root:")
        outside = subprocess.run(["busybox", "nc", "-w", "1", "127.0.0.1", port], check=False, capture_output=True)
        assert outside.returncode != 0


def serve(host: Host, port: str) -> None:
    """A web server that shows its /etc on `port` of the host."""
    host.docker("run", "--detach", "--init", "--publish", f"{port}:80", "busybox:test", "httpd", "-f", "-h", "/etc")


def fetch(get: Callable[[str], Output], url: str) -> str:
    """The answer, as soon as there is one: the server has to open its port first."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return get(url).stdout
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_container_that_should_always_run_is_back_after_the_engine_restarts(engine_host: Host) -> None:
    start_sleeper(engine_host, "always", "--restart", "always")
    start_sleeper(engine_host, "once")
    engine_host.restart_engine()
    running = engine_host.docker("ps", "--format", "{{.Names}}").stdout.split()
    assert running == ["always"]


def test_a_killed_engine_does_not_answer_and_starts_again(engine_host: Host) -> None:
    start_sleeper(engine_host, "always", "--restart", "always")
    engine_host.kill_engine()
    assert not api.is_answering(engine_host.socket)
    engine_host.start_engine()
    assert containers(engine_host) == ["always"]


def test_nothing_that_ran_on_a_host_outlives_its_power(engine_host: Host) -> None:
    start_sleeper(engine_host, "on")
    beside = engine_host.popen(LONG)
    engine_host.lose_power()
    assert beside.wait(30) == -signal.SIGKILL
    assert engine_host.run(["pidof", "sleep", "dockerd", "containerd"], check=False).stdout == ""
    engine_host.start_engine()
    assert engine_host.docker("ps", "--quiet").stdout == ""


def test_a_command_that_fails_or_hangs_is_reported_with_its_output(engine_host: Host) -> None:
    with pytest.raises(CommandFailed, match="exit code 3\nbecause"):
        engine_host.run(["sh", "-c", "echo because >&2; exit 3"])
    with pytest.raises(CommandFailed, match="did not end within"):
        engine_host.run(["sleep", "1000"], timeout=0.2)


def test_a_signal_to_a_child_reaches_the_command_itself(engine_host: Host) -> None:
    child = engine_host.popen(["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"], stdout=-1)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 7
    child.stdout.close()


def test_hosts_on_a_switch_reach_each_other_by_their_addresses(fresh_host: MakeHost) -> None:
    switch = Switch()
    try:
        provider = fresh_host(switch=switch, address="10.177.0.1/24")
        consumer = fresh_host(switch=switch, address="10.177.0.2/24")
        serve(provider, "80")
        wget = ("run", "--rm", "busybox:test", "wget", "-q", "-O-")
        answer = fetch(lambda url: consumer.docker(*wget, url), "http://10.177.0.1/passwd")
        assert answer.startswith("root:")
    finally:
        provider.stop()
        consumer.stop()
        switch.stop()


def test_nothing_of_a_stopped_host_is_left(fresh_host: MakeHost) -> None:
    host = fresh_host()
    start_sleeper(host, "sleeper")
    host.docker("network", "create", "net")
    host.stop()
    assert not host.root.exists()
    groups = (name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names)  # those of others come and go
    assert [name for name in groups if name.startswith(host.cgroup)] == []


CHILD = """
from dom0.testing.hosts import Host
from dom0.testing import owned
host = Host()
for name in ("orphan", "paused"):
    host.docker("run", "--detach", "--init", "--privileged", "--name", name, "busybox:test", "sleep", "1000")
host.docker("pause", "paused")
print(owned.owner_name(), flush=True)
input()
"""


def first_line(child: subprocess.Popen[str], seconds: float) -> str:
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], seconds)
    assert ready, f"nothing printed within {seconds} s"
    return child.stdout.readline().strip()


@pytest.fixture
def running_owner(engines_possible: None) -> subprocess.Popen[str]:
    """A process that made a host with a container and a paused one, and waits."""
    return subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_run_killed_with_all_its_hosts_is_swept_and_a_living_one_is_not(
    running_owner: subprocess.Popen[str], engine_host: Host
) -> None:
    with running_owner as owner:
        name = first_line(owner, 180)
        assert name not in owned.sweep()
        assert (owned.BASE / name).is_dir()
        owner.kill()
    swept = owned.sweep()
    assert name in swept
    assert name not in owned.leftovers()
    assert owned.owner_name() not in swept
    assert api.is_answering(engine_host.socket)


def test_the_sweep_ends_a_host_whose_first_process_hangs(running_owner: subprocess.Popen[str]) -> None:
    with running_owner as owner:
        name = first_line(owner, 180)
        (init, *_) = owned.processes(name)
        os.kill(init, signal.SIGSTOP)
        owner.kill()
    assert name in owned.sweep()
    assert name not in owned.leftovers()
    assert owned.processes(name) == []
