"""An image whose containers write down that they alone write, and a reader that accounts for every byte of it.

A service that runs `ledger DIR [FILE]` appends 1, 2, 3 … to DIR/ledger under a lock, and replaces the word `default` in
FILE by one of its own, once. Its labels say where: `ledger: DIR`, `personal: FILE`. Whoever finds a second writer
at work says so in DIR/second-writer. All of it is found through the container's mounts, wherever they lead on the host.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dom0.testing.busybox import IMAGE as BUSYBOX
from dom0.testing.hosts import Host

IMAGE = "ledger:test"
PROGRAM = """\
#!/bin/sh
set -eu
cd "$1"
exec 9>>lock
flock -n 9 || { hostname >>second-writer; exit 9; }
n=$(tail -n 1 ledger 2>/dev/null || echo 0)
if [ "$#" -gt 1 ] && [ "$(cat "$2")" = default ]; then
    head -c 16 /dev/urandom | od -A n -t x1 | tr -d ' \\n' >"$2"
fi
trap 'exit 0' TERM INT
while :; do
    n=$((n + 1))
    echo "$n" >>ledger
    sleep 0.1 9>&- &
    wait $!
done
"""
_LOCK = "/usr/bin/flock"  # busybox of Debian has none
_LIBRARY = re.compile(r"(/\S+) \(0x")


def provide(host: Host, directory: Path) -> None:
    """Build the image on `host`; `directory` is empty and ours."""
    (directory / "ledger").write_text(PROGRAM)
    libraries = _LIBRARY.findall(subprocess.run(["ldd", _LOCK], check=True, capture_output=True, text=True).stdout)
    lines = [f"FROM {BUSYBOX}", "COPY --chmod=755 ledger /bin/ledger"]
    for path in map(Path, (_LOCK, *libraries)):
        shutil.copy(path, directory)
        lines.append(f"COPY {path.name} {path}")
    (directory / "Dockerfile").write_text("\n".join(lines))
    host.docker("build", "--quiet", "--tag", IMAGE, str(directory))


@dataclass(frozen=True, slots=True)
class Personal:
    """A file that a container made its own: nobody may change it after."""

    content: str
    owner: tuple[int, int]
    mode: int


@dataclass(slots=True)
class Witness:
    """Remembers what was written, by service and path in its container, and compares it at every look."""

    host: Host
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    personal: dict[tuple[str, str], Personal] = field(default_factory=dict)

    def look(self) -> bool:
        """Assert that nothing was lost or written by two; whether every writer seen before is there and goes on."""
        seen: set[tuple[str, str]] = set()
        advanced = True
        for container in self._containers():
            labels = container["Config"]["Labels"]
            service = labels["com.docker.compose.service"]
            key = (service, labels["ledger"])
            seen.add(key)
            before = self.counts.get(key, 0)
            self.counts[key] = self._count(key, self._on_host(container, labels["ledger"]), before)
            advanced &= self.counts[key] > before
            if path := labels.get("personal"):
                advanced &= self._check_personal((service, path), self._on_host(container, path))
        return advanced and bool(seen) and seen == self.counts.keys()

    def _containers(self) -> list[dict[str, Any]]:
        ids = self.host.docker("ps", "--quiet", "--filter", "label=ledger").stdout.split()
        found: list[dict[str, Any]] = json.loads(self.host.docker("inspect", *ids).stdout) if ids else []
        return found

    def _on_host(self, container: dict[str, Any], path: str) -> Path:
        """Where the container's `path` lies, seen from outside of the host."""
        sources = {mount["Destination"]: mount["Source"] for mount in container["Mounts"]}
        place = next(place for place in (path, *map(str, PurePosixPath(path).parents)) if place in sources)
        relative = PurePosixPath(path).relative_to(place)
        return self.host.path(str(PurePosixPath(sources[place]) / relative))

    def _count(self, key: tuple[str, str], directory: Path, before: int) -> int:
        assert not (directory / "second-writer").exists(), f"{key}: two wrote at once"
        ledger = directory / "ledger"
        numbers = ledger.read_text().split() if ledger.exists() else []
        count = len(numbers)
        assert numbers == [str(number) for number in range(1, count + 1)], f"{key}: {ledger} has gaps or doubles"
        assert count >= before, f"{key}: {before} lines were written, {count} are left in {ledger}"
        return count

    def _check_personal(self, key: tuple[str, str], path: Path) -> bool:
        """Whether it is personal by now."""
        content, found = path.read_text(), path.stat()
        now = Personal(content, (found.st_uid, found.st_gid), stat.S_IMODE(found.st_mode))
        if key not in self.personal:
            if content in ("default", "default\n", ""):
                return False
            self.personal[key] = now
        assert now == self.personal[key], f"{key}: {path} is not what its container wrote"
        return True
