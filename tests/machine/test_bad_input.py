"""Input that cannot work: one message that says where and what, what to do, a documented exit code, nothing changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dom0.run import Output
from dom0.testing import api
from dom0.testing.foreign import Foreign
from dom0.testing.machines import Machine

PROJECT = """
    name: box
    x-dom0: {home: {}, rollout: {monitor: 1s, timeout: 60s}}
    services:
      web: {image: "busybox:test", command: [sleep, "100000"], init: true}
    """
SHAPE = re.compile(r"dom0: [^\n]+: [^\n]+\n( {6}[^\n]+\n)*")  # where, what; below it what to do
LARGE = 100 * 2**20  # bytes


@pytest.fixture(scope="module")
def box(machine: Machine, foreign: Foreign) -> Machine:
    machine.write(PROJECT)
    machine.up()
    machine.until_good()
    needed = {machine.container(name)["Image"] for name in ("dom0", "box-web-1", "home-volume")}
    kept = {f"dom0-kept:{image_id.removeprefix('sha256:')[:12]}" for image_id in needed}
    machine.until(lambda: kept <= api.images(machine.host.socket).keys())  # soon after it is good
    return machine


def inventory(machine: Machine) -> dict[str, Any]:
    """Everything on the Engine and everything that dom0 remembers."""
    states = machine.containers()
    networks = api.request(machine.host.socket, "GET", "/networks")
    volumes = api.request(machine.host.socket, "GET", "/volumes")["Volumes"]
    images = api.images(machine.host.socket)
    images.pop("dom0:latest", None)  # is built before the agent is asked
    return {
        "containers": {name: (state, machine.lives(name)) for name, state in states.items()},
        "networks": sorted(network["Id"] for network in networks),
        "volumes": sorted(volume["Name"] for volume in volumes),
        "images": {name for name in images if not name.startswith("sha256:")},
        "generations": sorted(path.name for path in (machine.host.state / "generations").iterdir()),
        "current": (machine.host.state / "current").read_text(),
    }


@pytest.fixture
def unchanged(box: Machine, foreign: Foreign) -> Iterator[None]:
    before = inventory(box)
    yield
    assert inventory(box) == before
    assert foreign.is_untouched()
    box.write(PROJECT)


def assert_refused(said: Output, code: int, *words: str) -> None:
    assert said.code == code, said
    assert SHAPE.fullmatch(said.stderr), said.stderr
    assert "Traceback" not in said.stderr
    assert said.stderr.replace("\n", "").isprintable()
    for word in words:
        assert word in said.stderr


def bomb() -> str:
    lines = ["x-a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x-a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(["name: box", *lines, "services: {web: {image: x, command: *a11}}"])


PROJECTS = {
    "a-misspelt-key": ("name: box\nservices: {web: {imag: busybox:test}}", ("services.web", "imag", "image")),
    "a-misspelt-key-of-dom0": ("name: box\nx-dom0: {shh: {}}\nservices: {web: {image: x}}", ("x-dom0", "shh", "ssh")),
    "a-cycle": (
        "name: box\nservices:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}",
        ("depend", "a", "b"),
    ),
    "no-yaml": ("services: [", ("compose.yaml",)),
    "a-bomb": (bomb(), ("compose.yaml",)),
    "a-control-character-in-a-name": ('name: box\nservices: {"web\\u001b[31m": {image: x}}', ("services",)),
    "a-control-character-in-a-container-name": (
        'name: box\nservices: {web: {image: x, container_name: "a\\u0007b"}}',
        ("services.web",),
    ),
    "another-project": ("name: other\nservices: {web: {image: 'busybox:test'}}", ("box", "other")),
    "an-image-that-is-nowhere": (
        "name: box\nx-dom0: {pull: {patience: 1s}}\nservices: {web: {image: 'no.invalid/x:1'}}",
        ("compose.yaml:3: services.web.image", "x:1"),
    ),
    "a-file-that-is-missing": (
        "name: box\nservices: {web: {image: 'busybox:test', env_file: gone.env}}",
        ("gone.env",),
    ),
}


@pytest.mark.parametrize("command", ["up", "plan", "try"])
@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_that_cannot_work_is_refused(box: Machine, unchanged: None, name: str, command: str) -> None:
    text, words = PROJECTS[name]
    box.write(text)
    options = {"try": ("--for", "1m"), "plan": ("--quiet",)}.get(command, ())
    said = box.dom0(command, *options, str(box.project), check=False)
    if command == "plan" and name == "an-image-that-is-nowhere":
        assert "no.invalid/x:1" in said.stdout, said  # that it cannot be pulled is known when it is tried
        return
    assert_refused(said, 3, *words)


def test_a_compose_file_of_a_hundred_megabytes_is_refused_unread(box: Machine, unchanged: None) -> None:
    file = box.project / "compose.yaml"
    with file.open("a") as opened:
        opened.truncate(LARGE)
    assert_refused(box.up(check=False), 3, "compose.yaml")


def test_a_file_of_a_hundred_megabytes_beside_it_is_carried_along_and_taken_away_again(box: Machine) -> None:
    large = box.project / "large.bin"
    with large.open("wb") as opened:
        opened.truncate(LARGE)
    placed = box.host.state / "project" / "large.bin"
    box.up()
    assert placed.stat().st_size == LARGE
    large.unlink()
    box.up()
    assert not placed.exists()


@pytest.mark.parametrize(
    "command", [("up", "."), ("build", "."), ("plan", "."), ("down",), ("logs",), ("dev", "busybox:test"), ("tree",)]
)
def test_without_an_engine_every_command_says_so(box: Machine, unchanged: None, command: tuple[str, ...]) -> None:
    said = box.dom0(*command, check=False, env={"DOCKER_HOST": "unix:///run/no-such.sock"})
    assert_refused(said, 4, "/run/no-such.sock")


@pytest.fixture
def as_nobody(box: Machine) -> Callable[..., Output]:
    """Run dom0 as a user without rights, from the image: a user cannot read the checkout of another."""

    def run(*arguments: str, groups: tuple[str, ...] = ()) -> Output:
        mounts = ("/var/run/docker.sock", "/run/dom0", "/var/lib/dom0", str(box.project))
        volumes = [word for path in mounts for word in ("--volume", f"{path}:{path}")]
        hidden = ("--label", "dom0.project=", "--label", "dom0.role=dev")
        identity = ["--user", "4711:4711", "--env", "HOME=/tmp"]
        identity += [word for group in groups for word in ("--group-add", group)]
        run = ("run", "--rm", *hidden, *identity, *volumes, "--entrypoint", "dom0", "dom0-base", *arguments)
        return box.docker(*run, check=False)

    return run


@pytest.fixture
def engine_group(box: Machine) -> str:
    for directory in (box.project, *box.project.parents[:2]):
        directory.chmod(0o755)
    return box.host.run(["stat", "-c", "%g", "/var/run/docker.sock"]).stdout.strip()


@pytest.mark.parametrize("command", [("plan",), ("up", "--no-build"), ("status",)])
def test_who_may_use_the_engine_needs_no_right_to_dom0s_own_files(
    unchanged: None, as_nobody: Callable[..., Output], engine_group: str, command: tuple[str, ...]
) -> None:
    said = as_nobody(*command, groups=(engine_group,))
    assert (said.code, "damaged" in said.stderr) == (0, False), said


def test_a_place_that_the_caller_may_not_write_to_is_named_with_who_may(
    unchanged: None, as_nobody: Callable[..., Output]
) -> None:
    assert_refused(as_nobody("init", "/nowhere"), 1, "/nowhere: Permission denied", "run it as root")


def test_a_file_that_the_caller_may_not_read_is_named(
    box: Machine, unchanged: None, as_nobody: Callable[..., Output], engine_group: str
) -> None:
    secret = box.project / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    try:
        assert_refused(as_nobody("up", str(box.project), groups=(engine_group,)), 3, "secret", "ermission denied")
    finally:
        secret.unlink()


@pytest.mark.parametrize("command", [("tree",), ("logs",), ("down",)])
def test_without_the_right_to_ask_the_engine_the_group_is_named(
    unchanged: None, as_nobody: Callable[..., Output], command: tuple[str, ...]
) -> None:
    assert_refused(as_nobody(*command), 4, "docker")


def test_without_the_right_to_ask_dom0_that_is_said(unchanged: None, as_nobody: Callable[..., Output]) -> None:
    assert_refused(as_nobody("status"), 1, "permission denied")


@pytest.mark.parametrize(
    "command",
    [
        ("up", "/no/such/directory"),
        ("frobnicate",),
        ("rollback", "minus-one"),
        ("try", "."),
        ("try", "--for", "soon", "."),
        ("logs", "no-such-service"),
        ("exec", "no-such-service", "true"),
        ("down", "--volumes", "foreign"),
        ("home", "restore", "/no/such/file"),
        ("ssh", "rm", "nobody"),
        ("up", "--tag", "not a tag", "."),
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_is_refused(box: Machine, unchanged: None, command: tuple[str, ...]) -> None:
    said = box.dom0(*command, check=False)
    assert said.code in (1, 2, 4), said
    assert SHAPE.fullmatch(said.stderr), said.stderr
