"""`dom0 image login` as a person calls it, beside docker, which has the same logins."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dom0.run import Output
from dom0.testing import debian_registry
from dom0.testing.debian_registry import PASSWORD, USER, DebianRegistry
from dom0.testing.hosts import Host
from dom0.testing.possible import require

RunCommand = Callable[..., Output]
PIPED = ("--username", USER, "--password-stdin")


@pytest.mark.parametrize(
    ("arguments", "stdin", "what"),
    [
        (["registry.example"], PASSWORD, "there is no terminal to ask on"),
        (["--password-stdin", "registry.example"], PASSWORD, "needs --username"),
        ([*PIPED, "registry.example"], "", "password: is empty"),
        ([*PIPED, "registry.example"], "a\nb\n", "of several lines"),
        ([*PIPED, "registry.example"], "x" * 70_000, "too long"),
        (["--username", "a:b", "--password-stdin", "registry.example"], PASSWORD, "has a colon"),
        ([*PIPED, "not a registry"], PASSWORD, "no name of a registry"),
        ([*PIPED, "registry.example/team/app"], PASSWORD, "no name of a registry"),
        (["--password", PASSWORD, "registry.example"], "", "No such option"),
    ],
)
def test_what_is_no_login_is_refused_before_anybody_is_asked(
    dom0: RunCommand, arguments: list[str], stdin: str, what: str
) -> None:
    refused = dom0("image", "login", *arguments, stdin=stdin)
    assert (refused.code, refused.stdout) == (2, "")
    assert what in refused.stderr
    assert PASSWORD not in refused.stderr


def test_docker_and_dom0_have_the_same_logins(engine_host: Host, tmp_path: Path) -> None:
    require(debian_registry.missing(), "tests of a registry")
    file = tmp_path / "docker/config.json"

    def run(*argv: str, stdin: str = "") -> Output:
        env = {"DOCKER_CONFIG": str(file.parent)}
        return engine_host.run(argv, stdin=stdin.encode(), env=env, check=False)

    def dom0(*arguments: str, stdin: str = "") -> Output:
        return run(sys.executable, "-m", "dom0", "image", *arguments, stdin=stdin)

    (tmp_path / "registry").mkdir()
    with DebianRegistry(tmp_path / "registry", login=True, popen=engine_host.popen) as registry:
        registry.content.image("team/app", "1")
        host, name = registry.host, f"{registry.host}/team/app:1"
        wrong = dom0("login", *PIPED, host, stdin="wrong")
        assert (wrong.code, "is wrong" in wrong.stderr, file.exists()) == (1, True, False)
        done = dom0("login", *PIPED, "--json", host, stdin=f"{PASSWORD}\n")
        assert json.loads(done.stdout) == {"registry": host, "user": USER, "stored": str(file)}
        assert "Downloaded newer image" in run("docker", "pull", name).stdout
        assert dom0("pull", name).code == 0
        assert f"Removing login credentials for {host}" in run("docker", "logout", host).stdout
        refused = dom0("pull", name)
        assert (refused.code, f"dom0 image login {host}" in refused.stderr) == (1, True)
        assert run("docker", "login", "--username", USER, "--password-stdin", host, stdin=PASSWORD).code == 0
        assert json.loads(dom0("logout", "--json", host).stdout) == {"registry": host, "was_logged_in": True}
        assert run("docker", "pull", name).code != 0
        assert dom0("logout", host).stdout == f"{host}: there was no login\n"


def login_on_terminal(host: str, environment: dict[str, str], user: bytes, password: bytes) -> tuple[int, bytes]:
    """The exit code, and what the terminal shows."""
    process, terminal = pty.fork()
    if process == 0:
        argv = [sys.executable, "-m", "dom0", "image", "login", host]
        os.execve(sys.executable, argv, environment)  # noqa: S606 -- an argv list, no shell
    shown = b""
    answers = [(b"Username:", user), (b"Password:", password)]
    with contextlib.suppress(OSError):  # the terminal's end
        while piece := os.read(terminal, 4096):
            shown += piece
            if answers and shown.rstrip().endswith(answers[0][0]):
                os.write(terminal, answers.pop(0)[1] + b"\n")
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), shown


def test_a_password_that_is_no_text_is_refused_where_it_is_asked_for() -> None:
    code, shown = login_on_terminal("registry.example", {**os.environ, "LC_ALL": "C.UTF-8"}, b"guest", b"\xff")
    assert code == 2, shown
    assert b"user or password: is not UTF-8" in shown


def test_a_password_is_asked_for_and_not_shown(engine_host: Host, tmp_path: Path) -> None:
    require(debian_registry.missing(), "tests of a registry")
    directory = os.path.relpath(tmp_path)
    environment = engine_host.environment() | {"DOCKER_HOST": engine_host.docker_host, "DOCKER_CONFIG": directory}
    (tmp_path / "registry").mkdir()
    with DebianRegistry(tmp_path / "registry", login=True) as registry:
        code, shown = login_on_terminal(registry.host, environment, USER.encode(), PASSWORD.encode())
    assert code == 0, shown
    assert f"logged in as {USER}".encode() in shown
    assert PASSWORD.encode() not in shown
    assert f"kept in {directory}/config.json, not encrypted".encode() in shown
