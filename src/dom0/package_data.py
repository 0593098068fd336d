"""Where the data lies that comes with the package: recipes of the images and of the base OS, examples."""

from __future__ import annotations

from pathlib import Path

import dom0
from dom0.errors import Dom0Error

PACKAGE = Path(dom0.__file__).parent


def find(path: str, what: str) -> Path:
    """The directory `path`, in the wheel or in a checkout.

    Raises Dom0Error where it is not; `what` is the message's subject and verb ("the examples are").
    """
    for found in (PACKAGE / "data" / path, PACKAGE.parents[1] / path):
        if found.is_dir():
            return found
    raise Dom0Error(f"{PACKAGE}: {what} missing", hint="install dom0 again, or use a whole checkout")


def os_recipe() -> Path:
    """The directory `os`: the recipe of the base OS, with its programs."""
    return find("os/packages", "the recipe of the base OS is").parent
