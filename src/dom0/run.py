"""The only place that spawns processes: argv lists in, captured output out, a failure that can be pasted.

asyncio is loaded where it is used: commands that only become another program start a third faster without it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import msgspec

from dom0.errors import Dom0Error

if TYPE_CHECKING:
    import socket
    from asyncio.subprocess import Process
    from logging import LogRecord

_PIECE = 1 << 16  # bytes
_SILENCE = 1.0  # seconds


class CommandFailed(Dom0Error):
    """A program ended with another code than 0, ran too long, or is not installed (`code` is then None)."""

    def __init__(self, argv: Sequence[str], code: int | None, stderr: str, *, reason: str = "") -> None:
        what = reason or f"exit code {code}"
        detail = f"\n{stderr.strip()}" if stderr.strip() else ""
        super().__init__(f"{argv[0]}: {what}{detail}", hint=f"to see it again: {shlex.join(argv)}")
        self.argv = tuple(argv)
        self.code = code
        self.stderr = stderr


class Output(msgspec.Struct, frozen=True):
    code: int
    stdout: str
    stderr: str


async def capture(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | Awaitable[bytes] | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    check: bool = True,
    on_start: Callable[[], None] | None = None,
    hear: Callable[[str], None] | None = None,
) -> Output:
    """Run `argv` to its end and return what it printed.

    `env` replaces the whole environment when given; `timeout` is in seconds, `memory` the most bytes of its own that
    it may have; `on_start` is called when it runs. `stdin` may come later, and the time runs from then on. `hear` is
    told each line of standard error as it comes; what it raises ends the program. Raises CommandFailed.
    """
    import asyncio
    import resource

    pipe = subprocess.PIPE
    given = pipe if stdin is not None else subprocess.DEVNULL
    try:
        async with _running(argv, stdin=given, stdout=pipe, stderr=pipe, cwd=cwd, env=env) as process:
            if on_start is not None:
                on_start()
            if memory is not None:
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
            data = await stdin if isinstance(stdin, Awaitable) else stdin
            async with asyncio.timeout(timeout):
                stdout, stderr = await (_hearing(process, data, hear) if hear else process.communicate(data))
    except TimeoutError:
        raise CommandFailed(argv, None, "", reason=f"did not end within {timeout:g} s") from None
    assert process.returncode is not None
    output = Output(process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    if check and output.code != 0:
        raise CommandFailed(argv, output.code, output.stderr)
    return output


async def _hearing(process: Process, data: bytes | None, hear: Callable[[str], None]) -> tuple[bytes, bytes]:
    """As `communicate`."""
    import asyncio

    assert process.stdout is not None
    assert process.stderr is not None
    said, rest = b"", b""
    reading = asyncio.create_task(process.stdout.read())
    try:
        if process.stdin is not None:
            process.stdin.write(data or b"")
            process.stdin.close()
        while piece := await process.stderr.read(_PIECE):
            said += piece
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                hear(line.decode(errors="replace"))
        stdout = await reading
        await process.wait()
    finally:
        reading.cancel()
    return stdout, said


async def tell_lines(
    argv: Sequence[str], tell: Callable[[str], None], *, env: Mapping[str, str], stdin: bytes | None = None
) -> int:
    """Run `argv` to its end, `tell` each line that it prints on either output, and return its exit code.

    While it prints nothing, an empty line is told each second. Raises CommandFailed if it cannot start.
    """
    import asyncio

    pipe = subprocess.PIPE
    async with _running(argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it has ended already
            process.stdin.write(stdin or b"")
            await process.stdin.drain()
        process.stdin.close()
        rest, ended = b"", False
        while not ended:
            try:
                async with asyncio.timeout(_SILENCE):
                    piece = await process.stdout.read(_PIECE)
            except TimeoutError:
                tell("")
                continue
            *lines, rest = (rest + piece).split(b"\n")
            ended = not piece
            for line in [*lines, rest] if ended else lines:
                tell(line.decode(errors="replace"))
        return await process.wait()


def ourselves(*arguments: str) -> list[str]:
    """A command line of dom0, of the same installation. In the image /usr/bin/dom0 knows where it is."""
    import sys

    return [*(["dom0"] if sys.flags.isolated else [sys.executable, "-P", "-m", "dom0"]), *arguments]


async def beside_result(argv: Sequence[str], *, env: Mapping[str, str], stdin: int | None = None) -> int:
    """Run `argv` to its end with our input, or with this descriptor of ours as that; what it prints goes to standard
    error, as ours does beside a result.

    Returns its exit code, as a shell says it. Raises CommandFailed if it cannot start.
    """
    async with _running(argv, stdin=stdin, stdout=2, env=env) as process:
        code = await process.wait()
    return code if code >= 0 else 128 - code


async def sync(path: Path) -> None:
    """Wait until all of the file system that has `path` is on its disk. Raises CommandFailed."""
    await capture(["sync", "--file-system", str(path)])


async def transfer(argv: Sequence[str], *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> None:
    """Run `argv` to its end with files as its input and output, for what is too long to hold. Raises CommandFailed."""
    reads, writes = stdin or subprocess.DEVNULL, stdout or subprocess.DEVNULL
    async with _running(argv, stdin=reads, stdout=writes, stderr=subprocess.PIPE) as process:
        _, stderr = await process.communicate()
    if process.returncode != 0:
        raise CommandFailed(argv, process.returncode, stderr.decode(errors="replace"))


@contextlib.asynccontextmanager
async def while_listening(argv: Sequence[str]) -> AsyncIterator[None]:
    """Keep `argv` running during the block: a program like `cat`, that repeats what it reads and ends with its input.

    It ends however we end, because only we hold its input. Raises CommandFailed if it does not start to listen.
    """
    pipe = subprocess.PIPE
    process = await _spawn(argv, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(b"\n")
        if not await process.stdout.readline():
            stderr = await process.stderr.read()
            raise CommandFailed(argv, await process.wait(), stderr.decode(errors="replace"))
        yield
    finally:
        process.stdin.close()
        await process.wait()


@contextlib.asynccontextmanager
async def _running(argv: Sequence[str], **options: Any) -> AsyncIterator[Process]:
    """Killed at the end of the block if it has not ended."""
    process = await _spawn(argv, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _spawn(argv: Sequence[str], **options: Any) -> Process:
    import asyncio
    from asyncio.log import logger

    logger.addFilter(_is_news)
    with _installed(argv):
        return await asyncio.create_subprocess_exec(*argv, **options)


def _is_news(record: LogRecord) -> bool:
    """Not that a program which ended just before it was killed was reaped by who killed it, and not by asyncio."""
    return not str(record.msg).startswith("Unknown child process pid")


@contextlib.contextmanager
def _installed(argv: Sequence[str]) -> Iterator[None]:
    """Raises CommandFailed where the block finds no such program."""
    try:
        yield
    except FileNotFoundError as error:
        raise CommandFailed(argv, None, "", reason="is not installed or not on PATH") from error


def start(argv: Sequence[str], *, third: int | None = None) -> int:
    """Start `argv` to run on, also after us, and return its process ID; it leads a session of its own.

    `third`: a file descriptor of ours that the program gets as its number 3. Whoever calls has to wait for its end.
    Raises CommandFailed if it cannot start.
    """
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    ]
    if third is not None:
        actions.append((os.POSIX_SPAWN_DUP2, third, 3))
    with _installed(argv):
        return os.posix_spawnp(argv[0], list(argv), os.environ, file_actions=actions, setsid=True)


def dial(argv: Sequence[str], *, stderr: bool = True) -> socket.socket:
    """A connection to whatever `argv` reaches with its standard input and output; the program ends with it.

    `stderr`: what it says there goes to ours. Raises CommandFailed if it cannot start.
    """
    return dial_process(argv, stderr=stderr)[0]


def dial_process(argv: Sequence[str], *, stderr: bool) -> tuple[socket.socket, int]:
    """The same, and the program's process ID, for who outlives it: one that hangs does not see that it is to end."""
    import socket

    ours, theirs = socket.socketpair()
    with theirs:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1),
        ]
        if not stderr:
            actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        try:
            with _installed(argv):
                process = os.posix_spawnp(argv[0], list(argv), os.environ, file_actions=actions)
        except BaseException:
            ours.close()
            raise
    return ours, process


def become(argv: Sequence[str]) -> NoReturn:
    """Replace this process by `argv`. Raises CommandFailed if it cannot start."""
    with _installed(argv):
        os.execvp(argv[0], list(argv))  # noqa: S606 -- an argv list, no shell
    raise AssertionError("it does not return")
