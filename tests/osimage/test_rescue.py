"""The rescue container: a login by ssh where no dom0 works, with or without an Engine."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dom0.osimage import recipe, rescue
from dom0.run import Output
from dom0.testing import busybox
from dom0.testing.chain import CACHE
from dom0.testing.hosts import CONTAINERD_STORE, Host
from dom0.testing.launcher import EXITS, HEALTHY, PROGRAM, Launcher


@pytest.fixture(scope="session")
def rescue_image(engines_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: of several test processes, and of builds beside them, each may put another one in its place."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "rescue.lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("XDG_CACHE_HOME", str(CACHE))
        archive = tmp_path_factory.mktemp("rescue") / rescue.ARCHIVE
        shutil.copyfile(built(), archive)
    return archive


def built() -> Path:
    return asyncio.run(rescue.build(recipe.load(), lambda line: None, anew=False))


class Person:
    """With a key that the boot contract names."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        self._key = directory / "id"
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)])
        self.public = self._key.with_suffix(".pub").read_text()
        self.known = directory / "known_hosts"

    def ssh(self, *command: str, port: int = 22) -> Output:
        options = {
            "IdentityFile": self._key,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": self.known,
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        argv = ["ssh", "-F", "/dev/null", *words, "-p", str(port), "root@127.0.0.1", *command]
        return self._host.run(argv, check=False, timeout=60)


@pytest.fixture(params=["store of the Engine", "store of containerd"])
def machine(request: pytest.FixtureRequest, fresh_host: Callable[..., Host], rescue_image: Path) -> Iterator[Launcher]:
    """As the base OS has it, where containerd keeps the images, and as most Engines do."""
    made = Launcher(fresh_host(config=CONTAINERD_STORE if "containerd" in request.param else {}))
    yield made
    made.stop()


@pytest.fixture
def person(machine: Launcher, tmp_path: Path) -> Person:
    found = Person(machine.host, tmp_path)
    machine.host.run(["mkdir", "-p", "/run/dom0/os"])
    machine.host.path("/run/dom0/os/authorized_keys").write_text(found.public)
    return found


def until_admitted(machine: Launcher, person: Person, port: int = 22) -> None:
    machine.until(lambda: person.ssh("true", port=port).code == 0)


def test_where_both_images_are_broken_a_person_logs_in_and_mends_it(
    machine: Launcher, person: Person, rescue_image: Path, tmp_path: Path
) -> None:
    machine.image(EXITS)
    machine.host.docker("tag", machine.image(EXITS, "dom0:other"), "dom0:last-good")
    machine.start(DOM0_RESCUE=str(rescue_image))
    assert "no dom0 image works" in machine.until_tells("rescue")["why"]
    until_admitted(machine, person)
    until_admitted(machine, person, port=2222)
    assert "dom0-rescue" in person.ssh("docker", "ps", "--format", "{{.Names}}").stdout
    assert person.ssh("cat", "/run/dom0/os/launcher").stdout.startswith("runs=rescue")
    machine.image(HEALTHY, "dom0:mended")
    assert person.ssh("docker", "tag", "dom0:mended", "dom0:latest").code == 0
    machine.until_good(machine.id_of("dom0:mended"))
    machine.until(lambda: not machine.host.docker("ps", "--all", "--quiet", "--filter", "name=rescue").stdout)


def test_the_server_has_the_host_key_of_dom0s_own(
    machine: Launcher, person: Person, rescue_image: Path, tmp_path: Path
) -> None:
    key = "/var/lib/dom0/ssh/ssh_host_ed25519_key"
    machine.host.run(["mkdir", str(Path(key).parent)])
    machine.host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    machine.start(DOM0_RESCUE=str(rescue_image))
    until_admitted(machine, person)
    assert machine.host.path(f"{key}.pub").read_text().split()[1] in person.known.read_text()


def test_who_has_no_key_is_not_admitted(machine: Launcher, person: Person, rescue_image: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Person(machine.host, tmp_path / "other")
    machine.start(DOM0_RESCUE=str(rescue_image))
    until_admitted(machine, person)
    assert "Permission denied" in stranger.ssh("true").stderr


def test_without_an_engine_the_server_runs_beside_it(machine: Launcher, person: Person, rescue_image: Path) -> None:
    machine.host.stop_engine()
    machine.start(DOM0_RESCUE=str(rescue_image), DOM0_ENGINE_WITHIN="1")
    until_admitted(machine, person)
    machine.until(lambda: machine.told()["why"] == "the Docker Engine does not answer")
    machine.host.start_engine()
    image = machine.image(HEALTHY)
    machine.until_good(image)
    machine.until(lambda: person.ssh("true").code != 0)


@pytest.mark.parametrize("machine", ["store of the Engine"], indirect=True)
def test_an_engine_that_hangs_is_as_good_as_none(machine: Launcher, person: Person, rescue_image: Path) -> None:
    image = machine.image(HEALTHY)
    machine.host.run(["busybox", "killall", "-STOP", "containerd"])  # dockerd says its version, and starts nothing
    haste = {"DOM0_ENGINE_WITHIN": "2", "DOM0_ANSWER_WITHIN": "2", "DOM0_RESCUE_PATIENCE": "2"}
    machine.start(DOM0_RESCUE=str(rescue_image), **haste)
    until_admitted(machine, person)
    machine.until(lambda: machine.told()["why"] == "the Docker Engine does not answer")
    assert not machine.recall("failed")  # it is no fault of the image
    machine.host.run(["busybox", "killall", "-CONT", "containerd"])
    machine.until_good(image)
    machine.until(lambda: person.ssh("true").code != 0)


@pytest.mark.parametrize("machine", ["store of containerd"], indirect=True)
def test_an_engine_that_never_says_which_images_it_has_is_as_good_as_none(
    machine: Launcher, person: Person, rescue_image: Path
) -> None:
    image = machine.image(HEALTHY)
    containerd = shutil.which("containerd")
    assert containerd is not None
    machine.host.run(["mount", "--bind", "/bin/false", containerd])
    machine.host.run(["busybox", "killall", "-KILL", "containerd"])
    machine.start(DOM0_RESCUE=str(rescue_image), DOM0_ENGINE_WITHIN="2", DOM0_RESCUE_PATIENCE="2")
    until_admitted(machine, person)
    assert machine.told()["why"] == "the Docker Engine does not answer"
    machine.host.run(["umount", containerd])
    machine.until_good(image)
    machine.until(lambda: person.ssh("true").code != 0)


def test_the_same_packages_make_the_same_image(
    rescue_image: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert built().read_bytes() == rescue_image.read_bytes()


HINT = "start it: {}; or bring an image that works: docker load"
RESTART = HINT.format("restart this machine")


@pytest.mark.parametrize(
    ("told", "why", "hint"),
    [
        ("runs=starting", ": this machine has just been started", "wait: dom0 is the last step of the boot"),
        ("runs=rescue", ": there is no dom0 image", RESTART),
        ("runs=latest", "", RESTART),
        ("runs=stopped", ": a person", RESTART),
    ],
)
def test_the_hosts_own_dom0_command_says_why_none_runs_there(engine_host: Host, told: str, why: str, hint: str) -> None:
    """With `busybox sh`, as on the base OS."""
    launcher = engine_host.path("/run/dom0/os/launcher")
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f"{told}\nimage=\nwhy={why.removeprefix(': ') or 'of before'}\n")
    command = PROGRAM.parents[2] / "bin" / "dom0"
    said = engine_host.run(["busybox", "sh", str(command), "disk", "ls"], check=False)
    assert (said.code, said.stdout) == (1, "")
    assert said.stderr == f"dom0: does not run here{why}\n      {hint}\n"


def test_it_names_docker_start_only_where_there_is_a_container_to_start(engine_host: Host) -> None:
    engine_host.docker("create", "--name", "dom0", busybox.IMAGE, "true")
    said = engine_host.run(["busybox", "sh", str(PROGRAM.parents[2] / "bin" / "dom0"), "status"], check=False)
    assert said.stderr == f"dom0: does not run here\n      {HINT.format('docker start dom0')}\n"
