"""The tar of dom0-rootfs: a small Debian that `FROM dom0-rootfs` can install more into.

Made by mmdebstrap from the host's own package sources; the same inputs make the same bytes. Writes one file, asks no
Engine.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from dom0.images.archive import DEBIAN_KEYS, Archive, environment, proxies, sources_text
from dom0.images.recipe import EPOCH
from dom0.run import capture


async def bootstrap(argv: Sequence[str], scratch: Path) -> None:
    """Run an mmdebstrap command with the host's proxies, so that it repeats to the byte."""
    env = environment() | await proxies() | {"SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(scratch)}
    await capture(argv, env=env)


def write_sources(scratch: Path, archives: Sequence[Archive]) -> Path:
    scratch.chmod(0o755)  # apt downloads as a user of its own
    sources = scratch / "debian.sources"
    sources.write_text(sources_text(archives))
    return sources


def mmdebstrap(recipe: Path, archives: Sequence[Archive], sources: Path, tar: Path) -> list[str]:
    packages = (recipe / "packages").read_text().split()
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        f"--include={','.join(packages)}",
        f"--dpkgopt={recipe / 'dpkg.cfg'}",
        *(f"--setup-hook={command}" for command in keyring_hooks(archives)),
        # Its commands run in the new root, where there is no shell until all is installed.
        f"--customize-hook=upload {shlex.quote(str(recipe / 'apt.conf'))} /etc/apt/apt.conf.d/dom0",
        f"--customize-hook=upload {shlex.quote(str(recipe / 'policy-rc.d'))} /usr/sbin/policy-rc.d",
        '--customize-hook=chmod 755 "$1/usr/sbin/policy-rc.d"',
        '--customize-hook=cd "$1"/etc/apt/sources.list.d && mv 0000* debian.sources',  # mmdebstrap counts its files
        # What a build on top would have to delete again, at the price of a trace in its layer.
        '--customize-hook=rm -rf "$1"/var/log/* "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old "$1"/etc/*-',
        main_suite(archives),
        str(tar),
        str(sources),
    ]


def main_suite(archives: Sequence[Archive]) -> str:
    """The release itself, not its updates or security fixes."""
    return next((archive.suite for archive in archives if "-" not in archive.suite), archives[0].suite)


def keyring_hooks(archives: Iterable[Archive]) -> list[str]:
    """Keys that no Debian package brings come along, at the same path: the sources name them."""
    keyrings = {archive.keyring for archive in archives} - {""}
    hooks = []
    for keyring in sorted(name for name in keyrings if not name.startswith(DEBIAN_KEYS)):
        path = shlex.quote(keyring)
        hooks += [f'mkdir -p "$1"{shlex.quote(str(Path(keyring).parent))}', f"upload {path} {path}"]
    return hooks
