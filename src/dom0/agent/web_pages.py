"""Which requests may come from a web page in somebody's browser: none. Pure.

The socket has no password: who can open it may use it. Once it is forwarded to a TCP port (`ssh -L`), every page that a
browser on that machine shows can reach it too, without a preflight for what a form or an image could send. Browsers
say where a request comes from, and pages cannot change that. A name that resolves to 127.0.0.1 (DNS rebinding) makes a
page same-origin, so only names that lead nowhere else are answered.
"""

from __future__ import annotations

import re

from dom0.http.server import JSON, HttpError, Request

HOSTS = ("localhost", "127.0.0.1", "[::1]", "dom0", "")  # the last two are what clients of a unix socket send
FROM_NO_PAGE = ("same-origin", "none")  # none: typed, or a bookmark
_PORT = re.compile(r":[0-9]{1,5}\Z")


def check_request(request: Request) -> None:
    """Raises HttpError."""
    hosts = request.headers.all("Host") or [""]
    if len(hosts) != 1 or _PORT.sub("", hosts[0]).lower() not in HOSTS:
        raise HttpError(403, "Host has to be localhost, 127.0.0.1, [::1] or dom0")
    if any(origin.lower() != f"http://{hosts[0]}".lower() for origin in request.headers.all("Origin")):
        raise HttpError(403, "a web page of another origin may not ask the agent")
    if any(site.lower() not in FROM_NO_PAGE for site in request.headers.all("Sec-Fetch-Site")):
        raise HttpError(403, "a web page of another site may not ask the agent")
    media_types = [value.partition(";")[0].strip().lower() for value in request.headers.all("Content-Type")]
    if request.has_body and media_types != [JSON]:
        raise HttpError(415, f"a body has to be of Content-Type {JSON}")
