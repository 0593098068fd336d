"""Grants that are put together, and written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.socketproxy import grants, partial
from dom0.socketproxy.grants import Grants, Images


@pytest.mark.parametrize(
    ("granted", "line"),
    [
        (Grants(), ""),
        (Grants(capabilities=("NET_ADMIN", "CHOWN")), "capabilities: [NET_ADMIN, CHOWN]"),
        (Grants(images=Images(use=("no", "guest/*"))), 'images: {use: ["no", "guest/*"]}'),
        (Grants(containers=101, ports=("53/udp",)), 'containers: 101, ports: ["53/udp"]'),
    ],
)
def test_grants_as_a_line(granted: Grants, line: str) -> None:
    assert partial.one_line(granted) == line


some = st.builds(
    Grants,
    images=st.builds(
        Images,
        use=st.lists(st.text(max_size=8) | st.sampled_from(["no", "null"]), max_size=3, unique=True).map(tuple),
    ),
    capabilities=st.lists(st.sampled_from(["NET_ADMIN", "CHOWN", "KILL"]), max_size=3, unique=True).map(tuple),
    containers=st.integers(1, 1000),
    ports=st.lists(st.sampled_from(["80", "53/udp", "127.0.0.1:1-2", "[::1]:7/sctp"]), max_size=3, unique=True).map(
        tuple
    ),
)


@given(some)
def test_the_lines_of_grants_are_a_file_of_them(granted: Grants) -> None:
    with TemporaryDirectory() as directory:
        file = Path(directory, "grants.yaml")
        file.write_text("\n".join(partial.lines(granted)))
        assert grants.read(file) == granted


@given(some, some)
def test_merged_grants_allow_what_either_allows(one: Grants, other: Grants) -> None:
    merged = partial.merge(one, other)
    assert partial.merge(merged, one) == partial.merge(merged, other) == merged
    assert set(merged.ports) == {*one.ports, *other.ports}
    assert partial.merge(one, Grants()) == one


def test_all_grants_with_their_defaults() -> None:
    said = dict(partial.flat(Grants(ports=("80",))))
    assert (said["images.use"], said["ports"], said["networks"]) == ((), ("80",), 8)
