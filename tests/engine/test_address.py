"""Where the Engine is looked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dom0.engine.address import DEFAULT, Address, find
from dom0.errors import EngineUnreachable

HOME = Path("/nonexistent")


def write_context(config: Path, name: str, meta: str, *, tls: bool = False) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    (config / "contexts" / "meta" / digest).mkdir(parents=True)
    (config / "contexts" / "meta" / digest / "meta.json").write_text(meta)
    if tls:
        (config / "contexts" / "tls" / digest).mkdir(parents=True)


def meta(host: str) -> str:
    return json.dumps({"Name": "x", "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}})


def test_without_settings_it_is_the_usual_socket() -> None:
    assert find(None, {}, HOME) == Address(DEFAULT, "http://docker", socket="/var/run/docker.sock")


def test_an_argument_wins_over_the_environment() -> None:
    assert find("unix:///a", {"DOCKER_HOST": "unix:///b"}, HOME).socket == "/a"
    assert find(None, {"DOCKER_HOST": "unix:///b", "DOCKER_CONTEXT": "c"}, HOME).socket == "/b"


def test_tcp_is_plain_text_unless_tls_is_asked_for() -> None:
    plain = find(None, {"DOCKER_HOST": "tcp://10.0.0.1:2375", "DOCKER_CERT_PATH": "/certs"}, HOME)
    assert (plain.base, plain.certificates, plain.tls()) == ("http://10.0.0.1:2375", None, None)
    tls = find(None, {"DOCKER_HOST": "tcp://[::1]:2376", "DOCKER_TLS_VERIFY": "1"}, HOME)
    assert (tls.base, tls.certificates) == ("https://[::1]:2376", HOME / ".docker")


def test_tls_without_its_files_is_refused_with_their_place() -> None:
    environment = {"DOCKER_HOST": "tcp://a:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nonexistent/certs"}
    with pytest.raises(EngineUnreachable, match=r"/nonexistent/certs: no usable ca\.pem") as refusal:
        find(None, environment, HOME).tls()
    assert "DOCKER_CERT_PATH" in refusal.value.hint


@pytest.mark.parametrize(
    "host",
    [
        "npipe:////./pipe/docker_engine",
        "http://a:1",
        "fd://",
        "/var/run/docker.sock",
        "unix://",
        "unix://relative",
        "unix:///a\0b",
        "tcp://",
        "tcp://a",
        "tcp://:2375",
        "tcp://a:b",
        "tcp://a:99999",
        "tcp://a:1/path",
        "tcp://a:1?x=1",
        "tcp://user@a:1",
        "tcp://a\x1b:1",
        "tcp://[::1",
        "ssh://",
        "ssh://me:secret@box",
        "ssh://box:b",
        "ssh://box?x=1",
        "ssh://bo\x1bx",
    ],
)
def test_what_is_no_address_is_refused_with_its_place(host: str) -> None:
    with pytest.raises(EngineUnreachable, match=r"^DOCKER_HOST: ") as refusal:
        find(None, {"DOCKER_HOST": host}, HOME)
    assert refusal.value.message.isprintable()
    assert "unix:///" in refusal.value.hint


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("ssh://box", "-- box docker system dial-stdio"),
        ("ssh://me@box", "-l me -- box docker system dial-stdio"),
        ("ssh://me@box:2222", "-l me -p 2222 -- box docker system dial-stdio"),
        ("ssh://[::1]:2222", "-p 2222 -- ::1 docker system dial-stdio"),
        ("ssh://box/run/user/1/d;x.sock", "-- box docker --host 'unix:///run/user/1/d;x.sock' system dial-stdio"),
        ("ssh://-oProxyCommand=x", "-- -oproxycommand=x docker system dial-stdio"),
    ],
)
def test_ssh_is_reached_as_the_docker_command_does(host: str, words: str) -> None:
    found = find(None, {"DOCKER_HOST": host}, HOME)
    assert (found.socket, found.base) == ("", "http://docker")
    assert " ".join(found.dial) == f"ssh -o ConnectTimeout=30 -T {words}"


def test_the_current_context_is_followed(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "mine", "auths": {}}')
    write_context(tmp_path / ".docker", "mine", meta("unix:///mine.sock"))
    write_context(tmp_path / ".docker", "other", meta("tcp://a:1"))
    assert find(None, {}, tmp_path).socket == "/mine.sock"
    assert find(None, {"DOCKER_CONTEXT": "other"}, tmp_path).base == "http://a:1"
    assert find(None, {"DOCKER_CONTEXT": "default"}, tmp_path).text == DEFAULT
    assert find(None, {"DOCKER_CONFIG": "/nonexistent"}, tmp_path).text == DEFAULT


@pytest.mark.parametrize("config", ["", "[]", "{", '{"currentContext": 1}', '{"currentContext": "default"}', "\udcff"])
def test_a_client_configuration_without_a_context_means_the_default(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config, errors="surrogateescape")
    assert find(None, {"DOCKER_CONFIG": str(tmp_path)}, HOME).text == DEFAULT


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"Endpoints": {"docker": {}}}', '{"Endpoints": {"docker": {"Host": 1}}}']
)
def test_a_context_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    write_context(tmp_path, "mine", text)
    with pytest.raises(EngineUnreachable, match=r"^docker context 'mine': ") as refusal:
        find(None, {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "mine"}, HOME)
    assert "DOCKER_HOST" in refusal.value.hint


def test_a_context_that_does_not_exist_or_has_tls_is_refused(tmp_path: Path) -> None:
    write_context(tmp_path, "tls", meta("tcp://a:1"), tls=True)
    for name in ("tls", "missing", "../../etc"):
        with pytest.raises(EngineUnreachable, match=f"^docker context '{name}': "):
            find(None, {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": name}, HOME)
