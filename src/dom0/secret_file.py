"""Files of a project with secrets, as the machine has them: read when they are needed, and kept nowhere else.

No content is in what is raised.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.names import HOST_ROOT


def read(path: str) -> bytes:
    """Raises Dom0Error."""
    found, elsewhere = Path(path), HOST_ROOT / path.lstrip("/")
    if not found.exists() and os.access(elsewhere, os.R_OK):
        found = elsewhere
    try:
        return found.read_bytes()
    except OSError as error:
        hint = "dom0 up brings the project's files; root may read them"
        raise Dom0Error(f"{path}: cannot be read: {error.strerror}", hint=hint) from None


def variables(path: str, known: str) -> dict[str, str]:
    """Of a file with `NAME=value` on each line; the pattern `known` matches the names. Raises Dom0Error."""
    found = {}
    for number, line in enumerate(read(path).decode(errors="replace").splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(known, name):
            hint = f"each line is NAME=value, and NAME one of {known.replace('|', ', ')}"
            raise Dom0Error(f"{path}:{number}: is nothing that is known here", hint=hint)
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[name] = value[1:-1] if is_quoted else value
    return found
