"""Keeps connections over a restart of the container: rules and flows in files, neighbours that send nothing meanwhile.

Process 1 of the image (images/dom0-ambassador) puts the files back with `nft -f` and `conntrack -R` before any Python
is loaded, and runs this module around that: `carry away` is the last step of a container that is told to end, `carry
back` the first one of the next. The control plane saves now and then, for an end without warning.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from dom0.ambassador.park import announce, park
from dom0.ambassador.settings import STATE_DIRECTORY
from dom0.ambassador.state import BOOT
from dom0.durable import write_atomic
from dom0.errors import Dom0Error
from dom0.forward import nft
from dom0.forward.interfaces import let_through
from dom0.forward.kernel import KernelPlane
from dom0.forward.place import own

RULES, FLOWS = "rules.nft", "flows"
EVERY = 10.0  # seconds
_log = logging.getLogger(__name__)


async def save(plane: KernelPlane, directory: Path) -> None:
    """Keep what is in force, for process 1 to put back in the same boot of the host. Raises Dom0Error, OSError."""
    table = await plane.read()
    if table is None:
        return
    write_atomic(directory / FLOWS, (await plane.dump()).encode(), durable=False)
    rules = f"# {BOOT.read_text().strip()}\n{nft.replace(own(), table)}"
    write_atomic(directory / RULES, rules.encode(), durable=False)


async def save_often(plane: KernelPlane, directory: Path) -> None:
    """Until cancelled. What cannot be saved is logged and tried again."""
    said = ""
    while True:
        await asyncio.sleep(EVERY)
        try:
            await save(plane, directory)
            said = ""
        except (Dom0Error, OSError) as error:
            if str(error) != said:
                said = str(error)
                _log.warning("connections would not outlive a crash of the container: %s", error)


def main() -> None:
    place = own()
    try:
        if sys.argv[1:] == ["away"]:
            asyncio.run(save(KernelPlane(), Path(STATE_DIRECTORY)))
            park(place)
        else:
            let_through(place)
            announce(place)
    except (Dom0Error, OSError) as error:
        sys.exit(f"ambassador: connections do not outlive this restart: {error}")
