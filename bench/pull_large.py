"""`python -m bench.pull_large`: the memory that dom0 takes for a large image, until the Engine has all of it. By hand.

Registry and Engine are on one host. First `dom0 image pull` gets the image, then, of a depot and an Engine that are
empty again, an agent whose project needs it. On the disk it takes four times the image; what cannot be packed is
packed by gzip, as layers are.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.pull_beside import STORES
from bench.tools import DOM0
from dom0.registry.manifest import CONFIGS, OCI_MANIFEST, digest_of
from dom0.testing import api, owned
from dom0.testing.debian_registry import Content, DebianRegistry, written
from dom0.testing.hosts import Host
from dom0.testing.namespaces import Child
from dom0.testing.tars import tar_of

LAYER = 500 * 10**6  # bytes
LONGEST = 3600.0  # seconds for one pull
PROJECT = "name: box\nservices: {{app: {{image: '{name}', command: [/none]}}}}\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pull_large", description=__doc__)
    parser.add_argument("--layers", type=int, default=20, help=f"each of {LAYER // 10**6} MB")
    parser.add_argument("--store", choices=STORES)
    arguments = parser.parse_args()
    owned.sweep()
    with tempfile.TemporaryDirectory(prefix="dom0-bench-", dir="/var/tmp") as directory:
        content = Content(Path(directory) / "content")
        fill(content, arguments.layers)
        for store in STORES if arguments.store is None else (arguments.store,):
            measure(content, Path(directory), store)


def measure(content: Content, directory: Path, store: str) -> None:
    etc = directory / store / "etc"
    project = etc / "compose.d/50-box.yaml"
    project.parent.mkdir(parents=True)
    storage = {"storage": {"filesystem": {"rootdirectory": str(content.directory)}}}
    with (
        Host(name="large", config=STORES[store]) as host,
        DebianRegistry(directory / store, popen=host.popen, config=storage) as registry,
    ):
        name = f"{registry.host}/team/app:1"
        pull = host.popen((DOM0, "image", "pull", "--json", name))
        print(f"{store}, dom0 image pull: {watched(pull, host, name, ends=True)}", flush=True)
        host.docker("image", "rm", "--force", name)
        host.run(["rm", "-rf", "/var/lib/dom0/pull"])
        project.write_text(PROJECT.format(name=name))
        agent = host.popen((DOM0, "agent"), env={"DOM0_ETC": str(etc)})
        print(f"{store}, the agent: {watched(agent, host, name, ends=False)}", flush=True)
        agent.kill()


def fill(content: Content, layers: int) -> None:
    described, ids = [], []
    for number in range(layers):
        tar = tar_of({f"file{number}": os.urandom(LAYER)})
        described.append(written(content.blob("team/app", gzip.compress(tar, 0, mtime=0))))
        ids.append(digest_of(tar))
    rootfs = {"type": "layers", "diff_ids": ids}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs, "history": []}
    of_image = written(content.blob("team/app", json.dumps(config).encode(), CONFIGS[0]))
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": of_image, "layers": described}
    content.manifest("team/app", document, "1")


def watched(process: Child, host: Host, name: str, *, ends: bool) -> str:
    """Until the process has ended, or the Engine has the image if the process does not end."""
    began, shared, resident = time.monotonic(), 0, 0
    while time.monotonic() < began + LONGEST:
        now = 0
        for pid in _family(process.pid):
            with suppress(OSError):
                now += _kibibytes(pid, "smaps_rollup", "Pss")
        shared = max(shared, now)
        with suppress(OSError):
            resident = max(resident, _kibibytes(process.pid, "status", "VmHWM"))
        if process.poll() is not None or (not ends and _is_there(host, name)):
            break
        time.sleep(0.2)
    seconds, is_there = time.monotonic() - began, _is_there(host, name)
    megabytes = [f"{most * 1024 / 1e6:.1f} MB" for most in (shared, resident)]
    return (
        f"{'there' if is_there else '**not there**'} after {seconds:.0f} s, with its children at most {megabytes[0]} "
        f"(proportional set size), alone {megabytes[1]} resident"
    )


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from _family(int(child))


def _kibibytes(pid: int, file: str, key: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def _is_there(host: Host, name: str) -> bool:
    with suppress(api.EngineRefused, OSError):
        return bool(api.request(host.socket, "GET", f"/images/{name}/json"))
    return False


if __name__ == "__main__":
    main()
