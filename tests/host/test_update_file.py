"""Update files from somewhere: their digests, their signatures, and servers that say what they like."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.server
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from dom0.cli.image_pull import own_depot
from dom0.errors import Dom0Error
from dom0.host import update_file
from dom0.registry.download import Downloads
from dom0.registry.fetch import Terms
from dom0.registry.progress import Meter

DIGEST = hashlib.sha256(b"base os").hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "os.efi").write_bytes(b"base os")
    return tmp_path / "served" / "os.efi"


@pytest.fixture
def url(file: Path) -> Iterator[str]:
    """Where `file` and what lies beside it is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(file.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/os.efi"
        server.shutdown()
        thread.join()


@contextlib.asynccontextmanager
async def unseen(_name: str, _meter: Meter) -> AsyncIterator[None]:
    yield


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOM0_STATE", str(tmp_path / "state"))


def check(source: str, *, sha256: str = "", signers: str = "") -> str:
    async def work() -> str:
        async with (
            Downloads(own_depot, unseen, terms=Terms(patience=0)) as server,
            update_file.fetch(source, sha256, server) as update,
        ):
            assert update.file.read_bytes() == b"base os"
            return await update_file.check_signature(update, signers)

    return asyncio.run(work())


def beside(file: Path, text: str) -> None:
    file.with_name("os.efi.sha256").write_text(text)


def test_a_file_may_come_without_a_digest(file: Path) -> None:
    assert check(str(file)) == ""


@pytest.mark.parametrize("text", [DIGEST, f"{DIGEST}  os.efi\n", f"{DIGEST.upper()} *os.efi\n"])
def test_a_digest_beside_the_file_is_checked(text: str, file: Path, url: str) -> None:
    beside(file, text)
    check(str(file), sha256=DIGEST)
    check(url)


def test_another_digest_is_refused(file: Path, url: str) -> None:
    with pytest.raises(Dom0Error, match="has the digest"):
        check(str(file), sha256="0" * 64)
    with pytest.raises(Dom0Error, match="something else came"):
        check(url, sha256="0" * 64)
    beside(file, "0" * 64)
    with pytest.raises(Dom0Error, match="has the digest"):
        check(str(file), sha256=DIGEST)
    with pytest.raises(Dom0Error, match="says that it has the digest 0"):
        check(url, sha256=DIGEST)
    with pytest.raises(Dom0Error, match="something else came"):
        check(url)


@pytest.mark.parametrize("text", ["", "<html>", "0" * 63])
def test_what_is_no_digest_is_refused(text: str, file: Path) -> None:
    beside(file, text)
    with pytest.raises(Dom0Error, match="holds no SHA-256 digest"):
        check(str(file))
    beside(file, DIGEST)
    with pytest.raises(Dom0Error, match="is not a SHA-256 digest"):
        check(str(file), sha256="abc")


def test_from_a_server_nothing_is_taken_without_a_digest(url: str) -> None:
    with pytest.raises(Dom0Error, match="nothing is taken from a server without a digest"):
        check(url)
    check(url, sha256=DIGEST)


def test_a_server_without_the_file_or_none_at_all_is_an_error(url: str) -> None:
    with pytest.raises(Dom0Error, match="not found"):
        check(f"{url}.gone", sha256=DIGEST)
    with pytest.raises(Dom0Error, match="refused"):
        check("http://127.0.0.1:1/os.efi")
    for wrong in ("http://127.0.0.1:port/os.efi", "http://127.0.0.1/an os.efi", "http://[::1/os.efi"):
        with pytest.raises(Dom0Error, match=re.escape(wrong)):
            check(wrong)
    with pytest.raises(Dom0Error, match="neither a file nor an http URL"):
        check("file:///etc/passwd")


def test_a_download_without_an_end_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_file, "_LARGEST", 3)
    with pytest.raises(Dom0Error, match="is larger than"):
        check(url, sha256=DIGEST)


def test_what_speaks_no_http_is_an_error() -> None:
    def answer(server: socket.socket) -> None:
        with server.accept()[0] as client:
            client.recv(65536)  # what is closed with something unread is reset, and its answer lost
            client.send(b"SSH-2.0-OpenSSH_10.0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        with pytest.raises(Dom0Error, match="OpenSSH"):
            check(f"http://127.0.0.1:{server.getsockname()[1]}/os.efi")
        thread.join()


def test_an_interrupt_ends_a_download(tmp_path: Path) -> None:
    begun, over = threading.Event(), threading.Event()

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if self.path.endswith(".sig") else 200)
            self.send_header(
                "Content-Length",
                "64" if self.path.endswith(".sha256") else "0" if self.path.endswith(".sig") else str(1 << 30),
            )
            self.end_headers()
            if self.path.endswith(".sha256"):
                self.wfile.write(DIGEST.encode())
            elif self.path.endswith(".efi"):
                with contextlib.suppress(OSError):
                    while not over.wait(0.01):
                        self.wfile.write(b"base os")
                        begun.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
            pass

    program = """import asyncio, contextlib, sys
from dom0.cli.image_pull import own_depot, shown
from dom0.host import update_file
from dom0.registry.download import Downloads

async def main():
    async with Downloads(own_depot, shown) as server, update_file.fetch(sys.argv[1], '', server):
        pass

asyncio.run(main())
"""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/os.efi"
        client = subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, text=True)
        try:
            assert begun.wait(60)
            client.send_signal(signal.SIGINT)
            assert "KeyboardInterrupt" in client.communicate(timeout=60)[1]
        finally:
            client.kill()
            over.set()
            server.shutdown()


class Signer:
    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.key = directory / name.partition("@")[0]
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.key)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)

    @property
    def allowed(self) -> str:
        return f'{self.name} namespaces="dom0-os" {Path(f"{self.key}.pub").read_text()}'

    def sign(self, file: Path, namespace: str = "dom0-os") -> None:
        file.with_name(f"{file.name}.sig").unlink(missing_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", self.key, file], check=True)


@pytest.fixture
def alice(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "alice@example.com")


def test_a_signature_of_somebody_believed_is_taken(file: Path, url: str, alice: Signer) -> None:
    alice.sign(file)
    beside(file, DIGEST)
    assert check(str(file), signers=alice.allowed) == "alice@example.com"
    assert check(url, signers=f"# ours\n{alice.allowed}") == "alice@example.com"


def test_where_no_signer_is_left_nothing_is_taken(file: Path, alice: Signer) -> None:
    alice.sign(file)
    with pytest.raises(Dom0Error, match="not signed by anybody"):
        check(str(file), signers="# /var/lib/dom0/os-signers\n")


def test_without_a_signature_nothing_is_taken_where_signers_are_named(file: Path, alice: Signer) -> None:
    with pytest.raises(Dom0Error, match="is not signed"):
        check(str(file), signers=alice.allowed)


def test_a_signature_of_somebody_else_for_something_else_or_of_another_file_is_refused(
    file: Path, alice: Signer, tmp_path: Path
) -> None:
    refused = pytest.raises(Dom0Error, match="not signed by anybody whom this machine believes")
    Signer(tmp_path, "mallory@example.com").sign(file)
    with refused:
        check(str(file), signers=alice.allowed)
    alice.sign(file, namespace="file")
    with refused:
        check(str(file), signers=alice.allowed)
    other = tmp_path / "other"
    other.write_bytes(b"other os")
    alice.sign(other)
    file.with_name("os.efi.sig").write_bytes(other.with_name("other.sig").read_bytes())
    with refused:
        check(str(file), signers=alice.allowed)
    file.with_name("os.efi.sig").write_text("no signature")
    with refused:
        check(str(file), signers=alice.allowed)
