"""Who may look: a code that works once, for a token that works while the server runs. No I/O.

The code is in the part of an address that browsers send nowhere (after #). The token is kept by one tab and sent as a
header: not as a cookie, which every other port of the same host would get too.
"""

from __future__ import annotations

import hmac
import secrets

MOST_TOKENS = 32  # the oldest one is forgotten then
_BYTES = 24


class Sessions:
    def __init__(self) -> None:
        self.code = secrets.token_urlsafe(_BYTES)
        self._tokens: list[str] = []

    def open(self, code: str) -> str | None:
        """The token for `code`, which is another one from now on; None: it is wrong, or was used."""
        if not hmac.compare_digest(code.encode(), self.code.encode()):
            return None
        self.code = secrets.token_urlsafe(_BYTES)
        self._tokens = [*self._tokens, secrets.token_urlsafe(_BYTES)][-MOST_TOKENS:]
        return self._tokens[-1]

    def knows(self, token: str) -> bool:
        return any(hmac.compare_digest(token.encode(), known.encode()) for known in self._tokens)
