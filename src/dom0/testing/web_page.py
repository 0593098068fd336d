"""`dom0 web` beside a machine of a test, and its port as anybody on this computer may ask it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping

from dom0.testing.machines import Machine


class Web:
    """`dom0 web`, beside the machine: the browser's network is ours."""

    def __init__(self, box: Machine, *options: str, **variables: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "DOM0_"))}
        here = {"DOM0_RUN": str(box.host.path("/run/dom0")), "DOCKER_HOST": box.host.docker_host}
        argv = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "dom0", "web", "--no-browser", *options]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=kept | (variables or here)
        )
        self.address = self.next_address()
        self.port = urllib.parse.urlsplit(self.address).port or 0

    def next_address(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def enter(self) -> str:
        """Use up an address as the page does; returns the token."""
        code = self.address.partition("#")[2]
        status, body = self.ask("POST", "/session", {"Content-Type": "application/json"}, json.dumps({"code": code}))
        assert status == 200, body
        self.address = self.next_address()
        return str(json.loads(body)["token"])

    def ask(self, method: str, path: str, headers: Mapping[str, str] = {}, body: str = "") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{self.port}", **headers}.items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode() or None)
        answer = connection.getresponse()
        self.headers = dict(answer.getheaders())
        found = (
            answer.status,
            b"" if answer.status == 200 and "ndjson" in self.headers["Content-Type"] else answer.read(),
        )
        connection.close()
        return found

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)
