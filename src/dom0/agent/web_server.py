"""The page on the network where `x-dom0.web` asks for it, and nothing where it does not.

The agent listens, and lets a process answer that has no rights (`web/network`), when somebody comes and as long as
somebody looks: a user of its own, no capabilities, a network namespace with nothing in it, the listening socket, and a
root directory with nothing in it but a socket of ours. There a device is asked for its secret at each question, and is
answered what it may ask, by the same routes as on every other socket. Whoever takes that process over has what devices
give him and the key of the certificate, and no more.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import msgspec

from dom0.agent import api
from dom0.agent.devices import DeviceRegister, nowhere
from dom0.agent.events import Kind
from dom0.agent.journal import Journal
from dom0.agent.listener import Listener, connected
from dom0.agent.progress import Changes
from dom0.durable import write_atomic
from dom0.errors import Dom0Error
from dom0.http import server
from dom0.http.server import Handler, HttpError, Request, Response
from dom0.names import WEB_SOCKET, WEB_USER, Access
from dom0.plan.desired import Web
from dom0.run import beside_result, ourselves
from dom0.unix_socket import listen

CERTIFICATE = "web/server.pem"
ANEW = 86400.0  # seconds, and the certificate is looked at again; the process has it as it was when it began
MOST = 128  # questions of that process at once
LARGEST_BODY = 4096  # bytes; the page passes on less
APART = ("unshare", "--net", "--ipc", "setpriv", "--no-new-privs", "--pdeathsig=KILL", "--")


class PairingCode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code that a device has sent."""

    code: str
    address: str


class WebServer(Listener[Web]):
    """`answers`: what is answered to a device of that access and name."""

    key = subject = "web"
    code = "web-unserved"
    failed = "the page is not served"

    def __init__(
        self,
        changed: Changes,
        wanted: Callable[[], Web | None],
        register: DeviceRegister,
        answers: Callable[[Access, str], Handler],
        *,
        state: Path,
        run: Path,
        journal: Journal,
        is_guest: bool = False,
    ) -> None:
        super().__init__(changed, wanted)
        self._register = register
        self._answers = answers
        self._file = state / CERTIFICATE
        self._socket = run / WEB_SOCKET
        self._journal = journal
        self._is_guest = is_guest
        self._pem = b""

    async def serve(self, asked: Web, listening: socket.socket) -> None:
        if self._is_guest:
            raise Dom0Error("in a scope there is no page on the network", hint="dom0 web")
        argv = [*APART, *ourselves("web-serve", str(self._socket), *asked.names)]
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        async with self._answering():
            while True:
                fingerprint = await self._certify((_own_name(listening), *asked.names))
                self._register.page = partial(_served, asked, listening, fingerprint)
                self.tell(())
                try:
                    async with asyncio.timeout(ANEW):
                        await connected(listening)
                    async with asyncio.timeout(ANEW):
                        code = await beside_result(argv, env=environment, stdin=listening.fileno())
                except TimeoutError:
                    continue
                if code:
                    what = f"its process has ended with exit code {code}"
                    raise Dom0Error(what, hint="see why: docker logs dom0; it is started again")

    async def _certify(self, names: tuple[str, ...]) -> str:
        """The fingerprint of a certificate that does not end soon. Raises OSError, Dom0Error."""
        from dom0.web import certificate

        with suppress(FileNotFoundError):
            self._pem = self._file.read_bytes()
        found = await certificate.fingerprint(self._pem)
        if not found:
            why = "the one before ends, or is damaged" if self._pem else "there was none"
            self._pem = await certificate.make(names)
            write_atomic(self._file, self._pem)
            found = await certificate.fingerprint(self._pem)
            self._journal.note(Kind.PAGE_CERTIFICATE, "the page", f"the page has a new certificate: {found}", why)
        return found

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """What the process asks, on a socket that is its user's and root's."""
        self._socket.parent.mkdir(parents=True, exist_ok=True)
        self._socket.parent.chmod(0o755)
        try:
            listening = listen(self._socket, mode=0o660, owner=(0, WEB_USER))
            async with server.serve(partial(api.answer, self._answer), listening, most=MOST):
                yield
        finally:
            self._register.page = nowhere
            self._socket.unlink(missing_ok=True)

    async def _answer(self, request: Request) -> Response:
        from dom0.web import network

        match request.method, request.path:
            case "GET", network.PEM:
                return Response(self._pem, content_type="application/x-pem-file")
            case "POST", "/session":
                try:
                    asked = msgspec.json.decode(await request.read(LARGEST_BODY), type=PairingCode)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise HttpError(400, str(error)) from error
                if (pairing := self._register.pair(asked.code, _address(asked.address))) is None:
                    raise HttpError(401, "this is not the code, or it is not valid any more: dom0 web pair")
                return Response(msgspec.json.encode(pairing))
        if request.method == "POST":  # all of it: who is revoked while it comes has asked for nothing
            await request.hold(LARGEST_BODY)
        secret = request.headers.get("Authorization").removeprefix("Bearer ")
        address = _address(request.headers.get(network.ADDRESS))
        device = self._register.find(secret, address)
        if device is None:
            raise HttpError(401, "this device is not paired any more: dom0 web pair")
        access = Access.OPERATE if device.operates else Access.VIEW
        response = await self._answers(access, device.name)(request)
        if isinstance(response.body, AsyncGenerator):
            if self._register.find(secret, address) is None:  # meanwhile
                raise HttpError(401, "this device is not paired any more: dom0 web pair")
            task = asyncio.current_task()
            assert task is not None
            self._register.follow(device, task)
        return msgspec.structs.replace(response, closes=True)


def _served(asked: Web, listening: socket.socket, fingerprint: str) -> tuple[str, str]:
    """The URL of the page as this machine is reached now: its address may come after it listens, and change."""
    host, port = _own_name(listening), f":{listening.getsockname()[1]}".removesuffix(":443")
    shown = asked.names[0] if asked.names else f"[{host}]" if ":" in host else host
    return f"https://{shown}{port}/", fingerprint


def _own_name(listening: socket.socket) -> str:
    """The address that is listened at; where that is all of them, the one that this machine has towards others."""
    host = str(listening.getsockname()[0])
    if not ip_address(host).is_unspecified:
        return host
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as towards:
            towards.connect((elsewhere, 9))  # which sends nothing
            return str(towards.getsockname()[0])
    return "127.0.0.1"  # it has none now


def _address(text: str) -> str:
    """As the process without rights says it, so it may be anything."""
    try:
        return str(ip_address(text))
    except ValueError:
        return "an unknown address"
