"""Codes and tokens."""

from __future__ import annotations

from dom0.web.session import MOST_TOKENS, Sessions


def test_a_code_opens_one_session_and_is_another_one_then() -> None:
    sessions = Sessions()
    code = sessions.code
    token = sessions.open(code)
    assert token is not None
    assert sessions.knows(token)
    assert sessions.open(code) is None
    assert sessions.code not in (code, token)
    assert len(code) >= 32


def test_what_is_no_token_is_not_known() -> None:
    sessions = Sessions()
    assert not any(sessions.knows(word) for word in ("", sessions.code, "é", "x" * 100_000))
    assert sessions.open("") is None
    assert sessions.open("é") is None


def test_many_sessions_push_out_the_oldest() -> None:
    sessions = Sessions()
    tokens = [sessions.open(sessions.code) or "" for _ in range(MOST_TOKENS + 1)]
    assert [sessions.knows(token) for token in tokens] == [False] + [True] * MOST_TOKENS
