"""What programs wrote to a disk, write by write: what it can hold when they, or the power, end in the middle.

Theory of operation: strace says every write. A killed program leaves what is written up to some moment. Of a power cut
the disk has all from before the last flush, and of what came after it any sectors, each as one of the writes left it.
"""

from __future__ import annotations

import ast
import itertools
import math
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

Sectors = dict[int, bytes]
"""Number -> content. One that is not there is zeros."""

_SECTOR = 512
_CALLS = "write,pwrite64,lseek,fallocate,ioctl,fsync"
_CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (\d+)")
_WRITE = re.compile(r'\d+, (".*"), \d+(?:, (\d+))?', re.DOTALL)
_ZERO = re.compile(r"\d+, (?:FALLOC_FL_ZERO_RANGE|FALLOC_FL_\S+PUNCH_HOLE|BLKDISCARD|BLKZEROOUT), \[?(\d+), (\d+)\]?")
_COMBINATIONS = 16  # of what is not flushed: all of them up to here, else as many at random


def tracing(device: str, log: str) -> list[str]:
    """The command in front of one whose writes to `device` strace shall write down."""
    quiet = ["-qqq", "-esignal=none"]
    return ["/usr/sbin/strace", "-f", *quiet, f"-P{device}", "-s1048576", f"-etrace={_CALLS}", f"-o{log}"]


def moments(trace: str) -> list[list[Sectors]]:
    """What the disk, blank before, holds after each write. A list from flush to flush; its first is what is flushed."""
    now: Sectors = {}
    found = [[now]]
    at: dict[str, int] = {}  # process -> where it writes next
    for process, call, arguments, result in _CALL.findall(trace):
        if call == "lseek":
            at[process] = int(result)
        elif call == "fsync":
            found.append([now])
        elif match := _WRITE.fullmatch(arguments):
            content = ast.literal_eval(f"b{match[1]}")[: int(result)]
            offset = int(match[2] or at.get(process, 0))
            at[process] = offset + len(content)
            now = _written(now, offset, content)
            found[-1].append(now)
        elif match := _ZERO.fullmatch(arguments):
            now = _zeroed(now, int(match[1]), int(match[2]))
            found[-1].append(now)
    return found


def after_kills(moments: Sequence[Sequence[Sectors]]) -> Iterator[Sectors]:
    """What is there whenever the programs end."""
    yield from _different(itertools.chain.from_iterable(moments))


def after_power_cuts(moments: Sequence[Sequence[Sectors]], seed: int) -> Iterator[Sectors]:
    """What is there whenever the power ends; where too much is possible some of it, for each seed the same."""
    yield from _different(itertools.chain.from_iterable(_mixtures(states, seed) for states in moments))


def lay(sectors: Sectors, file: Path, size: int) -> Path:
    """As a sparse file of `size` bytes."""
    with file.open("wb") as opened:
        opened.truncate(size)
        for number, content in sectors.items():
            opened.seek(number * _SECTOR)
            opened.write(content)
    return file


def _written(sectors: Sectors, offset: int, content: bytes) -> Sectors:
    first, end = offset // _SECTOR, -(-(offset + len(content)) // _SECTOR)
    there = bytearray(b"".join(sectors.get(number, bytes(_SECTOR)) for number in range(first, end)))
    start = offset - first * _SECTOR
    there[start : start + len(content)] = content
    parts = {number: bytes(there[(number - first) * _SECTOR :][:_SECTOR]) for number in range(first, end)}
    return {number: part for number, part in (sectors | parts).items() if any(part)}


def _zeroed(sectors: Sectors, offset: int, length: int) -> Sectors:
    gone = range(offset // _SECTOR, (offset + length) // _SECTOR)
    return {number: content for number, content in sectors.items() if number not in gone}


def _mixtures(states: Sequence[Sectors], seed: int) -> Iterator[Sectors]:
    numbers = sorted(set().union(*states))
    versions = [sorted({state.get(number, b"") for state in states}) for number in numbers]
    for contents in _combinations(versions, random.Random(seed)):  # noqa: S311 -- no secret
        yield {number: content for number, content in zip(numbers, contents, strict=True) if content}


def _combinations(versions: Sequence[Sequence[bytes]], chance: random.Random) -> Iterator[Sequence[bytes]]:
    if math.prod(map(len, versions)) <= _COMBINATIONS:
        yield from itertools.product(*versions)
    else:
        yield from ([chance.choice(of) for of in versions] for _ in range(_COMBINATIONS))


def _different(states: Iterator[Sectors]) -> Iterator[Sectors]:
    seen: list[Sectors] = []
    for state in states:
        if state not in seen:
            seen.append(state)
            yield state
