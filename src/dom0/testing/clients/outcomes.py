"""What a program does with a library, and how each step ended: `NAME<tab>OUTCOME` a line. Imports nothing of ours.

It runs in the environment of the libraries, which dom0 is not in.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Callable

_CHANGING = (
    (r"sha256:[0-9a-f]{64}|\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "ID"),
    (r"localhost:[0-9]+", "localhost:PORT"),
    (r"http\+docker://\S+[^(]*", "URL "),
    (r"\s+", " "),
)


def step(name: str, do: Callable[[], object]) -> object:
    """What `do` returned; None if it raised. Both are said."""
    try:
        found = do()
        said = repr(found)
    except Exception as error:
        found, said = None, f"{type(error).__name__}: {str(error)[-300:]}"
    for pattern, word in _CHANGING:
        said = re.sub(pattern, word, said)
    sys.stdout.write(f"{name}\t{said[:400]}\n")
    sys.stdout.flush()
    return found


def packed(name: str, content: bytes) -> bytes:
    """One file as an archive, as programs send it."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
