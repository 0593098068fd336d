"""Logins are found where docker keeps them; a wrong file or helper is refused, without a word of what it says."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dom0.errors import Dom0Error
from dom0.registry.credentials import Login, find, remove, store

HOST = "registry.example:5000"
SECRET = "wide-open"


def auth(user: str = "guest", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def config(tmp_path: Path) -> Callable[[Any], None]:
    def write(document: Any) -> None:
        (tmp_path / ".docker").mkdir(exist_ok=True)
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        (tmp_path / ".docker/config.json").write_bytes(text)

    return write


@pytest.fixture
def helper(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """A `docker-credential-test` that is a shell script; what it is asked comes into `asked`."""

    def write(script: str) -> dict[str, str]:
        program = tmp_path / "bin/docker-credential-test"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\n(echo "$*"; cat) >"{tmp_path}/asked"\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return {"PATH": f"{program.parent}:{os.environ['PATH']}"}

    return write


@pytest.mark.parametrize(
    ("auths", "host", "expected"),
    [
        ({HOST: auth()}, HOST, Login("guest", SECRET)),
        ({HOST: auth(password="a:b:ö\0\0")}, HOST, Login("guest", "a:b:ö")),
        ({f"https://{HOST}/v2/": auth()}, HOST, Login("guest", SECRET)),
        ({f"http://{HOST}": auth("old"), HOST: auth()}, HOST, Login("guest", SECRET)),
        ({"https://index.docker.io/v1/": auth()}, "docker.io", Login("guest", SECRET)),
        (
            {"https://index.docker.io/v1/access-token": auth("x"), "https://index.docker.io/v1/": auth()},
            "docker.io",
            Login("guest", SECRET),
        ),
        ({HOST: {"identitytoken": "t"}}, HOST, Login(identity_token="t")),
        ({HOST: {**auth("guest", ""), "identitytoken": "t"}}, HOST, Login("guest", "", "t")),
        ({HOST: {}}, HOST, None),
        ({"registry.example": auth()}, HOST, None),
        ({}, HOST, None),
    ],
)
async def test_a_login_in_the_file_is_found(
    config: Callable[[Any], None], tmp_path: Path, auths: dict[str, Any], host: str, expected: Login | None
) -> None:
    config({"auths": auths, "HttpHeaders": {"whatever": 1}})
    assert await find(host, {}, tmp_path) == expected


async def test_docker_config_says_where_the_file_is(config: Callable[[Any], None], tmp_path: Path) -> None:
    config({"auths": {HOST: auth()}})
    assert await find(HOST, {"DOCKER_CONFIG": str(tmp_path / ".docker")}, Path("/nonexistent")) is not None
    assert await find(HOST, {"DOCKER_CONFIG": "/nonexistent"}, tmp_path) is None
    assert await find(HOST, {"DOCKER_CONFIG": "/dev/null"}, tmp_path) is None


@pytest.mark.parametrize(
    "names",
    [{"credHelpers": {HOST: "test"}}, {"credsStore": "test"}, {"credHelpers": {HOST: "test"}, "credsStore": "x"}],
)
async def test_a_helper_is_asked_before_the_file(
    config: Callable[[Any], None], helper: Callable[[str], dict[str, str]], tmp_path: Path, names: dict[str, Any]
) -> None:
    config({"auths": {HOST: auth()}, **names})
    env = helper("""echo '{"ServerURL": "x", "Username": "other", "Secret": "s"}'""")
    assert await find(HOST, env, tmp_path) == Login("other", "s")
    assert (tmp_path / "asked").read_text() == f"get\n{HOST}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("""echo '{"Username": "<token>", "Secret": "t"}'""", Login(identity_token="t")),
        ("""echo '{"Username": "", "Secret": ""}'""", None),
        ("echo credentials not found in native keychain; exit 1", None),
    ],
)
async def test_a_helper_may_have_a_token_or_nothing(
    config: Callable[[Any], None],
    helper: Callable[[str], dict[str, str]],
    tmp_path: Path,
    script: str,
    expected: Login | None,
) -> None:
    config({"credsStore": "test"})
    assert await find("docker.io", helper(script), tmp_path) == expected
    assert (tmp_path / "asked").read_text() == "get\nhttps://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "exit code 3"),
        (f"echo {SECRET}", "is no login"),
        (f"""echo '{{"Username": "{SECRET}"}}'""", "is no login"),
    ],
)
async def test_a_helper_that_fails_is_named_and_not_repeated(
    config: Callable[[Any], None], helper: Callable[[str], dict[str, str]], tmp_path: Path, script: str, why: str
) -> None:
    config({"credsStore": "test"})
    with pytest.raises(Dom0Error, match=f"docker-credential-test: .*{why}") as refused:
        await find(HOST, helper(script), tmp_path)
    assert SECRET not in refused.value.message + refused.value.hint


@pytest.mark.parametrize("name", ["none-such", "../../bin/sh", "a b", "-x", "\x1b[31m"])
async def test_a_helper_that_is_not_there_is_refused(config: Callable[[Any], None], tmp_path: Path, name: str) -> None:
    config({"credsStore": name})
    with pytest.raises(Dom0Error, match=r"config\.json: ") as refused:
        await find(HOST, {"PATH": "/bin"}, tmp_path)
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (f"{SECRET}".encode(), "is no JSON"),
        (b"\xff", "is no JSON"),
        (b'{"a":' * 100_000, "is no JSON"),
        (b"[]", "has to be a mapping"),
        ({"auths": {HOST: {"auth": [SECRET]}}}, "has to be text"),
        ({"credsStore": 1}, "credsStore has to be text"),
        ({"auths": {HOST: {"auth": SECRET}}}, "user:password in base64"),
        ({"auths": {HOST: auth("")}}, "user:password in base64"),
        ({"auths": {HOST: {"auth": base64.b64encode(b"\xff:").decode()}}}, "user:password in base64"),
        (b" " * (2 << 20), "longer than 1024 KiB"),
    ],
)
async def test_a_file_that_docker_could_not_read_is_refused(
    config: Callable[[Any], None], tmp_path: Path, document: Any, why: str
) -> None:
    config(document)
    with pytest.raises(Dom0Error, match=why) as refused:
        await find(HOST, {}, tmp_path)
    assert str(tmp_path / ".docker/config.json") in refused.value.message
    assert SECRET not in refused.value.message + refused.value.hint


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    os.mkfifo(tmp_path / ".docker/config.json")
    with pytest.raises(Dom0Error, match="is no file"):
        await find(HOST, {}, tmp_path)


def test_the_text_of_a_login_says_nothing_of_it() -> None:
    login = Login(SECRET, SECRET, SECRET)
    assert SECRET not in f"{login} {login!r} {login.__rich_repr__()} {[login]}"
    with pytest.raises(AttributeError):
        login.user = ""  # type: ignore[misc]
    assert msgspec.structs.asdict(login)["password"] == SECRET


async def test_a_login_is_stored_where_it_is_found_and_all_else_stays(
    config: Callable[[Any], None], tmp_path: Path
) -> None:
    file = tmp_path / ".docker/config.json"
    assert await store(HOST, Login("guest", SECRET), {}, tmp_path) == str(file)
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)
    other = {"HttpHeaders": {"x": "ö"}, "psFormat": "table", "plugins": {"x": {"hooks": "y"}}}
    config({"auths": {"other.example": auth(), HOST: {"identitytoken": "old"}}, **other})
    os.chown(file, 1, 1)
    file.chmod(0o644)
    await store(HOST, Login("guest", "a:b"), {}, tmp_path)
    document = json.loads(file.read_text())
    assert document == {"auths": {"other.example": auth(), HOST: auth(password="a:b")}, **other}
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (1, 0o600)
    assert await find(HOST, {}, tmp_path) == Login("guest", "a:b")
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]


async def test_a_link_to_the_file_stays_one(config: Callable[[Any], None], tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("{}")
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").symlink_to(tmp_path / "kept.json")
    await store("docker.io", Login("guest", SECRET), {}, tmp_path)
    assert json.loads((tmp_path / "kept.json").read_text()) == {"auths": {"https://index.docker.io/v1/": auth()}}


async def test_a_link_in_the_way_of_the_new_file_is_not_followed(config: Callable[[Any], None], tmp_path: Path) -> None:
    config({})
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / ".docker/.config.json.new").symlink_to(tmp_path / "other")
    await store(HOST, Login("guest", SECRET), {}, tmp_path)
    assert (tmp_path / "other").read_text() == "of somebody else"
    assert not (tmp_path / ".docker/config.json").is_symlink()


@pytest.mark.parametrize("content", [b"", b"\n"])
async def test_an_empty_file_has_no_login_and_takes_one(
    config: Callable[[Any], None], tmp_path: Path, content: bytes
) -> None:
    config(content)
    assert await find(HOST, {}, tmp_path) is None
    await store(HOST, Login("guest", SECRET), {}, tmp_path)
    assert await find(HOST, {}, tmp_path) == Login("guest", SECRET)


@pytest.mark.parametrize("number", [b"1e400", b"1" * 5000])
async def test_a_file_that_would_be_another_one_afterwards_stays(
    config: Callable[[Any], None], tmp_path: Path, number: bytes
) -> None:
    config(b'{"plugins":' + number + b"}")
    with pytest.raises(Dom0Error, match=r"config\.json: is no JSON that can be written again"):
        await store(HOST, Login("guest", SECRET), {}, tmp_path)
    assert (tmp_path / ".docker/config.json").read_bytes() == b'{"plugins":' + number + b"}"


LOG_IN = """
import asyncio, sys
from pathlib import Path
from dom0.registry.credentials import Login, store
sys.stdin.read()
for number in range(20):
    asyncio.run(store(f"{sys.argv[2]}-{number}.example", Login("guest", "wide-open"), {}, Path(sys.argv[1])))
"""


def test_of_logins_at_the_same_time_all_stay(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LOG_IN, str(tmp_path)]
    running = [subprocess.Popen([*argv, f"registry-{each}"], stdin=subprocess.PIPE) for each in range(4)]
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in running] == [0] * 4
    assert len(json.loads((tmp_path / ".docker/config.json").read_text())["auths"]) == 80


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}/v2/", f"http://{HOST}"])
async def test_a_login_that_is_removed_is_found_no_more(
    config: Callable[[Any], None], tmp_path: Path, key: str
) -> None:
    assert await remove(HOST, {}, tmp_path) is False
    config({"auths": {key: auth(), "other.example": auth()}})
    assert await remove(HOST, {}, tmp_path) is True
    assert await find(HOST, {}, tmp_path) is None
    assert await find("other.example", {}, tmp_path) is not None
    assert await remove(HOST, {}, tmp_path) is False


async def test_a_helper_stores_and_erases(
    config: Callable[[Any], None], helper: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    config({"credsStore": "test"})
    where = await store("docker.io", Login("guest", SECRET), helper(""), tmp_path)
    assert where == "docker-credential-test"
    verb, told = (tmp_path / "asked").read_text().split("\n", 1)
    key = "https://index.docker.io/v1/"
    assert (verb, json.loads(told)) == ("store", {"ServerURL": key, "Username": "guest", "Secret": SECRET})
    assert json.loads((tmp_path / ".docker/config.json").read_text()) == {"credsStore": "test", "auths": {key: {}}}
    env = helper("""[ $1 != get ] || echo '{"Username": "guest", "Secret": "s"}'""")
    assert await remove("docker.io", env, tmp_path) is True
    assert (tmp_path / "asked").read_text() == f"erase\n{key}"
    assert json.loads((tmp_path / ".docker/config.json").read_text())["auths"] == {}


@pytest.mark.parametrize("script", ["cat; exit 1", "echo credentials not found; exit 1"])
async def test_a_helper_that_does_not_store_is_named_and_the_file_stays(
    config: Callable[[Any], None], helper: Callable[[str], dict[str, str]], tmp_path: Path, script: str
) -> None:
    config({"credsStore": "test"})
    with pytest.raises(Dom0Error, match="docker-credential-test: exit code 1") as refused:
        await store(HOST, Login("guest", SECRET), helper(script), tmp_path)
    assert SECRET not in refused.value.message + refused.value.hint
    assert json.loads((tmp_path / ".docker/config.json").read_text()) == {"credsStore": "test"}


async def test_nothing_is_stored_in_a_file_that_docker_could_not_read(
    config: Callable[[Any], None], tmp_path: Path
) -> None:
    config(b"{")
    with pytest.raises(Dom0Error, match="is no JSON"):
        await store(HOST, Login("guest", SECRET), {}, tmp_path)
    assert (tmp_path / ".docker/config.json").read_bytes() == b"{"
