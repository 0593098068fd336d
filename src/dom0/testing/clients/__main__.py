"""Each program on the Engine's socket and on that of a scope, what it said beside each other.

    .venv/bin/python -m dom0.testing.clients

It ends with 1 where a step that is not marked `!` (refused by design) ends otherwise. The libraries are installed into
`.cache/clients` at their newest releases of when this was written.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from dom0.testing import api, busybox, owned, scopes
from dom0.testing.hosts import Host

LIBRARIES = ("python-on-whales==0.81.0", "testcontainers==4.15.0", "docker==7.2.0", "aiodocker==0.27.0")
ENVIRONMENT = Path(".cache/clients")
PROGRAMS = ("whales", "with_testcontainers", "with_docker_py", "with_aiodocker")
GRANTS = '{images: {use: [busybox, testcontainers/ryuk], build: true}, ports: ["0"]}'
RYUK = "testcontainers/ryuk:0.8.1"
PATIENCE = 60.0  # seconds, until the reaper has ended what was left
REAPER = r"""#!/bin/sh
# What ryuk does, as its clients see it: filters come by TCP, a line each, and when the client has gone all that they
# match is removed.
if [ "$1" = listen ]; then
    while read -r filter; do echo ACK; echo "$filter" | tr -d '\r' >>/filters; done
    exit
fi
echo "$(date) Started!"
nc -l -p 8080 -e /bin/reaper listen
while read -r filter; do
    ids=$(docker ps --all --quiet --filter "$filter"); [ -z "$ids" ] || docker rm --force --volumes $ids
    ids=$(docker network ls --quiet --filter "$filter"); [ -z "$ids" ] || docker network rm $ids
    ids=$(docker volume ls --quiet --filter "$filter"); [ -z "$ids" ] || docker volume rm $ids
done </filters
"""


class Said(NamedTuple):
    step: str
    outcome: str


def main() -> int:
    python = _environment()
    owned.sweep()
    others = 0
    for program in PROGRAMS:
        raw, scoped = _both(python, program)
        if [one.step for one in raw] != [one.step for one in scoped]:
            print(f"{program}: ended early: {raw[-1:]} {scoped[-1:]}")  # noqa: T201 -- a program
            others += 1
        for one, other in zip(raw, scoped, strict=False):
            is_expected = one.outcome != other.outcome if one.step.startswith("!") else one.outcome == other.outcome
            others += not is_expected
            mark = "    " if is_expected else ">>> "
            print(f"{mark}{program}: {one.step}\n      raw:    {one.outcome}\n      scoped: {other.outcome}")  # noqa: T201
    print(f"{others} steps ended otherwise")  # noqa: T201
    return 1 if others else 0


def _environment() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *LIBRARIES], check=True)
    return python.absolute()


def _both(python: Path, program: str) -> tuple[list[Said], list[Said]]:
    with Host() as host:
        _import_reaper(host)
        kept = api.images(host.socket)
        raw = _run(host, python, program, "/var/run/docker.sock")
        host.clean(keep=kept)
        with tempfile.TemporaryDirectory() as directory, scopes.served(host, Path(directory), GRANTS) as path:
            return raw, _run(host, python, program, str(path))


def _run(host: Host, python: Path, program: str, socket: str) -> list[Said]:
    environment = {
        "DOCKER_HOST": f"unix://{socket}",
        "DOCKER_BUILDKIT": "0",
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": "/var/run/docker.sock",
        "RYUK_RECONNECTION_TIMEOUT": "1s",
    }
    argv = [str(python), str(Path(__file__).with_name(f"{program}.py"))]
    output = host.run(argv, env=environment, timeout=600, check=False)
    said = [Said(*line.split("\t", 1)) for line in output.stdout.splitlines() if "\t" in line]
    if output.code != 0:
        said.append(Said("the end", output.stderr[-500:]))
    return [*said, Said("what is left of it", _left(host))]


def _left(host: Host) -> str:
    """Of its containers, once none is left or long after."""
    deadline = time.monotonic() + PATIENCE
    while rows := api.request(host.socket, "GET", "/containers/json", query={"all": "1"}):
        if time.monotonic() > deadline:
            return str([row["Names"] for row in rows])
        time.sleep(0.1)
    return "nothing"


def _import_reaper(host: Host) -> None:
    """An image with the docker command, and the name of the reaper that testcontainers starts."""
    layer = io.BytesIO(busybox.layer())
    with tarfile.open(fileobj=layer, mode="a") as tar:
        for path in ("/usr/bin/docker", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"):
            tar.add(Path(path).resolve(), path.removeprefix("/usr").lstrip("/"))
        script = tarfile.TarInfo("bin/reaper")
        script.size, script.mode = len(REAPER.encode()), 0o755
        tar.addfile(script, io.BytesIO(REAPER.encode()))
    repository, _, tag = RYUK.partition(":")
    query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": 'CMD ["/bin/reaper"]'}
    api.request(host.socket, "POST", "/images/create", layer.getvalue(), query=query)


if __name__ == "__main__":
    sys.exit(main())
