"""Hosts for tests: real Docker Engines side by side on this machine, each in namespaces of its own.

Theory of operation: process 1 of a host (host_init.py) holds its pid, mount, network, UTS and IPC namespaces and ends
when we do, by whatever death, because it reads a pipe whose other end only we hold; the kernel then ends everything in
the host. What outlives that, a directory and control groups, carries our name and is swept by the next run (owned.py).
Nothing in the machine's own network namespace changes: no interface, no rule, no sysctl (`bridge-nf-call-iptables`,
`ip_forward` and netfilter's tables are per namespace), so a run stands beside a developer's real Engine.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from dom0.run import CommandFailed, Output
from dom0.testing import api, busybox, loop, owned
from dom0.testing.host_init import TEMPORARY
from dom0.testing.namespaces import Child, Stream, spawn_inside, spawn_isolated
from dom0.testing.outside import NAMESERVER, Outside

T = TypeVar("T")

PATIENCE = 180.0  # seconds; a deadline, not an expectation
PAUSE = 0.05  # seconds between two looks
_PROGRAMS = ("dockerd", "containerd", "docker", "ip", "mount", "iptables", "mke2fs")
_LEADING_ELSEWHERE = ("DOCKER_", "DOM0_", "COMPOSE_", "MAKE", "MFLAGS")  # beginnings of variable names
_ENGINE_DEADLINE = 120.0  # seconds until the Engine answers, about 2 on two idle cores, or has ended
_END_DEADLINE = 90.0  # seconds until killed processes are reaped
CONTAINERD_STORE: Mapping[str, Any] = {"features": {"containerd-snapshotter": True}}
"""daemon.json of an Engine that keeps images as the one of the base OS does."""
OWN_STORE: Mapping[str, Any] = {"features": {"containerd-snapshotter": False}}
_STORES: Mapping[str, Mapping[str, Any]] = {"": {}, "own": OWN_STORE, "containerd": CONTAINERD_STORE}
STORE = "DOM0_TEST_IMAGE_STORE"
"""The variable that says which of them an Engine has whose test asks for neither."""
_numbers = itertools.count()


def missing() -> str:
    """Why this machine cannot run hosts; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    programs = [program for program in _PROGRAMS if shutil.which(program, path=_path()) is None]
    if programs:
        return f"not installed: {', '.join(programs)}"
    return loop.missing() if busybox.BUSYBOX.exists() else f"not installed: {busybox.BUSYBOX} (busybox-static)"


class Switch:
    """A bridge in a network namespace of its own; hosts that are given one reach each other over it as `eth0`."""

    def __init__(self) -> None:
        self.root = owned.run_root() / f"switch{next(_numbers)}"
        self._router: Child | None = None
        self._init = _start_init(self.root, "switch")
        _call(["ip", "link", "add", "switch", "type", "bridge"], inside=self._init.pid)
        _call(["ip", "link", "set", "switch", "up"], inside=self._init.pid)

    def plug(self, pid: int, address: str) -> None:
        """Give the network namespace of process `pid` an `eth0` with `address` (`10.1.0.2/24`)."""
        port = f"port{next(_numbers)}"
        far_end = ["type", "veth", "peer", "name", port, "netns", str(self._init.pid)]
        _call(["ip", "link", "add", "eth0", "netns", str(pid), *far_end])
        _call(["ip", "link", "set", port, "master", "switch", "up"], inside=self._init.pid)
        _call(["ip", "address", "add", address, "dev", "eth0"], inside=pid)
        _call(["ip", "link", "set", "eth0", "up"], inside=pid)

    def tap(self) -> str:
        """The name of one more port, for a virtual machine, which opens it in `network`."""
        port = f"port{next(_numbers)}"
        _call(["ip", "tuntap", "add", port, "mode", "tap"], inside=self._init.pid)
        _call(["ip", "link", "set", port, "master", "switch", "up"], inside=self._init.pid)
        return port

    @property
    def network(self) -> str:
        """The path of its network namespace."""
        return f"/proc/{self._init.pid}/ns/net"

    def give_addresses(self, address: str, leases: Mapping[str, str]) -> None:
        """As the router of a house does, at `address` (`10.1.0.254/24`): to cards with these MACs, and no others."""
        own = address.partition("/")[0]
        _call(["ip", "address", "add", address, "dev", "switch"], inside=self._init.pid)
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file", "--user=root"]
        argv += ["--interface=switch", "--bind-interfaces", "--dhcp-authoritative", f"--dhcp-range={own},static"]
        argv += [f"--dhcp-host={mac},{given}" for mac, given in leases.items()]
        log = (self.root / "router.log").open("wb")
        argv += ["--log-facility=-", f"--dhcp-leasefile={self.root / 'leases'}"]
        self._router = spawn_inside(self._init.pid, argv, stdout=log, stderr=log)
        log.close()

    def stop(self) -> None:
        _end_init(self._init, [self._router] if self._router else ())
        owned.remove_directory(self.root)


class Host:
    """A machine with a Docker Engine that has the image busybox:test.

    Inside: /var/run/docker.sock; own /run, /var/lib/docker and /var/lib/dom0; other writes to /var/lib are dropped with
    the host, so programs have their TMPDIR there; every other directory is the machine's. Outside: the Engine's socket
    is `docker_host`, /var/lib/dom0 is `state`, and `path()` finds any file of the host. Use it as a context manager, or
    call `stop`.
    """

    def __init__(
        self,
        *,
        name: str = "",
        switch: Switch | None = None,
        address: str = "",
        outside: bool = False,
        config: Mapping[str, Any] = {},
    ) -> None:
        """`switch` and `address` connect it with other hosts; `outside` lets it reach what this machine reaches;
        `config` is the Engine's daemon.json, to which DOM0_TEST_IMAGE_STORE adds an image store.
        """
        number = next(_numbers)
        self.name = name or f"host{number}"
        self.root = owned.run_root() / f"host{number}"
        self.socket = self.root / "docker.sock"
        self.docker_host = f"unix://{self.socket}"
        self.cgroup = f"{owned.owner_name()}-host{number}"
        self._children: list[Child] = []
        self._engine: Child | None = None
        self._config = {**_STORES[os.environ.get(STORE, "")], **config}
        self._outside: Outside | None = None
        self._init = _start_init(self.root, self.name)
        try:
            if switch is not None:
                switch.plug(self._init.pid, address)
            if outside:
                self._connect_outside()
            self.start_engine()
            api.import_image(self.socket, busybox.IMAGE, busybox.layer())
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def state(self) -> Path:
        """Its /var/lib/dom0, from outside."""
        return self.path("/var/lib/dom0")

    def path(self, inside: str) -> Path:
        """Where the host's absolute path `inside` is reached from outside, sockets too, while it runs."""
        return Path(f"/proc/{self._init.pid}/root") / inside.lstrip("/")

    @property
    def network(self) -> str:
        """The path of its network namespace."""
        return f"/proc/{self._init.pid}/ns/net"

    def environment(self) -> dict[str, str]:
        """Ours without what leads docker or make elsewhere, and a client state of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_LEADING_ELSEWHERE)}
        return kept | {"PATH": _path(), "DOCKER_CONFIG": str(self.root / "client")}

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 120.0,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Output:
        """Run `argv` inside to its end. `env` adds to its environment. Raises CommandFailed."""
        child = self.popen(
            argv,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
        )
        with child:
            try:
                stdout, stderr = child.communicate(stdin, timeout)
            except subprocess.TimeoutExpired as error:
                child.kill()  # what it started may hold its pipes: do not read on
                stderr = error.stderr or b""
                reason = f"did not end within {timeout:g} s on {self.name}"
                raise CommandFailed(argv, None, stderr.decode(errors="replace"), reason=reason) from error
            finally:
                self._children.remove(child)
        output = Output(child.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
        if check and output.code != 0:
            raise CommandFailed(argv, output.code, output.stdout + output.stderr)
        return output

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start `argv` inside, as a direct child of this process; it ends at the latest with the host."""
        environment = self.environment() | {"TMPDIR": str(TEMPORARY)} | dict(env or {})
        child = spawn_inside(self._init.pid, argv, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, cwd=cwd)
        self._children.append(child)
        return child

    def docker(self, *arguments: str, check: bool = True, timeout: float = 120.0) -> Output:
        return self.run(["docker", *arguments], check=check, timeout=timeout)

    def start_engine(self) -> None:
        """Start the Engine and wait until it answers."""
        assert self._engine is None
        with self.log.open("ab") as log:
            self._engine = self.popen(self._engine_command(), stdout=log, stderr=log)
        self._wait_until_answering()

    def restart_engine(self) -> None:
        """As `systemctl restart docker`: containers are stopped and, as their policies say, started again."""
        self.stop_engine()
        self.start_engine()

    def stop_engine(self) -> None:
        """As a shutdown of the machine: containers are stopped in good order, then the Engine ends."""
        self._end_engine(signal.SIGTERM)

    def kill_engine(self) -> None:
        """As a crash; containers run on until `start_engine` finds them again (and stops them: no live-restore)."""
        self._end_engine(signal.SIGKILL)

    def lose_power(self) -> None:
        """Everything that runs there ends at once; `start_engine` switches it on again."""
        assert self._engine is not None
        self.run(["kill", "-KILL", "--", "-1"])  # all processes that it sees
        self.kill_engine()
        for link in json.loads(self.run(["ip", "-json", "link", "show", "type", "veth"]).stdout):
            if link["ifname"].startswith("veth"):  # a container's; a switch's is the machine's own
                self.run(["ip", "link", "delete", link["ifname"]], check=False)  # gone with its other end

    def kill_unnoticed(self, pid: int) -> None:
        """End process 1 of a container while no containerd looks: the Engine goes on calling it running."""
        containerd = self.run(["pidof", "containerd"], check=False).stdout.split()
        self.run(["kill", "-KILL", *containerd, self._shim_of(pid), str(pid)])

    def lose(self, container_id: str, pid: int) -> None:
        """Let the Engine lose process 1 of a container: it calls it ended, and the process lives on."""
        shutil.rmtree(self.path(f"/run/docker/runtime-runc/moby/{container_id}"))  # what runc would know it by
        self.run(["kill", "-KILL", self._shim_of(pid)])

    def _shim_of(self, pid: int) -> str:
        status = self.path(f"/proc/{pid}/status").read_text()
        return next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))

    @property
    def log(self) -> Path:
        """What the Engine printed."""
        return self.root / "dockerd.log"

    @property
    def engine_is_running(self) -> bool:
        return self._engine is not None and self._engine.poll() is None

    def clean(self, *, keep: dict[str, str]) -> None:
        """Remove its containers, networks, volumes, dom0's state and all images but `keep` (from `api.images`)."""
        if not self.engine_is_running:
            self.start_engine()
        api.remove_containers(self.socket)
        owned.kill_in_cgroup(self.cgroup)  # what the Engine has lost would be in the way of every later test
        api.clean(self.socket, keep=keep)
        for directory in (self.state, self.path("/run/dom0")):
            for entry in directory.iterdir() if directory.is_dir() else ():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def stop(self) -> None:
        """End everything in the host and remove what it left on disk."""
        if self._outside is not None:
            self._outside.stop()
        _end_init(self._init, self._children)
        self._outside = None
        self._children.clear()
        self._engine = None
        owned.remove_cgroup(self.cgroup)
        owned.remove_directory(self.root)

    def _end_engine(self, number: signal.Signals) -> None:
        assert self._engine is not None
        self._engine.send_signal(number)
        self._engine.wait(_ENGINE_DEADLINE)
        self._children.remove(self._engine)
        self._engine = None

    def _engine_command(self) -> list[str]:
        config = self.root / "daemon.json"  # the machine's /etc/docker/daemon.json is not for us
        config.write_text(json.dumps(self._config))
        return [
            "dockerd",
            f"--config-file={config}",
            "--host=unix:///var/run/docker.sock",
            f"--host={self.docker_host}",
            "--data-root=/var/lib/docker",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            "--exec-opt=native.cgroupdriver=cgroupfs",  # no service manager answers in here
            f"--cgroup-parent=/{self.cgroup}",
        ]

    def _connect_outside(self) -> None:
        self._outside = Outside(self._init.pid, self.root / "outside.log")
        (self.root / "resolv.conf").write_text(f"nameserver {NAMESERVER}\n")  # bound over /etc/resolv.conf inside

    def _wait_until_answering(self) -> None:
        deadline = time.monotonic() + _ENGINE_DEADLINE
        while not api.is_answering(self.socket):
            if not self.engine_is_running or time.monotonic() > deadline:
                last = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                raise RuntimeError(f"{self.name}: the Engine does not answer. It printed last:\n{last}")
            time.sleep(0.02)


def switch_on(hosts: Iterable[Host]) -> None:
    """All at once, as when the power is back in a house; until all their Engines answer."""
    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(host.start_engine) for host in hosts]:
            done.result()


def path_with_ssh(directory: Path, host: Host) -> str:
    """A PATH with a program `ssh` that logs in nowhere: what is asked of `box` is done here, with the host's Engine."""
    ssh = directory / "bin" / "ssh"
    ssh.parent.mkdir()
    script = 'while [ "$1" != -- ]; do shift; done; [ "$2" = box ] || exit 255; shift 2; exec sh -c "$*"'
    ssh.write_text(f"#!/bin/sh\nexport DOCKER_HOST={host.docker_host}\n{script}\n")
    ssh.chmod(0o755)
    return f"{ssh.parent}:{os.environ['PATH']}"


def until(condition: Callable[[], T], story: Callable[[], str] = str, *, within: float = PATIENCE) -> T:
    """Look again and again; what is not there yet, or between two starts, counts as no. `story`: if it never is."""
    deadline = time.monotonic() + within
    while True:
        failure: Exception | None = None
        try:
            if found := condition():
                return found
        except (OSError, ValueError, api.EngineRefused, CommandFailed) as error:
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s\n{story()}") from failure
        time.sleep(PAUSE)


def _start_init(root: Path, name: str) -> Child:
    """Process 1 of new namespaces, once it has laid its file system below `root`."""
    root.mkdir(mode=0o755)
    script = Path(__file__).with_name(owned.INIT)
    argv = [sys.executable, "-I", "-S", str(script), str(root), name]
    init = spawn_isolated(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert init.stdout is not None
    if init.stdout.readline() != b"ready\n":
        _end_init(init, ())
        raise RuntimeError(f"{name}: {shlex.join(argv)} failed, its output is above")
    return init


def _end_init(init: Child, children: Sequence[Child]) -> None:
    """The kernel lets process 1 go only when all of its namespace are reaped: our children there first."""
    assert init.stdin is not None
    assert init.stdout is not None
    init.stdin.close()
    for child in children:
        child.wait(_END_DEADLINE)
    init.wait(_END_DEADLINE)
    init.stdout.close()


def _call(argv: Sequence[str], *, inside: int | None = None) -> None:
    """Run `argv` here or in the namespaces of process `inside`. Raises CommandFailed."""
    if inside is None:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    else:
        child = spawn_inside(inside, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with child:
        output, _ = child.communicate(timeout=_END_DEADLINE)
    if child.returncode != 0:
        raise CommandFailed(argv, child.returncode, output.decode(errors="replace"))


def _path() -> str:
    """A plain user's PATH may lack the administrator's programs."""
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
