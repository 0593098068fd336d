"""The page on the network: its process without rights, real TLS, and strangers, on real sockets and in real time."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import re
import signal
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dom0.agent import listener, web_server
from dom0.agent.devices import FILE, MOST_TRIES_EACH
from dom0.agent.events import Kind
from dom0.agent.web_server import CERTIFICATE
from dom0.http.client import Client
from dom0.http.server import Request, Response
from dom0.names import WEB_SOCKET, WEB_USER, Access
from dom0.plan.desired import Web
from dom0.run import capture
from dom0.testing.network_page import HOST, Device, Served, open_directory, trusting
from dom0.web import network
from dom0.web.network import COOKIE, MOST_EACH, MOST_REFUSED, MOST_UNPROVED
from dom0.web.page import ASSETS

JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "FIRST_PAUSE", 0.01)


@pytest.fixture
def directory() -> Iterator[Path]:
    with open_directory() as path:
        yield path


@pytest.fixture
def served(directory: Path) -> Served:
    return Served(directory, answer)


async def answer(request: Request) -> Response:
    said = f"secret {request.method} {request.path}".encode()
    return Response(forever(said) if request.path == "/v1/watch" else said)


async def forever(said: bytes) -> AsyncGenerator[bytes]:
    while True:
        yield said
        await asyncio.sleep(0.05)


def converse(served: Served, talk: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served.running():
            await talk()

    asyncio.run(main())


def ask_all(served: Served, talk: Callable[[], None]) -> None:
    """`talk` waits for answers, so it is in a thread of its own."""
    converse(served, lambda: asyncio.to_thread(talk))


def processes() -> list[int]:
    """Our children without rights, and none of another run beside this one."""
    found = []
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            status = (path / "status").read_text() if path.name.isdecimal() else ""
            if f"\nPPid:\t{os.getpid()}\n" in status and f"\nUid:\t{WEB_USER}\t" in status:
                found.append(int(path.name))
    return found


def test_a_device_is_paired_asks_and_is_out_with_its_stream_when_it_is_revoked(served: Served) -> None:
    def talk() -> None:
        phone, tablet = served.device(), served.device()
        for device, name, operates in ((phone, "phone", False), (tablet, "tablet", True)):
            invitation = served.invite(name, operates=operates)
            assert device.pair(invitation.code) == 200
            assert device.fingerprint == invitation.fingerprint
            assert served.device().pair(invitation.code) == 401
        for device, access in ((phone, (Access.VIEW, "phone")), (tablet, (Access.OPERATE, "tablet"))):
            assert device.ask("GET", "/v1/x?y=1") == (200, b"secret GET /v1/x")
            assert served.asked[-1] == access
        streams = [device.open("GET", "/v1/watch") for device in (phone, tablet)]
        for _, stream in streams:
            assert stream.read(6) == b"secret"
        served.revoke("phone")
        with pytest.raises((http.client.HTTPException, OSError)):
            streams[0][1].read()
        assert streams[1][1].read(100)
        assert phone.ask("GET", "/v1/x")[0] == 401
        assert tablet.ask("POST", "/v1/x", JSON, "{}")[0] == 200
        for connection, _ in streams:
            connection.close()

    ask_all(served, talk)


def test_what_a_device_keeps_no_script_and_no_other_site_gets(served: Served) -> None:
    def talk() -> None:
        phone = served.paired("phone")
        status, said = phone.ask("GET", "/")
        assert status == 200
        assert b"secret" not in said
        name, *attributes = [part.strip() for part in phone_cookie(served).split(";")]
        assert name.startswith("__Host-")
        assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
        assert not any(one.startswith("Domain") for one in attributes)

    ask_all(served, talk)


def phone_cookie(served: Served) -> str:
    device = served.device()
    assert device.pair(served.invite("other").code) == 200
    return device.headers["Set-Cookie"]


def test_the_process_has_no_rights_and_no_network_but_the_port(served: Served) -> None:
    def talk() -> None:
        assert processes() == []  # nobody has come
        served.paired("phone")
        (pid,) = processes()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == status["Gid"].split() == [str(WEB_USER)] * 4
        assert {name: int(status[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == dict.fromkeys(
            ("Inh", "Prm", "Eff", "Bnd", "Amb"), 0
        )
        assert (status["NoNewPrivs"], status["Groups"].strip()) == ("1", "")
        assert re.search(r"^Max processes +0 +0 ", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
        assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        assert [path.name for path in Path(f"/proc/{pid}/root").iterdir()] == [Path(WEB_SOCKET).name]
        assert Path(f"/proc/{pid}/cwd").stat() == Path(f"/proc/{pid}/root").stat()

    ask_all(served, talk)
    assert processes() == []


def test_who_has_taken_over_the_process_gets_nothing_without_a_device(served: Served) -> None:
    """Tried on its socket, which is all that it has."""

    async def talk() -> None:
        path = served.run / WEB_SOCKET
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (path.stat().st_uid, path.stat().st_gid) == (0, WEB_USER)
        client = Client(lambda: asyncio.open_unix_connection(path), "dom0")
        for method, target, headers, body in (
            ("GET", "/v1/status", {}, None),
            ("GET", "/v1/watch", {"Authorization": "Bearer"}, None),
            ("GET", "/v1/devices", {"Authorization": "Bearer .", "Dom0-Address": "<b>" * 100}, None),
            ("POST", "/v1/devices", JSON, b'{"name": "mine"}'),
            ("POST", "/session", JSON, b'{"code": "", "address": "<b>\\u202e"}'),
        ):
            async with client.ask(method, target, headers=headers, body=body) as found:
                assert found.status == 401, target
        async with client.ask("POST", "/session", headers=JSON, body=b'{"code": 1}') as found:
            assert found.status == 400
        await client.close()
        assert served.asked == []
        assert served.told(Kind.DEVICE_REFUSED)[-1] == "a device at an unknown address was not paired"

    converse(served, talk)


def test_what_a_device_had_begun_to_ask_for_is_refused_once_it_is_revoked(served: Served) -> None:
    """By who has taken over the process: the page passes on a whole question."""

    async def talk() -> None:
        tablet = await asyncio.to_thread(served.paired, "tablet", operates=True)
        secret = f"{tablet.cookie.partition('=')[2]}.{tablet.token}"
        reader, writer = await asyncio.open_unix_connection(served.run / WEB_SOCKET)
        head = f"POST /v1/x HTTP/1.1\r\nHost: dom0\r\nAuthorization: Bearer {secret}\r\nContent-Length: 2\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        served.register.revoke("tablet")
        writer.write(b"{}")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")
        writer.close()
        assert served.asked == []

    converse(served, talk)


def test_who_guesses_is_out_after_a_few_tries_is_said_in_the_journal_and_keeps_nobody_else_out(served: Served) -> None:
    def talk() -> None:
        code = served.invite("phone").code
        stranger = served.device("127.0.0.2")
        for number in range(MOST_TRIES_EACH):
            assert stranger.pair(f"2222-222{number + 2}") == 401
        assert stranger.pair(code) == 401
        assert set(served.told(Kind.DEVICE_REFUSED)) == {"a device at 127.0.0.2 was not paired"}
        assert served.told(Kind.DEVICE_PAIRED) == []
        assert served.device("127.0.0.3").pair(code) == 200

    ask_all(served, talk)


def test_what_is_wrong_with_the_disk_is_told_to_no_stranger(served: Served) -> None:
    def talk() -> None:
        code = served.invite("tablet").code
        (served.state / FILE).mkdir(parents=True)  # so nothing can be written there
        status, said = served.device().ask("POST", "/session", JSON, f'{{"code": "{code}"}}')
        assert (status, b"no device can be paired now" in said, b"devices.json" in said) == (503, True, False)

    ask_all(served, talk)


def test_the_code_and_the_secret_of_another_machine_are_nothing_here(served: Served) -> None:
    with open_directory() as path:
        other = Served(path, answer)

        def talk() -> None:
            there = other.paired("phone")
            here = served.paired("phone")
            moved = Device(HOST, served.port)
            moved.cookie, moved.token = there.cookie, there.token
            assert moved.ask("GET", "/v1/x")[0] == 401
            assert other.device().pair(served.invite("tablet", operates=True).code) == 401
            assert here.ask("GET", "/v1/x")[0] == 200

        async def both() -> None:
            async with other.running():
                await asyncio.to_thread(talk)

        converse(served, both)


def test_nothing_is_told_without_both_halves_of_one_device(served: Served) -> None:
    def talk() -> None:
        phone, tablet = served.paired("phone"), served.paired("tablet", operates=True)
        gone = served.paired("gone")
        served.revoke("gone")
        right = {(phone.cookie, phone.token), (tablet.cookie, tablet.token)}
        cookies = (
            "",
            phone.cookie,
            tablet.cookie,
            gone.cookie,
            f"{COOKIE}=",
            f"{phone.cookie}; {tablet.cookie}",
            "=;=",
        )
        tokens = ("", phone.token, tablet.token, gone.token, "x.y", "x" * 5000)
        for number, (cookie, token) in enumerate(itertools.product(cookies, tokens), 2):
            one = served.device(f"127.0.0.{number}")
            one.cookie, one.token = cookie, token
            expected = 200 if (cookie, token) in right else 401
            assert one.ask("GET", "/v1/x")[0] == expected, (cookie, token)

    ask_all(served, talk)


ROUTES = (*(f"/{file.name}" for file in ASSETS.iterdir() if file.suffix != ".js"), "/", "/app.js", "/session", "/v1/x")
FOREIGN = (
    {"Host": "attacker.example:{port}"},
    {"Host": "localhost:{port}"},  # a name that this machine was not given
    {"Host": "127.0.0.1.nip.io:{port}"},
    {"Host": "127.0.0.2:{port}"},  # an address that was not asked
    {"Host": "dom0"},
    {"Origin": "https://attacker.example"},
    {"Origin": "http://127.0.0.1:{port}"},  # without TLS
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
)


def test_no_page_of_another_site_is_answered(served: Served) -> None:
    def talk() -> None:
        phone = served.paired("phone", operates=True)
        code = served.invite("tablet").code
        for number, headers in enumerate(FOREIGN, 2):
            foreign = served.device(f"127.0.0.{number}")  # else the last ones would be refused for the first
            foreign.cookie, foreign.token = phone.cookie, phone.token
            filled = {name: value.format(port=served.port) for name, value in headers.items()}
            for route, method in itertools.product(ROUTES, ("GET", "POST")):
                body = f'{{"code": "{code}"}}' if method == "POST" else ""
                status, said = foreign.ask(method, route, filled | JSON, body)
                assert status == 403, (route, method, filled)
                assert b"secret" not in said
                assert "frame-ancestors 'none'" in foreign.headers["Content-Security-Policy"]
        assert [one.name for one in served.register.devices()] == ["phone"]
        assert served.asked == []

    ask_all(served, talk)


def test_a_name_leads_there_only_where_the_project_says_so(served: Served) -> None:
    served.web = Web(listen=f"{HOST}:{served.port}", names=("box.lan",))

    def talk() -> None:
        assert served.register.served[0] == f"https://box.lan:{served.port}/"
        phone = served.device()
        code = served.invite("phone").code
        named = {"Host": f"Box.LAN:{served.port}", "Origin": f"https://box.lan:{served.port}"}
        assert phone.pair(code, named) == 200
        assert phone.ask("GET", "/v1/x", named)[0] == 200
        assert phone.ask("GET", "/v1/x", {"Host": "box.lan.attacker.example"})[0] == 403

    ask_all(served, talk)


async def test_the_address_that_is_told_is_the_one_that_the_machine_has_now(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after a boot, and changes with the network: nobody has to come to the page before."""
    monkeypatch.setattr(web_server, "_own_name", lambda _: HOST)
    async with served.running():
        before, fingerprint = served.register.served
        for address, shown in (("192.168.1.5", "192.168.1.5"), ("fd00::5", "[fd00::5]")):
            monkeypatch.setattr(web_server, "_own_name", lambda _, address=address: address)
            assert served.register.served == (f"https://{shown}:{served.port}/", fingerprint)
            assert served.register.invite("phone", operates=False).address != before
    assert served.register.served == ("", "")


def test_a_cross_site_post_is_refused_by_its_type_as_well(served: Served) -> None:
    def talk() -> None:
        phone = served.paired("phone", operates=True)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            assert phone.ask("POST", "/v1/x", {"Content-Type": kind}, "{}")[0] == 415
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            assert phone.ask(method, "/v1/x")[0] == 405
        assert phone.ask("POST", "/v1/x", JSON, "x" * 2000)[0] == 413
        assert served.asked == []

    ask_all(served, talk)


def test_who_is_refused_again_and_again_is_not_listened_to_for_a_while(served: Served) -> None:
    def talk() -> None:
        stranger = served.device()
        found = [stranger.ask("GET", "/v1/x")[0] for _ in range(MOST_REFUSED + 5)]
        assert found == [401] * MOST_REFUSED + [429] * 5
        assert "frame-ancestors 'none'" in stranger.headers["Content-Security-Policy"]

    ask_all(served, talk)


Hold = Callable[..., list[ssl.SSLSocket]]


@pytest.fixture
def hold(served: Served) -> Iterator[Hold]:
    """Connections of strangers, who ask for something or nothing, and let them be until the test is over."""
    with ExitStack() as stack:

        def hold(addresses: Sequence[str], *, each: int, asks: str = "") -> list[ssl.SSLSocket]:
            held = []
            for source in [address for address in addresses for _ in range(each)]:
                plain = socket.create_connection((HOST, served.port), 30, (source, 0))
                one = stack.enter_context(trusting().wrap_socket(plain, do_handshake_on_connect=False))
                held.append(one)
                with suppress(OSError):  # of one that is closed at once
                    one.do_handshake()
                    if asks:
                        host = f"GET {asks} HTTP/1.1\r\nHost: {HOST}:{served.port}\r\n"
                        secret = f"Authorization: Bearer {'x' * 43}\r\nCookie: {COOKIE}={'y' * 43}\r\n"
                        one.sendall(f"{host}{secret}\r\n".encode())
                        one.recv(65536)
            return held

        yield hold


def is_held(one: ssl.SSLSocket) -> bool:
    one.settimeout(0.01)
    try:
        while one.recv(65536):
            pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


@pytest.mark.parametrize("asks", ["", "/", "/v1/x"])
def test_strangers_who_hold_connections_keep_no_device_out(served: Served, hold: Hold, asks: str) -> None:
    """Also those that ask for files, or show a secret that is nobody's."""

    def talk() -> None:
        phone = served.paired("phone")
        held = hold([f"127.0.0.{number}" for number in range(2, 8)], each=20, asks=asks)
        for _ in range(3):
            streams = [phone.open("GET", "/v1/watch") for _ in range(6)]
            assert phone.ask("GET", "/v1/x")[0] == 200
            for connection, stream in streams:
                assert stream.read(6) == b"secret"
                connection.close()
        code = served.invite("tablet").code
        assert served.device("127.0.0.9").pair(code) == 200
        still = sum(is_held(one) for one in held)
        assert MOST_UNPROVED - 10 <= still <= MOST_UNPROVED

    ask_all(served, talk)


def test_a_stranger_behind_the_address_of_a_device_does_not_keep_it_out(served: Served, hold: Hold) -> None:
    def talk() -> None:
        phone = served.paired("phone")
        held = hold([HOST], each=MOST_EACH + 5)
        connection, stream = phone.open("GET", "/v1/watch")
        assert phone.ask("GET", "/v1/x")[0] == 200
        assert stream.read(6) == b"secret"
        assert sum(is_held(one) for one in held) <= MOST_EACH - 2
        connection.close()

    ask_all(served, talk)


def test_what_a_device_looks_at_goes_on_while_strangers_come(served: Served, hold: Hold) -> None:
    def talk() -> None:
        phone = served.paired("phone")
        streams = [phone.open("GET", "/v1/watch") for _ in range(6)]
        held = hold([f"127.0.0.{number}" for number in range(2, 14)], each=20)
        for connection, stream in streams:
            assert len(stream.read(10_000)) == 10_000
            connection.close()
        assert sum(is_held(one) for one in held) == MOST_UNPROVED

    ask_all(served, talk)


def test_a_device_that_was_revoked_has_no_connection_that_is_kept_for_devices(served: Served, hold: Hold) -> None:
    def talk() -> None:
        phone, tablet = served.paired("phone"), served.paired("tablet")
        idle = [device.open("GET", "/v1/x") for device in (phone, tablet)]
        for _, answer in idle:
            answer.read()
        served.revoke("phone")
        for device, (connection, _) in zip((phone, tablet), idle, strict=True):
            headers = {"Authorization": f"Bearer {device.token}", "Cookie": device.cookie}
            connection.request("GET", "/v1/x", headers=headers)
            connection.getresponse().read()
        held = hold([HOST], each=MOST_EACH)
        assert [is_held(connection.sock) for connection, _ in idle] == [False, True]
        assert sum(is_held(one) for one in held) == MOST_EACH - 1
        for connection, _ in idle:
            connection.close()

    ask_all(served, talk)


def test_what_does_not_speak_tls_1_3_is_told_nothing(served: Served) -> None:
    def talk() -> None:
        served.paired("phone")
        with socket.create_connection((HOST, served.port), 30) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"HTTP" not in plain.makefile("rb").read()
        old = trusting()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            socket.create_connection((HOST, served.port), 30) as plain,
            pytest.raises(OSError, match=r"(?i)version|eof|reset"),
        ):
            old.wrap_socket(plain)

    ask_all(served, talk)


def test_what_strangers_send_in_one_piece_with_its_end_is_no_line_of_the_log(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    def talk() -> None:
        for _ in range(3):
            sent, got = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = trusting().wrap_bio(got, sent)
            with socket.create_connection((HOST, served.port), 30) as plain:
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        plain.sendall(sent.read())
                        got.write(plain.recv(65536))
                tls.write(f"GET / HTTP/1.1\r\nHost: {HOST}:{served.port}\r\n\r\n".encode())
                with suppress(ssl.SSLWantReadError):
                    tls.unwrap()
                plain.sendall(sent.read())  # the end of the handshake, a question, and that nothing follows
                with suppress(ConnectionResetError):
                    plain.makefile("rb").read()

    ask_all(served, talk)
    assert capfd.readouterr().err == ""


def test_nothing_listens_where_it_is_not_asked_for(served: Served) -> None:
    asked, served.web = served.web, None

    async def talk() -> None:
        assert await asyncio.to_thread(is_silent, served.port)
        assert not (served.run / WEB_SOCKET).exists()
        served.web = asked
        served.changed.tell()
        await until(lambda: bool(served.register.served[0]))
        phone = await asyncio.to_thread(served.paired, "phone")
        served.web = None
        served.changed.tell()
        await until(lambda: is_silent(served.port))
        assert not (served.run / WEB_SOCKET).exists()
        assert processes() == []
        served.web = asked
        served.changed.tell()
        await until(lambda: bool(served.register.served[0]))
        assert (await asyncio.to_thread(phone.ask, "GET", "/v1/x"))[0] == 200

    converse(served, talk)


async def until(question: Callable[[], bool]) -> None:
    while not await asyncio.to_thread(question):  # noqa: ASYNC110 -- nobody tells of it
        await asyncio.sleep(0.01)


def is_silent(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 30).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_certificate_is_kept_and_another_one_is_made_where_it_ends_or_is_damaged(directory: Path) -> None:
    path = directory / "state" / CERTIFICATE
    prints: list[str] = []
    told: list[str] = []

    def look() -> None:
        served = Served(directory, answer)

        def talk() -> None:
            phone = served.device()
            phone.ask("GET", "/")
            prints.append(phone.fingerprint)
            assert served.register.served[1] == prints[-1]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

        ask_all(served, talk)
        told[:] = [one.partition(": ")[2] for one in served.told(Kind.PAGE_CERTIFICATE)]

    look()
    look()
    path.write_bytes(path.read_bytes()[:200])
    look()
    first, second, third = prints
    assert first == second != third
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch"]
    made = asyncio.run(capture([*argv, "-subj", "/CN=dom0", "-days", "29", "-keyout", "-", "-out", "-"]))
    path.write_text(made.stdout)
    look()
    assert told == [first, third, prints[-1]]
    assert len(set(told)) == 3


def test_a_process_that_was_killed_is_said_and_started_again(served: Served) -> None:
    async def talk() -> None:
        phone = await asyncio.to_thread(served.paired, "phone")
        (pid,) = processes()
        os.kill(pid, signal.SIGKILL)
        await served.changed.until(lambda: bool(served.server.problems))
        assert served.server.problems[0].code == "web-unserved"
        await served.changed.until(lambda: not served.server.problems)
        assert (await asyncio.to_thread(phone.ask, "GET", "/v1/x"))[0] == 200

    converse(served, talk)


def test_a_port_that_is_taken_and_a_scope_are_problems(served: Served, directory: Path) -> None:
    with socket.create_server((HOST, served.port)):

        async def talk() -> None:
            assert f"the page is not served at {HOST}:{served.port}: Address" in served.server.problems[0].title

        converse(served, talk)
    guest = Served(directory, answer, is_guest=True)

    async def in_scope() -> None:
        assert "in a scope there is no page on the network" in guest.server.problems[0].title
        assert await asyncio.to_thread(is_silent, guest.port)

    converse(guest, in_scope)


def test_when_its_process_has_ended_the_next_one_who_comes_begins_another(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = f'mkdir {served.run}/first && exit; exec "$@"'  # where it is there, the next one
    monkeypatch.setattr(web_server, "APART", ("sh", "-c", first, "sh", *web_server.APART))

    def talk() -> None:
        assert served.device().ask("GET", "/")[0] == 200
        assert (served.run / "first").is_dir()
        assert not served.server.problems

    ask_all(served, talk)


async def test_a_process_to_which_nobody_comes_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "IDLE", 0.0)
    async with served.running():
        with socket.create_server((HOST, 0)) as listening:
            await network.serve(listening, served.run / WEB_SOCKET, ())
