"""An update file from a path or a URL, and whether its digest and its signature are right.

Beside FILE may be FILE.sha256 (as sha256sum prints it) and FILE.sig (as `ssh-keygen -Y sign -n dom0-os` makes it), and
the same beside a URL. A digest has to match if there is one; a signature is required and checked only on a machine that
names signers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from dom0 import temporary
from dom0.errors import Dom0Error, UsageError
from dom0.run import CommandFailed, capture, transfer
from dom0.wording import excerpt

NAMESPACE = "dom0-os"  # of signatures
_LARGEST = 2 << 30  # bytes of a download
_LARGEST_BESIDE = 64 << 10
_DIGEST = re.compile(r"[0-9a-f]{64}")


class UpdateFile(msgspec.Struct, frozen=True):
    """`signature` is None where there is none beside the file."""

    source: str
    file: Path
    signature: Path | None


class Server(Protocol):
    """Gets files of web servers, however often the line breaks. Both raise Dom0Error for more than `most` bytes."""

    async def read(self, url: str, most: int) -> bytes | None:
        """None where there is no such file."""

    def file(self, url: str, digest: str, most: int) -> AbstractAsyncContextManager[Path]:
        """One with that digest (`sha256:…`), during the block."""


@asynccontextmanager
async def fetch(source: str, asked: str, server: Server) -> AsyncIterator[UpdateFile]:
    """`source`, a path or a URL, as a file during the block. It has to match `asked`, a digest if not "", and the one
    beside it.

    Raises Dom0Error.
    """
    asked = asked.lower()
    if asked and not _DIGEST.fullmatch(asked):
        raise UsageError(f"--sha256 {excerpt(asked)}: is not a SHA-256 digest", hint="64 hexadecimal digits")
    async with AsyncExitStack() as stack:
        if re.match(r"https?://", source):
            update, beside = await _download(source, asked, server, stack)
        elif "://" in source:
            raise UsageError(f"{excerpt(source)}: is neither a file nor an http URL", hint="give one of both")
        else:
            update, beside = _beside(source)
        with update.file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        for digest in (asked, beside):
            if digest and digest != found:
                raise Dom0Error(f"{update.source}: has the digest {found}, not {digest}", hint="fetch it again")
        yield update


def _beside(source: str) -> tuple[UpdateFile, str]:
    """The file, and the digest beside it, "" if there is none."""
    file, digest, signature = (Path(f"{source}{end}") for end in ("", ".sha256", ".sig"))
    if not file.is_file():
        raise UsageError(f"{source}: no such file", hint="dom0 os build makes dom0-os/dom0-os.efi")
    told = _digest_of(digest.read_text(errors="replace"), str(digest)) if digest.is_file() else ""
    return UpdateFile(source, file, signature if signature.is_file() else None), told


async def _download(url: str, asked: str, server: Server, stack: AsyncExitStack) -> tuple[UpdateFile, str]:
    """As _beside, during `stack`. The small files come first: without a digest the large one is not downloaded."""
    beside = await server.read(f"{url}.sha256", _LARGEST_BESIDE)
    told = "" if beside is None else _digest_of(beside.decode(errors="replace"), f"{url}.sha256")
    signature = await server.read(f"{url}.sig", _LARGEST_BESIDE)
    if not told and not asked:
        raise Dom0Error(
            f"{url}.sha256: not found, and nothing is taken from a server without a digest",
            hint="put it there, or name the digest with --sha256",
        )
    if told and asked and told != asked:
        raise Dom0Error(
            f"{url}.sha256: says that it has the digest {told}, not {asked}", hint="ask who has published it"
        )
    signed = None
    if signature is not None:
        signed = stack.enter_context(temporary.directory("update")) / "signature"
        signed.write_bytes(signature)
    file = await stack.enter_async_context(server.file(url, f"sha256:{told or asked}", _LARGEST))
    return UpdateFile(url, file, signed), told


def _digest_of(text: str, where: str) -> str:
    words = text.split()
    if not words or not _DIGEST.fullmatch(words[0].lower()):
        raise Dom0Error(f"{where}: holds no SHA-256 digest", hint="sha256sum dom0-os.efi > dom0-os.efi.sha256")
    return words[0].lower()


async def check_signature(update: UpdateFile, signers: str) -> str:
    """Who of `signers` (a file of allowed signers, see ssh-keygen) signed it; "" if `signers` is "".

    Raises Dom0Error, also if `signers` is a file without any.
    """
    if not signers:
        return ""
    if update.signature is None:
        raise Dom0Error(
            f"{update.source}: is not signed, and this machine takes only signed updates",
            hint=f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY dom0-os.efi",
        )
    with temporary.directory("signers") as directory:
        allowed = directory / "signers"
        allowed.write_text(signers)
        common = ["-f", str(allowed), "-s", str(update.signature)]
        try:
            found = await capture(["ssh-keygen", "-Y", "find-principals", *common])
            who = found.stdout.splitlines()[0]
            with update.file.open("rb") as content:
                await transfer(["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", who, *common], stdin=content)
        except (CommandFailed, IndexError) as error:
            if isinstance(error, CommandFailed) and error.code is None:
                raise  # there is no ssh-keygen
            raise Dom0Error(
                f"{update.source}: is not signed by anybody whom this machine believes",
                hint="they are in /var/lib/dom0/os-signers",
            ) from error
    return who
