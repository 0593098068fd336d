"""The checks of `dom0 doctor`: each looks at one thing and returns a finding. Nothing here changes anything."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from dom0 import __version__, times
from dom0.cli.client import Agent
from dom0.cli.engine_client import connected
from dom0.cli.places import agent_socket, is_here
from dom0.compose import parser
from dom0.engine.protocol import find_image
from dom0.engine.values import EngineInfo
from dom0.errors import Dom0Error, EngineError
from dom0.images import fetched, recipe
from dom0.names import BASE_IMAGE, CGROUPS, MIRROR
from dom0.package_data import PACKAGE
from dom0.plan.labels import COMPOSE, compose_version
from dom0.registry.web import is_loopback
from dom0.run import CommandFailed, capture

OLDEST_BUILDX = {(0, 0): (0, 11), (2, 40): (0, 17)}
"""By the oldest Compose that wants it: from 2.40 on `docker compose build` refuses older ones."""
NEEDED_MEMORY = 512 << 20  # bytes
NEEDED_DISK = 4 << 30  # bytes: the image chain twice, while a new one is built
SSH_PORT = 2222  # the default of x-dom0.ssh.port


class CheckVerdict(StrEnum):
    OK = "ok"
    WARNING = "warning"  # works, or is needed by some commands only
    MISSING = "missing"


class CheckResult(msgspec.Struct, frozen=True):
    check: str
    verdict: CheckVerdict
    found: str
    hint: str = ""  # the command or edit that mends it


OK, WARNING, MISSING = CheckVerdict.OK, CheckVerdict.WARNING, CheckVerdict.MISSING


async def examine() -> list[CheckResult]:
    """Make all checks, in the order in which a person would mend them."""
    asked = (["docker", "--version"], ["docker", "compose", "version"], ["docker", "buildx", "version"])
    docker, compose, buildx = await asyncio.gather(*map(_version, asked))
    no_docker = CheckResult("docker", MISSING, "not on PATH", "apt-get install docker-cli")
    commands = [
        CheckResult("dom0 command", OK, f"{__version__}, in {PACKAGE.parent}{_installed_by()}"),
        CheckResult("docker", OK, docker) if docker else no_docker,
        _plugin("docker compose", compose, parser.OLDEST),
    ]
    if recipe.BAKED.exists():  # a login or the root container: the image brings its packages
        found = "seen from inside dom0; dom0 doctor on the host itself looks at more"
        return [*commands, *await _engine(compose, disk=False), _agent(), CheckResult("host", OK, found)]
    oldest = max(oldest for since, oldest in OLDEST_BUILDX.items() if since <= read_version(compose))
    commands += [
        _plugin("docker buildx", buildx, oldest),
        _program("mmdebstrap", "dom0 build makes the first image from Debian packages with it"),
        _pip(),
        _program("restic", "backups of the home and of volumes take it from this host"),
    ]
    if not is_here():
        return [*commands, *await _engine(compose, disk=False), _agent()]
    return [*commands, *await _engine(compose), _cgroups(), _ssh_port(), _clock(), _launcher(), _agent()]


def _installed_by() -> str:
    """As whoever has installed it says: pip, uv, or dpkg."""
    try:
        installer = metadata.distribution("dom0").read_text("INSTALLER")
    except metadata.PackageNotFoundError:  # in an image
        installer = None
    return f", installed by {installer.strip()}" if installer else ""


def _plugin(name: str, found: str, oldest: tuple[int, int]) -> CheckResult:
    install = f"apt-get install {name.replace(' ', '-')}"
    if not found:
        return CheckResult(name, MISSING, "not installed", install)
    if read_version(found) < oldest:
        wanted = ".".join(map(str, oldest))
        return CheckResult(name, MISSING, f"{found}, older than {wanted}", install)
    return CheckResult(name, OK, found)


def _program(name: str, purpose: str) -> CheckResult:
    if shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is None:
        return CheckResult(name, WARNING, f"not installed; {purpose}", f"apt-get install {name}")
    return CheckResult(name, OK, "installed")


def _pip() -> CheckResult:
    if fetched.lacks_pip():
        found = "not beside this dom0; dom0 build fetches Python packages of the first image with it"
        return CheckResult("pip", WARNING, found, fetched.ADD_PIP)
    return CheckResult("pip", OK, "installed")


async def _version(argv: list[str]) -> str:
    """As it prints it, "" where it is not here."""
    try:
        return (await capture(argv, timeout=20)).stdout.strip().splitlines()[0]
    except (CommandFailed, IndexError):
        return ""


def read_version(text: str) -> tuple[int, int]:
    """The first `MAJOR.MINOR` in `text`; (0, 0) if there is none."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


async def _engine(compose: str, *, disk: bool = True) -> list[CheckResult]:
    """`compose`: what the Docker Compose of this host says that it is."""
    try:
        async with connected() as engine:
            info, base = await engine.info(), await find_image(engine, BASE_IMAGE)
    except EngineError as error:
        hint = error.hint or "systemctl start docker; or apt-get install docker.io"
        return [CheckResult("Docker Engine", MISSING, error.message, hint)]
    answers = f"{info.version}, API {info.api_version}, storage {info.storage_driver}, {info.operating_system}"
    found = [CheckResult("Docker Engine", OK, answers), _memory(info)]
    if base and COMPOSE in base.labels:
        theirs = base.labels[COMPOSE]
        if compose_version(theirs) not in compose:
            theirs += ", another one than here; dom0 build refuses what the two do not read alike"
        found.append(CheckResult("docker compose in dom0-base", OK, theirs))
    return [*found, mirror(info), _disk(info)] if disk else found


def mirror(info: EngineInfo) -> CheckResult:
    """Of docker.io on this machine, for what the Engine pulls itself."""
    own = [url for url in info.mirrors if is_loopback(urlsplit(url).netloc)]
    if not own:
        found = "none on this machine: docker pull and builds begin again where the line breaks"
        line = f'"registry-mirrors": ["http://{MIRROR}"]'
        hint = f"in /etc/docker/daemon.json: {line}; dom0 is that mirror where it runs, else dom0 image serve --mirror"
        return CheckResult("mirror", OK, found, hint)
    address = urlsplit(own[0])
    try:
        socket.create_connection((address.hostname or "", address.port or 80), timeout=2).close()
    except OSError as error:
        found = f"{own[0]}: {error.strerror or error}: the Engine asks docker.io itself"
        return CheckResult("mirror", WARNING, found, "dom0 up; or dom0 image serve --mirror")
    return CheckResult("mirror", OK, own[0])


def _memory(info: EngineInfo) -> CheckResult:
    found = f"{info.memory >> 20} MiB, {info.cpus} cores"
    if info.memory < NEEDED_MEMORY:
        return CheckResult(
            "memory", WARNING, f"{found}; dom0 and an image build want {NEEDED_MEMORY >> 20} MiB", "add memory or swap"
        )
    return CheckResult("memory", OK, found)


def _disk(info: EngineInfo) -> CheckResult:
    root = Path(info.root_dir)
    try:
        free = shutil.disk_usage(root).free
    except OSError as error:
        return CheckResult("disk", WARNING, f"{root}: {error.strerror}", "ask as root")
    found = f"{root}: {free >> 20} MiB free"
    if free < NEEDED_DISK:
        return CheckResult(
            "disk", WARNING, f"{found}; building wants {NEEDED_DISK >> 20} MiB", "docker system df; docker image prune"
        )
    return CheckResult("disk", OK, found)


def _cgroups() -> CheckResult:
    root = Path(CGROUPS)
    if (root / "cgroup.controllers").exists():
        controllers = (root / "cgroup.controllers").read_text().split()
        version, absent = "2", {"memory", "cpu", "pids"} - set(controllers)
    else:
        version, absent = "1", {name for name in ("memory", "cpu", "pids") if not (root / name).is_dir()}
    if absent:
        return CheckResult(
            "cgroups",
            WARNING,
            f"version {version} without {', '.join(sorted(absent))}: those limits do not hold",
            "boot with cgroup_enable=memory, or mount the cgroup file system",
        )
    return CheckResult("cgroups", OK, f"version {version}")


def _ssh_port() -> CheckResult:
    """Taken by sshd of this dom0, or by something else? Only the second is a finding, and only a login shows which."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", SSH_PORT))
        except OSError as error:
            if agent_socket().exists():
                return CheckResult("ssh port", OK, f"{SSH_PORT} in use, dom0 runs")
            return CheckResult(
                "ssh port",
                WARNING,
                f"{SSH_PORT}: {error.strerror}",
                f"see who has it: ss -ltnp sport = :{SSH_PORT}; or choose another x-dom0.ssh.port",
            )
    return CheckResult("ssh port", OK, f"{SSH_PORT} is free")


def _clock() -> CheckResult:
    """A clock before the day this program was installed is wrong: certificates and package lists will be refused."""
    installed = Path(__file__).stat().st_mtime
    now = f"{times.moment(time.time())} {time.strftime('%Z')}"
    if time.time() < installed:
        return CheckResult("clock", WARNING, f"{now} is before this program was installed", "set it")
    return CheckResult("clock", OK, now)


def _launcher() -> CheckResult:
    if Path("/usr/lib/dom0/launch").exists():
        return CheckResult("launcher", OK, "installed; what it started: /run/dom0/os/launcher")
    found = "not installed; dom0 install-host lets this host start dom0, and go back to the last good image"
    return CheckResult("launcher", OK, found)


def _agent() -> CheckResult:
    try:
        generation = Agent().status().generation
    except Dom0Error as error:
        return CheckResult("dom0", OK, error.message, error.hint)
    found = f"runs, generation {generation.number}: dom0 status" if generation else "runs: dom0 status"
    return CheckResult("dom0", OK, found)
