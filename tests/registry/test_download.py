"""Files of web servers over lines that break: what they are for is in tests/host/test_update_file.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import pytest

from dom0.errors import Dom0Error, Final, UsageError
from dom0.registry.depot import Depot
from dom0.registry.download import Downloads
from dom0.registry.fetch import GaveUp, Terms
from dom0.registry.manifest import digest_of
from dom0.registry.progress import Meter
from dom0.testing.fault_proxy import FaultProxy, Faults
from dom0.testing.web_server import Asked, WebServer, reply, served, stretch

CONTENT = os.urandom(4 << 20)
DIGEST = digest_of(CONTENT)
MOST = 1 << 30


@contextlib.asynccontextmanager
async def unseen(_name: str, _meter: Meter) -> AsyncIterator[None]:
    yield


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot", MOST)


@pytest.fixture
def downloads(depot: Depot) -> Downloads:
    return Downloads(lambda: depot, unseen, terms=Terms(patience=5))


def port_of(server: WebServer) -> int:
    return int(server.netloc.rpartition(":")[2])


def ranges(asked: Asked) -> bytes:
    return stretch(asked, CONTENT)


async def content_of(downloads: Downloads, url: str, digest: str = DIGEST, most: int = MOST) -> bytes:
    async with downloads, downloads.file(url, digest, most) as file:
        return file.read_bytes()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_line_that_breaks_costs_nothing(depot: Depot, how: Literal["close", "reset"]) -> None:
    meters: list[Meter] = []

    @contextlib.asynccontextmanager
    async def shown(_name: str, meter: Meter) -> AsyncIterator[None]:
        meters.append(meter)
        yield

    async with (
        served(ranges) as server,
        FaultProxy(port_of(server), Faults(every_bytes=300_000, how=how, rate=4 << 20)) as line,
    ):
        assert await content_of(Downloads(lambda: depot, shown), f"http://127.0.0.1:{line.port}/os.efi") == CONTENT
        assert line.cuts > 5
    assert [meter.received for meter in meters] == [len(CONTENT)]  # a reset drops what was on its way to us
    assert not depot.path(DIGEST).exists()  # it has been used


async def test_after_a_kill_it_goes_on_from_there(depot: Depot, tmp_path: Path) -> None:
    program = """import asyncio, contextlib, sys
from pathlib import Path
from dom0.registry.depot import Depot
from dom0.registry.download import Downloads

@contextlib.asynccontextmanager
async def unseen(name, meter):
    yield

async def main():
    downloads = Downloads(lambda: Depot(Path(sys.argv[1]), 1 << 30), unseen)
    async with downloads, downloads.file(sys.argv[2], sys.argv[3], 1 << 30) as file:
        sys.stdout.buffer.write(file.read_bytes())

asyncio.run(main())
"""
    async with served(ranges) as server, FaultProxy(port_of(server), Faults(rate=4 << 20)) as line:
        url = f"http://127.0.0.1:{line.port}/os.efi"
        argv = [sys.executable, "-c", program, str(depot.root), url, DIGEST]
        killed = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
        async with asyncio.timeout(60):
            while line.sent < len(CONTENT) // 2:  # noqa: ASYNC110 -- the proxy counts and tells nobody
                await asyncio.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        have = depot.have(DIGEST, len(CONTENT))
        assert 0 < have < len(CONTENT)
        before = len(server.asked)
        done = await asyncio.create_subprocess_exec(*argv, stdout=PIPE)
        output, _ = await done.communicate()
        assert output == CONTENT
        starts = [int(asked.headers["range"][6:].partition("-")[0]) for asked in server.asked[before:]]
        assert starts[0] == 0  # how long it is
        assert min(starts[1:]) > 0


async def test_what_is_not_used_well_stays_for_the_next_time(downloads: Downloads, depot: Depot) -> None:
    async with served(ranges) as server, downloads:
        url = f"http://{server.netloc}/os.efi"
        with pytest.raises(Dom0Error, match="not confirmed"):
            async with downloads.file(url, DIGEST, MOST):
                raise Dom0Error("not confirmed")
        before = len(server.asked)
        async with downloads.file(url, DIGEST, MOST) as file:
            assert file.read_bytes() == CONTENT
        assert len(server.asked) == before + 1  # how long it is
    assert not depot.path(DIGEST).exists()


async def test_it_stays_while_somebody_else_uses_it_and_then_nothing_is_left(depot: Depot) -> None:
    async with served(ranges) as server, Downloads(lambda: depot, unseen) as first:
        url = f"http://{server.netloc}/os.efi"
        async with first.file(url, DIGEST, MOST) as file:
            assert await content_of(Downloads(lambda: depot, unseen), url) == CONTENT
            assert file.read_bytes() == CONTENT
    assert list(depot.root.iterdir()) == []


async def test_what_the_disk_has_damaged_since_is_fetched_again(downloads: Downloads, depot: Depot) -> None:
    depot.keep(CONTENT, DIGEST, public=False)
    with depot.path(DIGEST).open("r+b") as kept:
        kept.write(b"damaged")
    async with served(ranges) as server:
        assert await content_of(downloads, f"http://{server.netloc}/os.efi") == CONTENT


async def test_a_proxy_that_is_none_is_refused_only_where_somebody_asks(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://proxy.example")
    async with Downloads(lambda: depot, unseen) as downloads:
        with pytest.raises(UsageError, match="HTTP_PROXY: proxies of socks5 are not supported"):
            await downloads.read("http://127.0.0.1:1/os.efi", MOST)


Answer = Callable[[Asked], bytes]
REFUSED: dict[str, tuple[Answer, str]] = {
    "not there": (lambda _: reply(404), "not found"),
    "no longer there": (lambda _: reply(410), "not found"),
    "of another digest": (lambda asked: stretch(asked, CONTENT[:-1] + b"x"), f"{DIGEST}: something else came"),
    "of no length": (
        lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "does not say how long it is",
    ),
    "of a length that is none": (
        lambda _: reply(206, b"x", Content_Range="bytes 0-0/*"),
        "does not say how long it is",
    ),
    "too long": (lambda _: reply(206, b"x", Content_Range=f"bytes 0-0/{MOST + 1}"), "is larger than 1024 MiB"),
    "elsewhere, for ever": (lambda asked: reply(302, Location=f"{asked.target}x"), "redirects"),
    "of another protocol": (lambda _: reply(302, Location="file:///etc/passwd"), "no address of a server"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_the_file_is_refused(downloads: Downloads, case: str) -> None:
    answer, why = REFUSED[case]
    async with served(answer) as server:
        with pytest.raises(Final, match=why):
            await content_of(downloads, f"http://{server.netloc}/os.efi")


async def test_a_server_that_is_not_there_is_asked_until_patience_ends(depot: Depot) -> None:
    impatient = Downloads(lambda: depot, unseen, terms=Terms(patience=0))
    with pytest.raises(GaveUp, match=r"no connection to 127\.0\.0\.1:1"):
        await content_of(impatient, "http://127.0.0.1:1/os.efi")


async def test_a_small_file_is_there_or_not(downloads: Downloads) -> None:
    def answer(asked: Asked) -> bytes:
        return reply(200, b"x" * 100) if asked.path == "/small" else reply(404)

    async with served(answer) as server, downloads:
        assert await downloads.read(f"http://{server.netloc}/small", 100) == b"x" * 100
        assert await downloads.read(f"http://{server.netloc}/none", 100) is None
        with pytest.raises(Final, match="longer than"):
            await downloads.read(f"http://{server.netloc}/small", 99)


async def test_from_tls_nothing_leads_to_plain_text(certificates: Path, depot: Depot, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    async with (
        served(ranges) as plain,
        served(lambda _: reply(302, Location=f"http://{plain.netloc}/os.efi"), tls=tls) as server,
    ):
        (tmp_path / "certs.d" / server.netloc).mkdir(parents=True)
        shutil.copy(certificates / "ca.pem", tmp_path / "certs.d" / server.netloc / "ca.crt")
        trusting = Downloads(lambda: depot, unseen, certificates=tmp_path / "certs.d")
        with pytest.raises(Final, match="in plain text"):
            await content_of(trusting, f"https://{server.netloc}/os.efi")
        stranger = Downloads(lambda: depot, unseen, certificates=tmp_path / "none")
        with pytest.raises(Final, match="has no certificate that is trusted"):
            await content_of(stranger, f"https://{server.netloc}/os.efi")
    assert plain.asked == []
