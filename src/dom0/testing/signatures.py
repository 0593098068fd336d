"""Key pairs that sign images, with Debian's cosign as people do it, and by hand for what it would not sign."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path


def missing() -> str:
    """Why nothing can be signed on this machine; empty if it can."""
    return "" if shutil.which("cosign") else "not installed: cosign"


class Keys:
    """`public` and `private` are cosign's; `plain_public` is of another pair, which `sign` signs with."""

    def __init__(self, directory: Path) -> None:
        self.public, self.private = directory / "cosign.pub", directory / "cosign.key"
        self.plain_public, self._plain = directory / "plain.pub", directory / "plain.key"
        self._env = {**os.environ, "COSIGN_PASSWORD": "", "HOME": str(directory)}
        subprocess.run(["cosign", "generate-key-pair"], cwd=directory, env=self._env, check=True, capture_output=True)
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(self._plain))
        _openssl("pkey", "-in", str(self._plain), "-pubout", "-out", str(self.plain_public))

    def cosign(self, name: str) -> None:
        """`name` is an image with its digest, in a registry on this machine."""
        argv = ["cosign", "sign", "--yes", "--tlog-upload=false", "--key", str(self.private), name]
        subprocess.run(argv, env=self._env, check=True, capture_output=True)

    def sign(self, text: bytes) -> str:
        signature = _openssl("dgst", "-sha256", "-sign", str(self._plain), stdin=text)
        return base64.b64encode(signature).decode()


def _openssl(*argv: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *argv], input=stdin, check=True, capture_output=True).stdout
