"""Who serves which scope: said by a lock that ends with its holder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dom0.errors import Dom0Error, UsageError
from dom0.socketproxy import registrations
from dom0.socketproxy.context import Context
from dom0.socketproxy.grants import Grants, Images
from dom0.socketproxy.scope import Scope
from dom0.socketproxy.upstream import Upstream

GRANTS = Grants(images=Images(use=("busybox",)), networks=3)
CONTEXT = Context(Scope("guest"), GRANTS, Upstream("/var/run/docker.sock"), "/run/guest.sock")
SOCKET = Path("/run/guest.sock")


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOM0_RUN", str(tmp_path))
    return tmp_path


def test_a_scope_is_known_while_it_is_served(run_directory: Path) -> None:
    with registrations.registered(CONTEXT, SOCKET):
        found = registrations.read("guest")
        assert found.is_served
        assert (found.registration.scope, found.registration.socket) == ("guest", "/run/guest.sock")
        assert (found.registration.engine, found.registration.grants) == ("/var/run/docker.sock", GRANTS)
        assert found.registration.pid == registrations.process_of("guest") == os.getpid()
        assert (run_directory / "scopes/guest/scope.json").stat().st_mode & 0o777 == 0o600
        assert registrations.known() == ["guest"]
    assert registrations.known() == []
    assert list((run_directory / "scopes/guest").iterdir()) == []


def test_one_whose_server_was_killed_is_not_served() -> None:
    child = os.fork()
    if not child:
        with registrations.registered(CONTEXT, SOCKET):
            os._exit(0)
    os.waitpid(child, 0)
    assert not registrations.read("guest").is_served
    assert registrations.process_of("guest") == 0


def test_a_server_that_ends_leaves_the_registration_of_its_successor() -> None:
    with registrations.registered(CONTEXT, SOCKET) as _:
        pass
    first = registrations.registered(CONTEXT, SOCKET)
    second = registrations.registered(CONTEXT, Path("/run/second.sock"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert registrations.read("guest").is_served
    assert registrations.read("guest").registration.socket == "/run/second.sock"
    second.__exit__(None, None, None)
    assert registrations.known() == []


def test_a_server_knows_whether_another_one_serves_the_scope() -> None:
    first = registrations.registered(CONTEXT, SOCKET)
    second = registrations.registered(CONTEXT, SOCKET)
    old = first.__enter__()
    assert old.is_alone()
    new = second.__enter__()
    assert (old.is_alone(), new.is_alone()) == (False, False)
    first.__exit__(None, None, None)
    assert new.is_alone()
    second.__exit__(None, None, None)


def test_a_server_that_a_killed_one_left_the_scope_to_is_alone() -> None:
    child = os.fork()
    if not child:
        with registrations.registered(CONTEXT, SOCKET):
            os._exit(0)
    os.waitpid(child, 0)
    with registrations.registered(CONTEXT, SOCKET) as standing:
        assert standing.is_alone()


def test_a_server_that_may_not_write_there_cannot_tell(run_directory: Path) -> None:
    (run_directory / "scopes").write_text("in its way")
    with registrations.registered(CONTEXT, SOCKET) as standing:
        assert not standing.is_alone()


def test_a_scope_is_served_on_one_socket_by_one_server_after_the_other() -> None:
    registrations.check_free("guest", SOCKET)
    with registrations.registered(CONTEXT, SOCKET):
        registrations.check_free("guest", SOCKET)
        registrations.check_free("team", Path("/run/team.sock"))
        with pytest.raises(UsageError, match=r"guest: is served already at /run/guest\.sock"):
            registrations.check_free("guest", Path("/run/second.sock"))
    registrations.check_free("guest", Path("/run/second.sock"))


def test_what_a_killed_server_left_is_in_nobodys_way(run_directory: Path) -> None:
    (run_directory / "scopes/guest").mkdir(parents=True)
    (run_directory / "scopes/guest/scope.json").write_text("of another version")
    registrations.check_free("guest", SOCKET)


def test_a_scope_is_served_where_nothing_can_be_written(run_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run_directory / "scopes").write_text("in the way")
    with registrations.registered(CONTEXT, SOCKET):
        pass
    assert "dom0 socket ls and log do not show this scope" in caplog.text


def test_a_scope_that_is_not_there(run_directory: Path) -> None:
    with pytest.raises(UsageError, match="none: no such scope") as none:
        registrations.require("none")
    assert "dom0 socket serve --scope none" in none.value.hint
    with registrations.registered(CONTEXT, SOCKET), pytest.raises(UsageError) as refused:
        registrations.require("none")
    assert refused.value.hint == "there are: guest"


def test_a_socket_that_is_only_held_is_an_orchestrators(run_directory: Path) -> None:
    (run_directory / "scopes/guest").mkdir(parents=True)
    (run_directory / "scopes/guest/docker.sock").touch()
    with pytest.raises(UsageError, match="guest: nobody serves its socket") as refused:
        registrations.require("guest")
    assert refused.value.hint.endswith("docker logs dom0-socket-guest; not wanted? dom0 socket rm guest")


@pytest.mark.parametrize("content", [b"{}", b'{"socket": "\xff"}'])
def test_what_is_damaged_is_named(run_directory: Path, content: bytes) -> None:
    (run_directory / "scopes/guest").mkdir(parents=True)
    (run_directory / "scopes/guest/scope.json").write_bytes(content)
    (run_directory / "scopes/guest" / registrations.FAILED).write_bytes(b'{"message": "\xff"}')
    assert registrations.failure("guest") is None
    with pytest.raises(Dom0Error, match=r"scope\.json: is not understood"):
        registrations.read("guest")
