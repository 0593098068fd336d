"""What a refusal says, whatever a client has written into it."""

from __future__ import annotations

from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, LONGEST, Refused


def test_a_client_gets_back_no_more_of_its_own_than_says_what_is_meant() -> None:
    assert Refused(BAD_REQUEST, "x" * LONGEST).message == "x" * LONGEST
    assert Refused(BAD_REQUEST, "x" * 100_000).message == "x" * (LONGEST - 1) + "…"


def test_the_grant_that_it_would_take_is_said_behind_it() -> None:
    refused = Refused(FORBIDDEN, "x" * 100_000, grant=Grants(ports=("80/tcp",)))
    assert refused.message.endswith('…; it would take the grant ports: ["80/tcp"]')
