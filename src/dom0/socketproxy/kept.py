"""A server's side of a socket that outlives it: it gets the listening socket from a holder, and hands it to a holder
that was recreated.

Without that the first server after a recreated holder would make another socket, and whoever has bound the file of the
first one would be left with a dead one.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from pathlib import Path

from dom0.errors import Dom0Error
from dom0.socketproxy import hold

HOLDER_WITHIN = 5.0  # seconds, for it to answer
PAUSE = 0.1  # seconds between two tries
AGAIN = 0.5  # seconds between attempts to reach the next holder
REFUSED_FOR = 30.0  # seconds until one that did not take the socket is asked again
LONGEST_ANSWER = 4096  # bytes

log = logging.getLogger(__name__)


async def held(holder: Path, scope: str) -> socket.socket:
    """The listening socket of a scope. At a boot the Engine may start the holder after us. Raises Dom0Error."""
    deadline = time.monotonic() + HOLDER_WITHIN
    while True:
        try:
            return await asyncio.to_thread(hold.hold, holder, scope)
        except Dom0Error:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE)


async def stay_kept(directory: Path, name: str, listener: socket.socket) -> None:
    """Until it is cancelled. `listener` is that of `directory`/`name`/docker.sock.

    Raises Dom0Error when another socket, or none, is in its place: nobody can come to this one any more.
    """
    path = directory / name / "docker.sock"
    first = _file(path)
    while first is not None and _file(path) == first:
        try:
            pause = AGAIN if await _be_kept(directory / "holder.sock", name, listener) else REFUSED_FOR
        except OSError as error:
            log.debug("%s: %s", directory, error)
            pause = AGAIN
        await asyncio.sleep(pause)
    hint = "started again, it serves the one that is there"
    raise Dom0Error(f"{path}: is not the socket any more that is served", hint=hint)


def _file(path: Path) -> tuple[int, int] | None:
    """Which one is there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


async def _be_kept(holder: Path, name: str, listener: socket.socket) -> bool:
    """As long as the holder lives; whether it took the socket. Raises OSError where there is none."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await loop.sock_connect(connection, str(holder))
        socket.send_fds(connection, [f"keep {name}\n".encode()], [listener.fileno()])
        answer = await loop.sock_recv(connection, LONGEST_ANSWER)
        if answer != b"ok":
            log.warning("/%s: its socket is not held: %s", name, answer.decode(errors="replace"))
            return False
        log.info("/%s: its socket is held", name)
        while await loop.sock_recv(connection, LONGEST_ANSWER):
            pass
    log.info("/%s: its holder has ended; the next one gets its socket", name)
    return True
