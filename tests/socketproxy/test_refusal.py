"""What a refusal says, whatever a client has written into it."""

from __future__ import annotations

import pytest

from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, LONGEST, Refused, check_size, size_as_json


def test_a_client_gets_back_no_more_of_its_own_than_says_what_is_meant() -> None:
    assert Refused(BAD_REQUEST, "x" * LONGEST).message == "x" * LONGEST
    assert Refused(BAD_REQUEST, "x" * 100_000).message == "x" * (LONGEST - 1) + "…"


def test_the_grant_that_it_would_take_is_said_behind_it() -> None:
    refused = Refused(FORBIDDEN, "x" * 100_000, grant=Grants(ports=("80/tcp",)))
    assert refused.message.endswith('…; it would take the grant ports: ["80/tcp"]')


@pytest.mark.parametrize(
    ("text", "written"),  # by Go 1.21: json.Marshal
    [
        ("a", '"a"'),
        ('\\"', r'"\\\""'),
        ("\x01\b\f", r'"\u0001\u0008\u000c"'),
        ("<&>", r'"\u003c\u0026\u003e"'),
        ("\u2028", r'"\u2028"'),
        ("\u00e9\n", '"\u00e9\\n"'),
    ],
)
def test_a_size_is_at_least_what_the_engine_writes(text: str, written: str) -> None:
    assert len(written.encode()) <= size_as_json(text) <= 2 * len(written.encode())


def test_what_is_too_long_is_said_with_what_to_do() -> None:
    check_size("Labels", "x" * 8, 10, "give fewer")
    with pytest.raises(Refused, match=r"^Labels: 11 bytes of JSON, of 10 that may be: give fewer$"):
        check_size("Labels", "x" * 9, 10, "give fewer")
