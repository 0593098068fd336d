from __future__ import annotations

import pytest

from dom0 import sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512 MB", 512 << 20),
        ("2GiB", 2 << 30),
        ("1.5g", 3 << 29),
        ("100b", 100),
        ("1t", 1 << 40),
    ],
)
def test_a_size(text: str, size: int) -> None:
    assert sizes.parse(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1e9", "1..5g", "1,5g", "1 2", "5x", "٣m", "1m\n"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        sizes.parse(text)
