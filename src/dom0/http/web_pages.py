"""Which requests may come from a web page in somebody's browser: none but our own. Pure.

Every page that a browser shows can reach a TCP port of its machine, and so what is forwarded to one (`ssh -L`), without
a preflight for what a form or an image could send. Browsers say where a request comes from, and pages cannot change
that. A name that resolves to 127.0.0.1 (DNS rebinding) makes a page same-origin, so only names that lead nowhere else
are answered.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from dom0.http.server import JSON, HttpError, Request

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ON_UNIX_SOCKET = (*LOOPBACK, "dom0", "")  # the last two are what its clients send
FROM_NO_PAGE = ("same-origin", "none")  # none: typed, or a bookmark
LINK = ("navigate", "document")  # the whole of a tab, not a frame in another page
_PORT = re.compile(r":[0-9]{1,5}\Z")


def check_request(request: Request, names: Collection[str], *, may_be_link: bool = False, scheme: str = "http") -> None:
    """`names`: what the server may be called. `may_be_link`: pages elsewhere may lead to this one. Raises HttpError."""
    hosts = request.headers.all("Host") or [""]
    if len(hosts) != 1 or _PORT.sub("", hosts[0]).lower() not in names:
        raise HttpError(403, f"Host has to be {', '.join(filter(None, names))}")
    if any(origin.lower() != f"{scheme}://{hosts[0]}".lower() for origin in request.headers.all("Origin")):
        raise HttpError(403, "a web page of another origin may not ask this")
    is_link = may_be_link and (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest")) == LINK
    if not is_link and any(site.lower() not in FROM_NO_PAGE for site in request.headers.all("Sec-Fetch-Site")):
        raise HttpError(403, "a web page of another site may not ask this")
    media_types = [value.partition(";")[0].strip().lower() for value in request.headers.all("Content-Type")]
    if request.has_body and media_types != [JSON]:
        raise HttpError(415, f"a body has to be of Content-Type {JSON}")
