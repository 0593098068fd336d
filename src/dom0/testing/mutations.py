"""Bytes changed at random, as a broken disk, a bad copy, a middlebox or somebody else would."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_MOST = 5000  # bytes that go or come at once


def mutated(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """`data`, not empty, with one change; or one of `others` in its place."""
    changed = bytearray(data)
    at = random.randrange(len(changed))
    match random.randrange(7):
        case 0:
            changed[at] ^= 1 << random.randrange(8)
        case 1:
            changed[at : at + 8] = random.randbytes(8)
        case 2:
            changed[at : at + 4096] = bytes(len(changed[at : at + 4096]))
        case 3:
            del changed[at:]
        case 4:
            del changed[at : at + random.randrange(1, _MOST)]
        case 5:
            changed += random.randbytes(random.randrange(1, _MOST))
        case 6:
            return random.choice(others)
    return bytes(changed)
