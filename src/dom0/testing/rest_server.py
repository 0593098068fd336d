"""A REST server for restic, as far as restic asks: keeps a repository in a directory, and wants a password.

Source: "REST Backend" in restic's references. To run it: `python -m dom0.testing.rest_server DIRECTORY PORT PASSWORD`.
"""

from __future__ import annotations

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

USER = "box"
VERSION_2 = "application/vnd.x.restic.rest.v2"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path
    password: str

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._is_let_in():
            path = self._path()
            if not self.path.endswith("?create=true"):
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f"{path.name}.part")
                part.write_bytes(data)
                part.replace(path)
            self._answer(200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self._is_let_in():
            return
        path = self._path()
        if self.path.endswith("/"):
            files = sorted(path.rglob("*")) if path.exists() else []
            listed = [{"name": one.name, "size": one.stat().st_size} for one in files if one.is_file()]
            self._answer(200, json.dumps(listed).encode(), kind=VERSION_2)
        elif not path.is_file():
            self._answer(404)
        elif wanted := self.headers.get("Range", ""):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            self._answer(206, path.read_bytes()[int(first) : int(last) + 1 if last else None])
        else:
            self._answer(200, path.read_bytes())

    def do_DELETE(self) -> None:
        if self._is_let_in():
            self._path().unlink(missing_ok=True)
            self._answer(200)

    def _path(self) -> Path:
        return self.directory / self.path.partition("?")[0].strip("/")

    def _is_let_in(self) -> bool:
        expected = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {expected}":
            return True
        self._answer(401)
        return False

    def _answer(self, status: int, body: bytes = b"", *, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the parameter's own name
        """Nothing."""


if __name__ == "__main__":
    Handler.directory, Handler.password = Path(sys.argv[1]), sys.argv[3]
    server = ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Handler)  # noqa: S104 -- of a namespace of its own
    print("ready", flush=True)  # noqa: T201 -- whoever has started it waits for this
    server.serve_forever()
