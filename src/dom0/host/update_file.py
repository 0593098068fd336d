"""Fetches an update file from a path or a URL, and checks its digest and its signature.

Beside FILE may be FILE.sha256 (as sha256sum prints it) and FILE.sig (as `ssh-keygen -Y sign -n dom0-os` makes it), and
the same beside a URL. A digest has to match if there is one; a signature is required and checked only on a machine that
names signers.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import re
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from dom0 import temporary
from dom0.errors import Dom0Error, UsageError
from dom0.run import CommandFailed, capture, transfer
from dom0.wording import excerpt

NAMESPACE = "dom0-os"  # of signatures
_LARGEST = 2 << 30  # bytes of a download
_LARGEST_BESIDE = 64 << 10
_IDLE_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


class UpdateFile(msgspec.Struct, frozen=True):
    """`signature` is None where there is none beside the file."""

    source: str
    file: Path
    signature: Path | None


@asynccontextmanager
async def fetch(source: str, asked: str, say: Callable[[str], None]) -> AsyncIterator[UpdateFile]:
    """`source`, a path or a URL, as a file during the block. It has to match `asked`, a digest if not "", and the one
    beside it.

    Raises Dom0Error.
    """
    if asked and not _DIGEST.fullmatch(asked.lower()):
        raise UsageError(f"--sha256 {excerpt(asked)}: is not a SHA-256 digest", hint="64 hexadecimal digits")
    with TemporaryDirectory(prefix="dom0-update-", dir=temporary.LARGE) as directory:
        if re.match(r"https?://", source):
            update, beside = await _download_all(source, Path(directory), asked, say)
        elif "://" in source:
            raise UsageError(f"{excerpt(source)}: is neither a file nor an http URL")
        else:
            update, beside = _beside(source)
        with update.file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        for digest in (asked.lower(), beside):
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


async def _download_all(url: str, directory: Path, asked: str, say: Callable[[str], None]) -> tuple[UpdateFile, str]:
    """As _beside. The small files come first: without a digest the large one is not downloaded."""
    file, digest, signature = (directory / name for name in ("file", "digest", "signature"))
    told = ""
    if await _download(f"{url}.sha256", digest, _LARGEST_BESIDE):
        told = _digest_of(digest.read_text(errors="replace"), f"{url}.sha256")
    signed = await _download(f"{url}.sig", signature, _LARGEST_BESIDE)
    if not told and not asked:
        raise Dom0Error(
            f"{url}.sha256: not found, and nothing is taken from a server without a digest",
            hint="put it there, or name the digest with --sha256",
        )
    say(f"downloading {url}")
    if not await _download(url, file, _LARGEST):
        raise Dom0Error(f"{url}: not found")
    return UpdateFile(url, file, signature if signed else None), told


async def _download(url: str, target: Path, largest: int) -> bool:
    """False if the server has no such file. Raises Dom0Error."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(_fetch, url, target, largest, stop)
    finally:
        stop.set()  # a thread cannot be cancelled


def _fetch(url: str, target: Path, largest: int, stop: threading.Event) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_IDLE_TIMEOUT) as answer, target.open("wb") as opened:  # noqa: S310 -- http
            size = 0
            while not stop.is_set() and (chunk := answer.read1(_CHUNK)):
                size += len(chunk)
                if size > largest:
                    raise Dom0Error(f"{url}: is larger than {largest >> 10} KiB")
                opened.write(chunk)
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):
            return False
        raise Dom0Error(f"{excerpt(url)}: {error.code} {excerpt(error.reason)}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Dom0Error(f"{excerpt(url)}: {excerpt(str(error)) or type(error).__name__}") from error
    return True


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
