"""Listening sockets that outlive who answers on them: a container that has bound a socket's file sees no other file.

`python -m dom0.socketproxy.hold DIRECTORY` keeps them for others and never accepts. It is to run for as long as the
machine, so it needs no more than the standard library. It takes one line of each connection to DIRECTORY/holder.sock,
from root and its own user, and answers `ok`, or `error: ` and what is wrong:

    hold NAME      with the answer comes (SCM_RIGHTS) the descriptor of DIRECTORY/NAME/docker.sock, made if need be
    keep NAME      with the request comes the descriptor of that, which is held from now on; the connection stays open
    release NAME   it is not held any more, and its file goes, unless a server keeps it

So a server (see `kept`) knows when the holder ends, and the next one gets from it what the first one had. DIRECTORY is
for its user alone to write to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from dom0 import names
from dom0.errors import Busy, Dom0Error, UsageError
from dom0.unix_socket import listen

BACKLOG = 4096  # who connects while nobody accepts waits for the next one; the kernel's own limit
ASKED_WITHIN = 3.0  # seconds, until who has connected is sent away
ANSWERED_WITHIN = 30.0
LONGEST_REQUEST = 100  # bytes
FIRST_INHERITED = 3  # SD_LISTEN_FDS_START


def check_free(path: Path) -> None:
    """Raises UsageError where somebody serves a socket, or what is there is none; OSError."""
    if path.exists() and not path.is_socket():
        raise UsageError(f"{path}: is there, and no socket", hint="choose another path: --listen")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(str(path)) not in (errno.ENOENT, errno.ECONNREFUSED):
            hint = "end that one, or choose another path: --listen"
            raise UsageError(f"{path}: another process serves this socket", hint=hint)


def listening(path: Path) -> socket.socket:
    """A new socket (mode 0660) in the place of a dead one. Raises UsageError, OSError."""
    check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return listen(path, mode=0o660, backlog=BACKLOG)


def hold(directory: Path, name: str) -> socket.socket:
    """The listening socket at `directory`/`name`/docker.sock, from the holder there. Blocks. Raises Dom0Error."""
    descriptors = _asked(directory, f"hold {name}")
    if not descriptors:
        raise Dom0Error(f"{directory / name}: its socket did not come", hint="too many open files? ulimit -n")
    listener = socket.socket(fileno=descriptors[0])
    listener.set_inheritable(False)
    return listener


def release(directory: Path, name: str) -> None:
    """Let the holder in `directory` forget a socket that nobody serves. Blocks. Raises Dom0Error."""
    _asked(directory, f"release {name}")


def _asked(directory: Path, request: str) -> list[int]:
    """The descriptors that came with the answer. Raises Dom0Error."""
    path = directory / "holder.sock"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWERED_WITHIN)
            connection.connect(str(path))
            connection.sendall(f"{request}\n".encode())
            answer, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
            while more := connection.recv(1 << 16):
                answer += more
    except OSError as error:
        hint = f"is it running? dom0 socket hold {directory}"
        raise Dom0Error(f"{path}: the holder of sockets does not answer: {error}", hint=hint) from error
    if answer != b"ok":
        raise Dom0Error(answer.decode().removeprefix("error: ") or f"{path}: the holder has not answered")
    return descriptors


def inherited() -> socket.socket | None:
    """The listening socket that systemd, or who does as it does (sd_listen_fds(3)), has started this process with.

    Raises UsageError, OSError.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "")
    if count != "1":
        raise UsageError(
            f"LISTEN_FDS: {count!r} sockets, a scope has one", hint="one ListenStream= in the .socket unit"
        )
    listener = socket.socket(fileno=FIRST_INHERITED)
    is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_STREAM) or not is_listening:
        hint = "ListenStream=/run/guest.sock, without Accept=yes"
        raise UsageError("LISTEN_FDS: what was inherited is no unix socket that listens", hint=hint)
    listener.set_inheritable(False)
    return listener


class Holder:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, socket.socket] = {}
        self._watching: list[tuple[str, socket.socket]] = []  # servers that live, and what they serve

    def answer(self, connection: socket.socket) -> None:
        """Read one request; the connection is closed unless it is to stay. Raises OSError."""
        self._watching = self._that_serve()
        with contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (0, os.geteuid()):
                return
            connection.settimeout(ASKED_WITHIN)
            line, given = _received(connection)
            for descriptor in given:
                stack.callback(os.close, descriptor)
            try:
                verb, name = _parsed(line)
                if verb == "keep":
                    self._keep(name, given)
                    connection.sendall(b"ok")
                    watching = connection.dup()
                    watching.setblocking(False)
                    self._watching.append((name, watching))
                elif verb == "release":
                    self._release(name)
                    connection.sendall(b"ok")
                else:
                    if name not in self._held:
                        self._held[name] = listening(self._path(name))
                    socket.send_fds(connection, [b"ok"], [self._held[name].fileno()])
            except (UsageError, OSError) as error:
                connection.sendall(f"error: {error}".encode())

    def _keep(self, name: str, given: list[int]) -> None:
        """What a server has from the holder before us, unless we have it."""
        if name in self._held:
            return
        if len(given) != 1:
            raise UsageError(f"keep {name}: comes with one descriptor")
        listener = socket.socket(fileno=os.dup(given[0]))
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.close()
            raise UsageError(f"keep {name}: is no socket that listens")
        self._held[name] = listener

    def _path(self, name: str) -> Path:
        return self._directory / name / "docker.sock"

    def release_all(self) -> None:
        """What a server answers on stays where it is: the next holder gets it from there."""
        for name in list(self._held):
            self._release(name)
        for listener in self._held.values():
            listener.close()

    def _release(self, name: str) -> None:
        if name in self._held and name not in {served for served, _ in self._that_serve()}:
            self._held.pop(name).close()
            self._path(name).unlink(missing_ok=True)

    def _that_serve(self) -> list[tuple[str, socket.socket]]:
        return [(name, one) for name, one in self._watching if not _has_ended(one)]


def _parsed(line: bytes) -> tuple[str, str]:
    """Raises UsageError."""
    request = line.decode("ascii", "replace").strip()
    verb, _, name = request.partition(" ")
    if verb not in ("hold", "keep", "release") or not re.fullmatch(names.SCOPE_NAME, name):
        raise UsageError(f"{request!r}: not a request of: hold NAME, keep NAME, release NAME")
    return verb, name


def _received(connection: socket.socket) -> tuple[bytes, list[int]]:
    """A line, or less if the other end closes, and the descriptors with it. Raises OSError."""
    line, given = b"", list[int]()
    try:
        while not line.endswith(b"\n") and len(line) < LONGEST_REQUEST:
            piece, descriptors, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 1)
            line, given = line + piece, given + descriptors
            if not piece:
                break
    except BaseException:
        for descriptor in given:
            os.close(descriptor)
        raise
    return line, given


def _has_ended(watching: socket.socket) -> bool:
    """Its other end; then it is closed."""
    with contextlib.suppress(BlockingIOError):
        with contextlib.suppress(ConnectionError):
            watching.recv(1)
        watching.close()
        return True
    return False


def keep(directory: Path) -> NoReturn:
    """Hold what is asked for until SIGTERM. Raises Busy where another one does, UsageError, OSError."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{directory}: another process holds the sockets here", hint="one is enough") from None
    path = directory / "holder.sock"
    holder = Holder(directory)
    with listen(path, mode=0o600) as server:
        sys.stdout.write(f"holding sockets in {directory}\n")
        sys.stdout.flush()
        try:
            while True:
                connection, _ = server.accept()
                with contextlib.suppress(OSError):  # who asked has gone, or says nothing
                    holder.answer(connection)
        finally:
            path.unlink(missing_ok=True)
            holder.release_all()


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m dom0.socketproxy.hold DIRECTORY\n")
        return UsageError.exit_code
    try:
        keep(Path(sys.argv[1]))
    except Dom0Error as error:
        sys.stderr.write(f"dom0: {error.message}\n      {error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
