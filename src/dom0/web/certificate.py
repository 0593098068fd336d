"""The certificate that the page has on the network, by openssl: a key of this machine's own, signed by nobody else.

P-256, because browsers take no other curve that is as short; Ed25519 they refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from dom0.run import capture

DAYS = 825  # as long as every browser lets one be that a person has let in
RENEWED = 30  # days before its end


async def make(names: Sequence[str]) -> bytes:
    """A new key and a certificate of it for these names and addresses, as PEM. Raises CommandFailed."""
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch"]
    argv += ["-sha256", "-days", str(DAYS), "-subj", "/CN=dom0", "-addext", f"subjectAltName={alternatives}"]
    argv += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    made = await capture([*argv, "-keyout", "-", "-out", "-"])
    return made.stdout.encode()


async def fingerprint(pem: bytes) -> str:
    """SHA-256 of the certificate, as browsers show it; "": it is damaged, or ends so soon that it has to be renewed.

    Raises CommandFailed where there is no openssl.
    """
    argv = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-checkend", str(RENEWED * 86400)]
    said = await capture(argv, stdin=pem, check=False)
    return said.stdout.partition("=")[2].splitlines()[0] if said.code == 0 else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
