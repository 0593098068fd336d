"""An update file that comes from somewhere: brought here, and checked against its digest and its signature.

Beside FILE may lie FILE.sha256 (as sha256sum prints it) and FILE.sig (as `ssh-keygen -Y sign -n dom0-os` makes it), and
the same beside a URL. What was not asked for need not be there, but what is there has to be right.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from dom0.errors import Dom0Error, UsageError
from dom0.run import CommandFailed, capture, transfer

NAMESPACE = "dom0-os"  # of signatures
_LARGEST = 2 << 30  # bytes of a download
_LARGEST_BESIDE = 64 << 10
_PATIENCE = 60.0  # seconds without a byte
_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Update:
    """`digest` is "" and `signature` None where there is none beside the file."""

    source: str
    file: Path
    digest: str
    signature: Path | None


@asynccontextmanager
async def brought(source: str) -> AsyncIterator[Update]:
    """`source`, a path or a URL, as a file for the time of the block. Raises Dom0Error."""
    with TemporaryDirectory(prefix="dom0-update-") as directory:
        if re.match(r"https?://", source):
            yield await asyncio.to_thread(_download_all, source, Path(directory))
        elif "://" in source:
            raise UsageError(f"{source}: is neither a file nor an http URL")
        else:
            yield _beside(source)


def _beside(source: str) -> Update:
    file, digest, signature = (Path(f"{source}{end}") for end in ("", ".sha256", ".sig"))
    if not file.is_file():
        raise UsageError(f"{source}: no such file", hint="dom0 os build makes dom0-os/dom0-os.efi")
    told = _digest_of(digest.read_text(errors="replace"), str(digest)) if digest.is_file() else ""
    return Update(source, file, told, signature if signature.is_file() else None)


def _download_all(url: str, directory: Path) -> Update:
    file, digest, signature = (directory / name for name in ("file", "digest", "signature"))
    if not _download(url, file, _LARGEST):
        raise Dom0Error(f"{url}: not found")
    told = ""
    if _download(f"{url}.sha256", digest, _LARGEST_BESIDE):
        told = _digest_of(digest.read_text(errors="replace"), f"{url}.sha256")
    signed = _download(f"{url}.sig", signature, _LARGEST_BESIDE)
    return Update(url, file, told, signature if signed else None)


def _download(url: str, target: Path, largest: int) -> bool:
    """False if the server has no such file. Raises Dom0Error."""
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer, target.open("wb") as opened:  # noqa: S310 -- http
            _copy(answer, opened, url, largest)
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):
            return False
        raise Dom0Error(f"{url}: {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:
        raise Dom0Error(f"{url}: {error}") from error
    return True


def _copy(answer: IO[bytes], opened: IO[bytes], url: str, largest: int) -> None:
    size = 0
    while chunk := answer.read(_CHUNK):
        size += len(chunk)
        if size > largest:
            raise Dom0Error(f"{url}: is larger than {largest >> 10} KiB")
        opened.write(chunk)


def _digest_of(text: str, where: str) -> str:
    words = text.split()
    if not words or not _DIGEST.fullmatch(words[0].lower()):
        raise Dom0Error(f"{where}: holds no SHA-256 digest", hint="sha256sum dom0-os.efi > dom0-os.efi.sha256")
    return words[0].lower()


def check_digest(update: Update, asked: str) -> None:
    """`asked` is what the caller knows ("" nothing). Raises Dom0Error if one of the digests is another."""
    if asked and not _DIGEST.fullmatch(asked.lower()):
        raise UsageError(f"--sha256 {asked}: is no SHA-256 digest", hint="64 hexadecimal digits")
    if not asked and not update.digest and "://" in update.source:
        raise Dom0Error(
            f"{update.source}: comes without a digest", hint="put .sha256 beside it, or name it with --sha256"
        )
    with update.file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    for told in (asked.lower(), update.digest):
        if told and told != found:
            raise Dom0Error(f"{update.source}: has the digest {found}, not {told}", hint="fetch it again")


async def check_signature(update: Update, signers: str) -> str:
    """Who signed it, of `signers` (as ssh-keygen's allowed signers); "" where nobody has to. Raises Dom0Error."""
    if not signers.strip():
        return ""
    if update.signature is None:
        raise Dom0Error(
            f"{update.source}: is not signed, and this machine takes only signed updates",
            hint=f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY dom0-os.efi",
        )
    with TemporaryDirectory(prefix="dom0-signers-") as directory:
        allowed = Path(directory) / "signers"
        allowed.write_text(signers)
        common = ["-f", str(allowed), "-s", str(update.signature)]
        try:
            found = await capture(["ssh-keygen", "-Y", "find-principals", *common])
            who = found.stdout.splitlines()[0]
            with update.file.open("rb") as content:
                await transfer(["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", who, *common], stdin=content)
        except (CommandFailed, IndexError) as error:
            raise Dom0Error(
                f"{update.source}: is not signed by anybody whom this machine believes",
                hint="they are in /var/lib/dom0/os-signers",
            ) from error
    return who
