"""Which kernel modules a list of names means."""

from __future__ import annotations

from pathlib import Path

import pytest

from dom0.errors import Dom0Error
from dom0.osimage.modules import Kernel, asks_of, choose

KERNEL = Kernel(
    release="6.1",
    image=Path("boot/vmlinuz-6.1"),
    directory=Path("usr/lib/modules/6.1"),
    needs={
        "fs/ext4.ko.xz": ("fs/jbd2.ko.xz", "lib/crc16.ko.xz"),
        "fs/jbd2.ko.xz": ("lib/crc16.ko.xz",),
        "lib/crc16.ko.xz": (),
        "lib/crc32c-generic.ko.xz": (),
        "lib/crc32c-fast.ko.xz": ("lib/fast.ko.xz",),
        "lib/fast.ko.xz": (),
        "net/nft_nat.ko.xz": (),
        "net/nft_log.ko.xz": (),
    },
    asks={
        "fs/jbd2.ko.xz": ("lib/crc32c-generic.ko.xz", "lib/crc32c-fast.ko.xz"),
        "lib/fast.ko.xz": ("fs/jbd2.ko.xz",),  # two that ask for each other
    },
    built_in=frozenset({"loop"}),
)


def names(*wanted: str) -> list[str]:
    return [Path(path).name.removesuffix(".ko.xz") for path in choose(KERNEL, wanted)]


def test_each_comes_after_what_it_needs_and_with_what_that_asks_for() -> None:
    chosen = names("ext4")
    assert sorted(chosen) == ["crc16", "crc32c-fast", "crc32c-generic", "ext4", "fast", "jbd2"]
    places = {name: chosen.index(name) for name in chosen}
    assert places["crc16"] < places["jbd2"] < places["ext4"]
    assert places["fast"] < places["crc32c-fast"]


def test_dash_and_underscore_are_the_same_and_a_pattern_means_all_that_match() -> None:
    assert names("crc32c_generic", "nft_*") == ["crc32c-generic", "nft_log", "nft_nat"]


def test_one_that_is_built_in_is_there_and_one_that_is_not_is_refused() -> None:
    assert names("loop") == []
    with pytest.raises(Dom0Error, match=r"kernel 6\.1 has no module ext5"):
        names("ext5")


def test_what_a_module_asks_for_has_its_own_name_or_one_that_several_have(tmp_path: Path) -> None:
    (tmp_path / "modules.softdep").write_text(
        "# by depmod\n"
        "softdep ext4 pre: crypto-crc32c\n"
        "softdep nft_log pre: nft-nat\n"
        "softdep nft_log post: jbd2 nothing-like-that\n"
    )
    (tmp_path / "modules.alias").write_text(
        "# by depmod\n"
        "alias crypto-crc32c crc32c_generic\n"
        "alias crypto-crc32c crc32c_fast\n"
        "alias of:N*T*Cmaker,a name with spaces crc16\n"
    )
    assert asks_of(tmp_path, KERNEL.needs) == {
        "fs/ext4.ko.xz": ("lib/crc32c-generic.ko.xz", "lib/crc32c-fast.ko.xz"),
        "net/nft_log.ko.xz": ("net/nft_nat.ko.xz", "fs/jbd2.ko.xz"),
    }
