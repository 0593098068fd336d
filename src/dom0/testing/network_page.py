"""The page on the network of a test, and whoever reaches its port: over TLS, and as a device."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from dom0.agent.device_status import Invitation
from dom0.agent.devices import DeviceRegister
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.progress import Changes
from dom0.agent.web_server import WebServer
from dom0.forward import place
from dom0.http.server import Handler
from dom0.names import Access
from dom0.plan.desired import Web

HOST = "127.0.0.1"


def trusting_flag(*certificates: Path) -> str:
    """Of a browser whose person has compared the fingerprints of these, and lets no other one in."""
    hashes = []
    for pem in certificates:
        argv = ["openssl", "x509", "-noout", "-pubkey", "-in", str(pem)]
        key = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(base64.b64decode("".join(key.splitlines()[1:-1]))).digest()
        hashes.append(base64.b64encode(digest).decode())
    return f"--ignore-certificate-errors-spki-list={','.join(hashes)}"


def trusting() -> ssl.SSLContext:
    """As a browser whose person has let the certificate in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Device:
    """`token` and `cookie` are what it has been given; `source` is its address, `namespace` the network it is in."""

    def __init__(self, host: str, port: int, *, source: str = "", namespace: str = "") -> None:
        self._source = (source, 0) if source else None
        self._place = place.own(namespace)
        self.host = host
        self.port = port
        self.cookie = ""
        self.token = ""
        self.headers: dict[str, str] = {}
        self.fingerprint = ""

    def open(
        self, method: str, path: str, headers: Mapping[str, str] = {}, body: str = ""
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """A question, and the answer while it comes. The headers are sent besides those of the page, or instead."""
        connection = http.client.HTTPSConnection(self.host, self.port)
        plain = self._place.call(lambda: socket.create_connection((self.host, self.port), 30, self._source))
        connection.sock = trusting().wrap_socket(plain)
        connection.putrequest(method, path, skip_host=True)
        own = {"Host": f"{self.host}:{self.port}", "Authorization": f"Bearer {self.token}", "Cookie": self.cookie}
        for name, value in (own | dict(headers)).items():
            if value:
                connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() or None)
        found = connection.sock.getpeercert(binary_form=True)
        self.fingerprint = hashlib.sha256(found or b"").digest().hex(":").upper()
        answer = connection.getresponse()
        self.headers = dict(answer.getheaders())
        return connection, answer

    def ask(self, method: str, path: str, headers: Mapping[str, str] = {}, body: str = "") -> tuple[int, bytes]:
        """Of a stream that is answered nothing is read."""
        connection, answer = self.open(method, path, headers, body)
        is_stream = answer.status == 200 and "ndjson" in self.headers["Content-Type"]
        said = b"" if is_stream else answer.read()
        connection.close()
        return answer.status, said

    def pair(self, code: str, headers: Mapping[str, str] = {}) -> int:
        """Type a code, as the page does; the status."""
        status, said = self.ask(
            "POST", "/session", {"Content-Type": "application/json"} | dict(headers), json.dumps({"code": code})
        )
        if status == 200:
            self.token = json.loads(said)["token"]
            self.cookie = self.headers["Set-Cookie"].partition(";")[0]
        return status


class Served:
    """The page as the agent of a machine without anything has it; `answers` are the machine's, to whoever it may be."""

    def __init__(self, directory: Path, answer: Handler, *, is_guest: bool = False) -> None:
        with socket.create_server((HOST, 0)) as server:
            self.port = int(server.getsockname()[1])
        self.web: Web | None = Web(listen=f"{HOST}:{self.port}")
        self.asked: list[tuple[Access, str]] = []
        self.state, self.run = directory / "state", directory
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.changed = Changes()
        self.journal = Journal(self.state, now=lambda: 1000.0, boot="0" * 8)
        self.register = DeviceRegister(self.state, self.journal)
        self._answer = answer
        self.server = WebServer(
            self.changed,
            lambda: self.web,
            self.register,
            self._answered,
            state=self.state,
            run=self.run,
            journal=self.journal,
            is_guest=is_guest,
        )

    def _answered(self, access: Access, name: str) -> Handler:
        self.asked.append((access, name))
        return self._answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As soon as it listens, or cannot."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self.server.run())
        try:
            async with asyncio.timeout(120):
                while self.web and not (self.register.served[0] or self.server.problems):  # noqa: ASYNC110 -- it is untold
                    await asyncio.sleep(0.01)
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self.journal.close()

    def device(self, source: str = "") -> Device:
        return Device(HOST, self.port, source=source)

    # from another thread than the one that serves

    def invite(self, name: str, *, operates: bool = False) -> Invitation:
        async def ask() -> Invitation:
            return self.register.invite(name, operates=operates)

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(60)

    def revoke(self, name: str) -> None:
        async def ask() -> None:
            self.register.revoke(name)

        asyncio.run_coroutine_threadsafe(ask(), self._loop).result(60)

    def paired(self, name: str, *, operates: bool = False) -> Device:
        device = self.device()
        assert device.pair(self.invite(name, operates=operates).code) == 200
        return device

    def told(self, kind: Kind) -> list[str]:
        return [one.text for one in self.journal.read(0, 1000) if one.kind == kind]


@contextmanager
def open_directory() -> Iterator[Path]:
    """Where a user without rights may pass."""
    path = Path(tempfile.mkdtemp(prefix="dom0-web-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
