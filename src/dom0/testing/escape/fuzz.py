"""Requests without end, each spoilt a little more: `python -m dom0.testing.escape.fuzz --seconds 3600`.

Begins with the requests of the table, bodies at random and a corpus. What brings an end that was not seen before is
kept and spoilt further; `--keep` writes the shortest request for each end into a directory.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import h11

from dom0.engine.bodies import Body, VolumeBody
from dom0.socketproxy import requests, table
from dom0.socketproxy.refusal import Refused
from dom0.testing.escape import bodies, still

REFERENCES = (
    *("db", "victim", "forged", "front", "other.front", "data", "treasure", "bridge", "host", still.IMAGE, "guest.db"),
    *(bodies.OWN, bodies.VICTIM, bodies.OWN[:12], bodies.VICTIM[:12], still.OWN_NETWORK, still.FOREIGN_NETWORK),
    *(still.OWN_EXEC, still.FOREIGN_EXEC, "private/secret:1", "..", "%2e%2e", "db%2Fjson", "a%00", "%C3%B6", "db/"),
)
VALUES = (
    *bodies.WORDS,
    "1",
    "0",
    "true",
    '{"label":["a"]}',
    '{"name":{"db":true}}',
    '{"id":["bbbb"]}',
    "%00",
    "a%0d%0ab",
)
LINES = (
    *(b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Content-Type: application/x-www-form-urlencoded"),
    *(b"Upgrade: tcp", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Encoding: gzip", b"Expect: 100-continue"),
    *(b"Host: x", b"Content-Length: 0", b"Transfer-Encoding: identity", b" folded", b"X-Registry-Auth: e30="),
)
PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\x00",
        b"/",
        b"//",
        b"/../",
        b"%2f",
        b"%",
        b"?",
        b"&",
        b"=",
        b"#",
        b";",
        b"+",
    ),
    *(
        b"http://docker/",
        b"/v1.45/",
        b"/v1.9/",
        b"/v2.0/",
        b"HTTP/1.0",
        b"\xff",
        b"{",
        b"}",
        b"[",
        b'"',
        b"\\u0050",
        b"0\r\n\r\n",
    ),
)
MODELS: dict[str, type[Body]] = {
    "/containers/create?name=web": requests.Container,
    "/containers/create": requests.Container,
    "/networks/create": requests.Network,
    "/networks/front/connect": requests.Connect,
    "/volumes/create": VolumeBody,
    "/containers/db/update": requests.Update,
    "/containers/db/exec": requests.Exec,
}
LONGEST = 1 << 16  # bytes


class Escaped(Exception):
    """A request that got out, or broke what should have refused it."""


def fresh(random: Random) -> bytes:
    """A request as a client may send it."""
    if random.randrange(2):
        target, model = random.choice(list(MODELS.items()))
        return bodies.request(random, target, model)
    endpoint = random.choice(table.TABLE)
    target = re.sub(r"\{\w+\}", lambda _: random.choice(REFERENCES), endpoint.path)
    chosen = [f"{key}={random.choice(VALUES)}" for key in endpoint.query if random.randrange(3) == 0]
    query = f"?{'&'.join(chosen)}" if chosen else ""
    version = random.choice(("", "", "/v1.45", "/v1.24", "/v1.99"))
    return f"{endpoint.method} {version}{target}{query} HTTP/1.1\r\nHost: docker\r\n\r\n".encode()


def spoilt(random: Random, data: bytes) -> bytes:
    for _ in range(random.choice((1, 1, 2, 4))):
        place, length = random.randrange(len(data) + 1), random.randrange(1, 9)
        match random.randrange(5):
            case 0:
                data = data[:place] + random.choice(PIECES) + data[place:]
            case 1:
                data = data[:place] + data[place + length :]
            case 2:
                data = data[:place] + bytes([random.randrange(256)]) + data[place + 1 :]
            case 3:
                data = data.replace(b"\r\n", b"\r\n" + random.choice(LINES) + b"\r\n", 1)
            case _:
                data = data[:place] + data[max(0, place - length) :]
    return data[:LONGEST]


def tried(data: bytes) -> str:
    """Where `data` ends: the place that refuses it, or the kind of request that the Engine gets. Raises Escaped."""
    try:
        found = still.outcome(data)
    except (Refused, h11.RemoteProtocolError) as error:
        return _place(error)
    except Exception as error:
        raise Escaped(f"{data!r}: {error!r}") from error
    if got := still.escapes(found):
        raise Escaped(f"{data!r}: {got}")
    last = found.sent[-1] if found.sent and found.answer is None else None
    return f"{last.method} {last.path[0]} {last.path[-1][:8]} {sorted(last.query)}" if last else "answered"


def _place(error: Exception) -> str:
    """Where it was raised, and by whom that was called."""
    frames = traceback.extract_tb(error.__traceback__)[-2:]
    return " ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


def run(random: Random, corpus: Iterable[bytes], goes_on: Callable[[int], bool]) -> tuple[int, dict[str, bytes]]:
    """How many requests were tried until `goes_on` said no of that number, and the shortest one for each end.

    Raises Escaped.
    """
    shortest: dict[str, bytes] = {}
    pool = list(corpus)
    count = 0
    while goes_on(count):
        data = fresh(random) if not pool or random.randrange(3) == 0 else spoilt(random, random.choice(pool))
        end = tried(data)
        count += 1
        if end not in shortest:
            pool.append(data)
        if len(data) < len(shortest.get(end, data + b" ")):
            shortest[end] = data
    return count, shortest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    parser.add_argument("--corpus", type=Path, help="directory of requests to begin with")
    parser.add_argument("--keep", type=Path, help="directory for the shortest request of each end")
    options = parser.parse_args()
    corpus = [path.read_bytes() for path in sorted(options.corpus.iterdir())] if options.corpus else []
    last = time.process_time() + options.seconds
    try:
        random = Random(options.seed)  # noqa: S311 -- no secret
        count, shortest = run(random, corpus, lambda _: time.process_time() < last)
    except Escaped as escaped:
        sys.stderr.write(f"seed {options.seed}: {escaped}\n")
        return 1
    sys.stdout.write(f"{count} requests, {len(shortest)} ends, none got out\n")
    for data in shortest.values() if options.keep else ():
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
