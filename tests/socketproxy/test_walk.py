"""A walk through the docker command and docker compose: each command on the Engine's socket and on a scoped one, in
turn, with what it said and how it ended.

In front of a command stands what is compared: `=` its output and exit code, `~` the exit code, because the output is of
the host or by chance; `!` says that a scope is refused what the Engine gives.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dom0.testing import scopes
from dom0.testing.hosts import Host

pytestmark = pytest.mark.engine
SLEEPS = "busybox:test sh -c 'echo started; touch /started; exec sleep 1000'"
COMMANDS = """
~ version
= version --format {{.Server.Version}}
~ info
= info --format {{.OSType}}-{{.Architecture}}-{{.NCPU}}
= images --format {{.Repository}}:{{.Tag}}
= image ls --quiet --filter reference=busybox
= image inspect busybox:test --format {{.Id}}
~ image inspect nothing:1
= history busybox:test --format {{.Size}}
= plugin ls
~ node ls
~ service ls
~ secret ls
= network create front
= network create --label a=b --internal back
= network create front
= network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'
= network ls --filter label=a --format {{.Name}}
= network inspect front --format '{{.Name}} {{.Driver}} {{len .Containers}} {{json .Labels}}'
= network inspect nothing
= volume create data
= volume create --label a=b more
= volume create
= volume ls --format {{.Name}}
= volume ls --filter dangling=true --filter name=data --format {{.Name}}
= volume inspect data --format '{{.Name}} {{.Driver}} {{.Scope}}'
= volume inspect more --format '{{json .Labels}}'
= volume inspect nothing
= run --rm busybox:test echo hello
= run --rm -i busybox:test cat
= run --rm busybox:test sh -c 'echo out; echo err >&2; exit 7'
~ run --rm busybox:test nothing-there
= run -d --init --name web --network front --network-alias www -v data:/data -e A=b -l tier=front -h host1 SLEEPS
= run --name web busybox:test true
= ps --format '{{.Names}} {{.Image}} {{.State}} {{.Networks}} {{.Mounts}} {{.Labels}}'
= ps -q --filter name=web
= ps --filter name=^/web$ --format {{.Names}}
= ps --filter label=tier=front --format {{.Names}}
= ps --filter network=front --format {{.Names}}
= ps --filter volume=data --format {{.Names}}
= ps --filter ancestor=busybox:test --format {{.Names}}
= ps --filter status=exited --format {{.Names}}
= inspect web --format '{{.Name}} {{.Config.Hostname}} {{json .Config.Env}} {{json .HostConfig.Binds}}'
= inspect web --format '{{json .Config.Labels}} {{.HostConfig.NetworkMode}} {{json .HostConfig.Mounts}}'
= inspect web --format '{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{json $v.Aliases}}{{end}}'
= inspect web --format '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}'
~ inspect --size web --format {{.SizeRw}}
= inspect nothing
= logs nothing
= exec web hostname
= exec web sh -c 'until [ -e /started ]; do sleep 0.1; done'
= exec -i web cat
= exec web sh -c 'exit 3'
= exec -e X=y -w / -u nobody web sh -c 'id -un; pwd; echo $X'
= exec nothing true
~ exec web nothing-there
= exec web touch /tmp/new
= top web -o args
= stats --no-stream --format {{.Name}} web
= port web
= diff web
= exec -d web true
~ cp web:/tmp/new -
= logs web
= logs --tail 1 --timestamps web
= cp FILE web:/tmp/copied
= exec web cat /tmp/copied
~ cp web:/nothing -
= rename web www
= ps --format {{.Names}}
= rename www web
= pause web
= ps --format '{{.Names}} {{.State}}'
= unpause web
= update --memory 64m --memory-swap 64m web
= inspect web --format '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}'
= network connect --alias behind back web
= network inspect back --format '{{range .Containers}}{{.Name}}{{end}}'
= network connect back web
= network disconnect back web
= network rm front
= volume rm data
= run --rm --network container:web busybox:test hostname
= run --rm --network none busybox:test ls /sys/class/net
= run --rm --network front busybox:test sh -c 'ping -c 1 -W 9 www >/dev/null && echo reached'
~ run --rm --network nothing busybox:test true
= run --rm --volumes-from web busybox:test ls -d /data
= run --rm --volumes-from nothing busybox:test true
= run --rm --pid container:web busybox:test sh -c 'ps -o args | grep -q "sleep 1000" && echo seen'
= run --rm -v /anonymous busybox:test ls -d /anonymous
= run --rm --mount type=volume,source=more,target=/m,readonly busybox:test touch /m/x
= run --rm --tmpfs /t:size=1m busybox:test grep ' /t ' /proc/mounts
= run --rm --read-only busybox:test touch /x
= run --rm --ulimit nofile=64 busybox:test sh -c 'ulimit -n'
= run --rm --cap-drop ALL --user 1000 busybox:test id -u
= run --rm --security-opt no-new-privileges busybox:test grep NoNewPrivs /proc/self/status
= run --rm --sysctl net.ipv4.ip_forward=1 busybox:test cat /proc/sys/net/ipv4/ip_forward
= run --rm --add-host there:10.1.2.3 --dns 10.9.9.9 busybox:test sh -c 'grep there /etc/hosts'
= run -d --init --name alone --log-driver local busybox:test sleep 1000
= run --rm --name asks --link alone:other busybox:test sh -c 'ping -c 1 -W 9 other >/dev/null && echo $OTHER_NAME'
= restart -t 0 web
= kill --signal KILL web
= wait web
= start web
= stop -t 0 web
= ps -a --format '{{.Names}} {{.State}}'
= create --name made --restart on-failure:3 busybox:test sh -c 'exit 4'
= inspect made --format '{{json .HostConfig.RestartPolicy}}'
= start -a web --detach-keys ctrl-x,x --no-such-flag
= rm alone
= rm -f alone made nothing
= rm -v web
~ export nothing
= container prune -f
= volume prune -f
= volume ls --format {{.Name}}
= network prune -f
= network ls --format {{.Name}}
! run --rm --privileged busybox:test true
! run --rm --pid host busybox:test true
! run --rm --network host busybox:test true
! run --rm --uts host busybox:test true
! run --rm --ipc host busybox:test true
! run --rm --cgroupns host busybox:test true
! run --rm --cap-add SYS_ADMIN busybox:test true
! run --rm --device /dev/null busybox:test true
! run --rm --security-opt seccomp=unconfined busybox:test true
! run --rm -v /etc:/e busybox:test true
! run --rm -P --expose 80 busybox:test true
! create --name published -p 18181:80 busybox:test true
! network create --opt com.docker.network.bridge.name=other1 other
! network create --subnet 10.77.0.0/24 subnet
! volume create -o type=tmpfs -o device=tmpfs options
~ tag busybox:test mine:1
~ rmi mine:1
~ save -o SAVED busybox:test
~ image prune -f
! system df
"""
GRANTS = "{images: {use: [busybox]}, networks: 6}"
CHANGING = (
    (r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "ID"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z?", "TIME"),
    (r"\b[0-9.]+[kMG]?B\b", "SIZE"),
    (r"unix://\S+", "SOCKET"),
    (r"\x1b\[2K", ""),  # Compose clears the line apart from writing it: those of two containers mix
)


class Said(NamedTuple):
    code: int
    text: str


class Step(NamedTuple):
    mark: str
    command: str
    raw: Said
    scoped: Said


def say(host: Host, socket: Path, command: str) -> Said:
    ended = scopes.docker(host, socket, *shlex.split(command), stdin="typed\n", check=False)
    text = ended.stdout + ended.stderr
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text)
    return Said(ended.returncode, "\n".join(sorted(text.splitlines())))


@pytest.fixture
def sockets(engine_host: Host, fresh_host: Callable[[], Host], tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """That of an Engine, and a scoped one of another."""
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield fresh_host().socket, path


def test_the_docker_command(engine_host: Host, sockets: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("copied\n")
    steps = []
    with ThreadPoolExecutor(2) as threads:
        for line in COMMANDS.strip().splitlines():
            mark, _, command = line.partition(" ")
            both = [
                command.replace("SLEEPS", SLEEPS)
                .replace("FILE", str(tmp_path / "file"))
                .replace("SAVED", str(tmp_path / f"saved{number}"))
                for number in range(2)
            ]
            raw, scoped = threads.map(lambda socket, asked: say(engine_host, socket, asked), sockets, both)
            steps.append(Step(mark, command, raw, scoped))
    assert len(steps) > 110
    others = [step for step in steps if not _is_as_expected(step)]
    assert not others, "\n\n".join(f"{s.mark} {s.command}\n  raw:    {s.raw}\n  scoped: {s.scoped}" for s in others)


def _is_as_expected(step: Step) -> bool:
    if step.mark == "!":
        return step.raw.code == 0 and step.scoped.code != 0 and "not " in step.scoped.text
    return step.raw == step.scoped if step.mark == "=" else step.raw.code == step.scoped.code


def service(*command: str, **more: Any) -> dict[str, Any]:
    return {"image": "busybox:test", "init": True, "command": command or ("sleep", "1000"), **more}


SAYS = ("sh", "-c", "echo up; exec sleep 1000")
READY = {"test": ["CMD", "test", "-e", "/ready"], "interval": "200ms"}
PROJECTS: dict[str, dict[str, Any]] = {
    "one": {"services": {"web": service(*SAYS)}},
    "healthy": {
        "services": {
            "db": service("sh", "-c", "touch /ready; exec sleep 1000", healthcheck=READY),
            "web": service(*SAYS, depends_on={"db": {"condition": "service_healthy"}}),
        }
    },
    "finished": {
        "services": {
            "setup": service("sh", "-c", "echo done >/data/setup", volumes=["data:/data"]),
            "web": service(
                *("sh", "-c", "cat /data/setup; exec sleep 1000"),
                volumes=["data:/data"],
                depends_on={"setup": {"condition": "service_completed_successfully"}},
            ),
        },
        "volumes": {"data": {}},
    },
    "networks": {
        "services": {
            "db": service(networks={"back": {"aliases": ["store"]}}),
            "web": service(networks=["back", "front"]),
        },
        "networks": {"back": {"internal": True}, "front": {}},
    },
    "shared": {
        "services": {
            "web": service(
                "sh", "-c", "hostname >/shared/name; exec sleep 1000", volumes=["/shared"], hostname="host1"
            ),
            "beside": service(network_mode="service:web", pid="service:web", volumes_from=["web:ro"]),
        }
    },
    "scaled": {"services": {"web": service(*SAYS, deploy={"replicas": 3})}},
    "strict": {
        "services": {
            "web": service(
                *SAYS,
                read_only=True,
                user="1000",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                tmpfs=["/t"],
                ulimits={"nofile": 128},
                mem_limit="32m",
                restart="unless-stopped",
                logging={"driver": "json-file", "options": {"max-size": "1m"}},
            )
        }
    },
    "configs": {
        "services": {
            "web": service("sh", "-c", "cat /told; exec sleep 1000", configs=[{"source": "told", "target": "/told"}])
        },
        "configs": {"told": {"content": "a config"}},
    },
    "links": {"services": {"db": service(), "web": service(links=["db:store"], environment={"A": "b"}, expose=["80"])}},
    "anonymous": {
        "services": {"web": service(volumes=["/data", {"type": "tmpfs", "target": "/t"}], labels={"a": "b"})}
    },
}
REACHED = {"healthy": "db", "networks": "db store", "links": "store"}
LINES = {"one": 1, "healthy": 1, "finished": 1, "scaled": 3, "strict": 1}  # at least, that they print
LOGS = "logs --no-log-prefix"
ASKED = (
    "up --detach",
    "ps --all --format '{{.Service}} {{.Name}} {{.State}} {{.Health}}'",
    LOGS,
    "exec -T web sh -c 'ls / | sort; env | grep ^A=; for n in REACHES; do ping -c 1 $n >/dev/null; echo $?; done'",
    "down --volumes --timeout 0",
)


def test_docker_compose(engine_host: Host, sockets: tuple[Path, Path], tmp_path: Path) -> None:
    def lived(socket: Path, name: str) -> list[Said]:
        file = f"--file {tmp_path / name}.json"
        said = []
        for asked in ASKED:
            command = f"compose {file} {asked.replace('REACHES', REACHED.get(name, 'localhost'))}"
            said.append(say(engine_host, socket, command))
            deadline = time.monotonic() + 60
            while asked == LOGS and len(said[-1].text.splitlines()) < LINES.get(name, 0):
                assert time.monotonic() < deadline, said
                said[-1] = say(engine_host, socket, command)
        return said

    for name, project in PROJECTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, **project}))
    with ThreadPoolExecutor(4) as threads:
        raw = threads.map(lambda name: lived(sockets[0], name), PROJECTS)
        scoped = threads.map(lambda name: lived(sockets[1], name), PROJECTS)
    for name, here, there in zip(PROJECTS, raw, scoped, strict=True):
        for asked, one, other in zip(ASKED, here, there, strict=True):
            compared = asked.partition(" ")[0] not in ("up", "down")  # they say how long each step took
            assert (one if compared else one.code) == (other if compared else other.code), (name, asked, one, other)
            assert one.code == 0, (name, asked, one)
