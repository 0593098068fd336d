"""A socket proxy of the kind that people use today, for comparison: it looks at the method and the path only.

What a deployment tool needs is open, to read and to write (containers, exec, images, networks, volumes, events); all
else is closed.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPEN = re.compile(
    rb"^(HEAD|GET|POST|PUT|DELETE) (/v[0-9.]+)?"
    rb"/(_ping|version|info|events|containers|exec|images|networks|volumes)(/|\?| )"
)
_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def served(engine: Path, path: Path) -> Iterator[Path]:
    """Listen at `path` until the block ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(64)
        threading.Thread(target=_accept, args=(listener, engine), daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, engine: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(client, engine), daemon=True).start()


def _serve(client: socket.socket, engine: Path) -> None:
    with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as upstream:
        try:
            head = client.recv(1 << 16)
            if not _OPEN.match(head):
                client.sendall(_REFUSAL)
                return
            upstream.connect(str(engine))
            upstream.sendall(head)
            threading.Thread(target=_pump, args=(client, upstream), daemon=True).start()
            _pump(upstream, client)
        except OSError:
            return


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
