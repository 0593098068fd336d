"""How a farm's server is recognised: by the fingerprint of its certificate, which a node is told beforehand.

No authority signs it and nothing expires, so it needs neither names nor a clock that is right. The node checks the
fingerprint before it says a word; TLS proves that the other end has the key.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
from pathlib import Path

import msgspec

from dom0.errors import Dom0Error, UsageError
from dom0.http.channel import READ_AHEAD, Streams
from dom0.run import capture
from dom0.wording import excerpt

CONNECT_WITHIN = 20.0  # seconds
_BEGIN = "-----BEGIN CERTIFICATE-----"
_NAME = r"(?=[^:]{1,253}:)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*"
_ADDRESS = re.compile(rf"(?P<host>{_NAME}|[0-9a-f:]{{2,39}}):(?P<port>[0-9]{{1,5}}):(?P<hash>[0-9a-f]{{64}})")


class NotTheServer(Dom0Error):
    """Somebody else answers there."""


class Pin(msgspec.Struct, frozen=True):
    """`fingerprint`: SHA-256 of the certificate in DER, 64 hexadecimal digits."""

    host: str
    port: int
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}:{self.fingerprint}"


def parse(text: str) -> Pin:
    """HOST:PORT:FINGERPRINT, as the boot contract has it: an IPv6 address without brackets. Raises UsageError."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        what = f"{excerpt(text)}: is not HOST:PORT:FINGERPRINT" if text else "HOST:PORT:FINGERPRINT is missing"
        raise UsageError(what, hint="the farm's server prints it: dom0 farm serve")
    return Pin(found["host"], int(found["port"]), found["hash"])


async def make_certificate(name: str) -> bytes:
    """A new key and a certificate of it, as PEM. Raises CommandFailed."""
    argv = ["openssl", "req", "-x509", "-newkey", "ed25519", "-noenc", "-batch", "-subj", f"/CN={name}"]
    made = await capture([*argv, "-days", "36500", "-keyout", "-", "-out", "-"])
    return made.stdout.encode()


def fingerprint(pem: Path) -> str:
    """Of the certificate in `pem`. Raises Dom0Error, OSError."""
    try:
        text = pem.read_text(errors="replace")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[text.index(_BEGIN) :].strip())).hexdigest()
    except ValueError as error:
        raise _damaged(pem) from error
    except FileNotFoundError as error:
        hint = "put a copy of it in its place; without one the farm is made anew, see docs/farm.md"
        raise Dom0Error(f"{pem}: is not there", hint=hint) from error


def of_server(pem: Path) -> ssl.SSLContext:
    """Raises Dom0Error, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(pem)
    except ssl.SSLError as error:
        raise _damaged(pem) from error
    return context


async def connect(pin: Pin) -> Streams:
    """To the server that has the certificate. Raises NotTheServer, OSError; TimeoutError is one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint says more
    async with asyncio.timeout(CONNECT_WITHIN):
        reader, writer = await asyncio.open_connection(pin.host, pin.port, ssl=context, limit=READ_AHEAD)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    if not hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), pin.fingerprint):
        writer.transport.abort()
        raise NotTheServer(
            f"{pin.host}:{pin.port}: another server answers there than the farm's: its fingerprint is another",
            hint="nothing was told to it; what is the farm's prints dom0 farm serve",
        )
    return reader, writer


def _damaged(pem: Path) -> Dom0Error:
    return Dom0Error(
        f"{pem}: is damaged: it has no key and certificate",
        hint="put a copy of it in its place; nodes know the server by it",
    )
