"""What a medium carries beside an archive of images, so that a first boot need not let its Engine load them.

The recipe's program `prepare` makes it: an Engine of its own loads the archive, and what it wrote besides the layers is
kept; then the program `prepared` of the base OS is tried, and has to make the same of both. No image of this machine's
own Engine is touched.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from dom0.images.archive import environment
from dom0.package_data import os_recipe
from dom0.run import capture

_DEADLINE = 3600.0  # seconds; gigabytes on a slow disk
_ALONE = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
)


async def prepare(archive: Path, scratch: Path) -> Path:
    """A file below the empty directory `scratch`, which takes four times the size of `archive` meanwhile.

    Raises CommandFailed: not root, a program is missing, or the images have what could not be unpacked as it was.
    """
    store, work = scratch / "image.store", scratch / "work"
    work.mkdir()
    program = os_recipe() / "prepare"
    await capture(
        [*_ALONE, "sh", str(program), str(await asyncio.to_thread(archive.resolve)), str(store), str(work)],
        env=environment(),
        timeout=_DEADLINE,
    )
    return store
