"""Which package sources of a host are Debian's."""

from __future__ import annotations

import pytest

from dom0.errors import Dom0Error
from dom0.images.archive import Archive, select, sources_text
from dom0.images.rootfs import main_suite

KEYS = "/usr/share/keyrings/debian-archive-keyring.pgp"


def row(origin: str, uri: str, suite: str, component: str, keys: str = KEYS) -> str:
    return "\t".join((origin, uri, suite, component, keys))


LISTED = "\n".join(
    (
        row("older-defaults", "file:/usr/share/x/", "./", "$(COMPONENT)", "$(SIGNED_BY)"),
        row("Debian", "http://archive/debian/", "trixie-updates", "main"),
        row("Debian", "http://archive/debian/", "trixie", "main"),
        row("Debian", "http://archive/debian/", "trixie", "contrib"),
        row("Docker", "https://vendor/linux/debian/", "trixie", "stable", "/etc/apt/keyrings/docker.asc"),
        row("Debian", "cdrom:[Debian]/", "trixie", "main"),
        row("Debian", "https://mirror/debian/", "trixie-security", "main", "$(SIGNED_BY)"),
        row("$(ORIGIN)", "https://never.updated/debian/", "trixie", "main"),
    )
)


def test_only_archives_of_debian_itself_over_the_network_are_taken() -> None:
    assert select(LISTED) == (
        Archive("http://archive/debian/", "trixie-updates", ("main",), KEYS),
        Archive("http://archive/debian/", "trixie", ("main", "contrib"), KEYS),
        Archive("https://mirror/debian/", "trixie-security", ("main",)),
    )


def test_they_are_written_as_apt_reads_them() -> None:
    assert sources_text(select(LISTED)[1:]) == (
        "Types: deb\nURIs: http://archive/debian/\nSuites: trixie\nComponents: main contrib\n"
        f"Signed-By: {KEYS}\n\n"
        "Types: deb\nURIs: https://mirror/debian/\nSuites: trixie-security\nComponents: main\n"
    )


def test_the_main_suite_is_the_release_itself() -> None:
    assert main_suite(select(LISTED)) == "trixie"


def test_a_host_without_debian_is_told_so() -> None:
    with pytest.raises(Dom0Error, match="none is Debian's archive"):
        select(row("Ubuntu", "http://archive/ubuntu/", "noble", "main"))


def test_a_password_is_not_put_into_images() -> None:
    with pytest.raises(Dom0Error, match=r"the address on mirror holds a password") as caught:
        select(row("Debian", "https://me:hunter2@mirror/debian/", "trixie", "main"))
    assert "hunter2" not in caught.value.message + caught.value.hint
