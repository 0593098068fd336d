"""`dom0 image serve` as a person calls it. What it gives: tests/registry/test_serve.py."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dom0.registry.depot import Depot
from dom0.registry.manifest import digest_of
from dom0.run import Output

RunCommand = Callable[..., Output]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--listen", "5050"], "--listen: '5050' is not HOST:PORT"),
        (["--listen", "127.0.0.1:0"], "--listen: '127.0.0.1:0' is not HOST:PORT"),
        (["--listen", "127.0.0.1:65536"], "is not HOST:PORT"),
        (["--listen", "::1:5050"], "is not HOST:PORT"),
        (["--listen", "a..b:5050"], "--listen: a..b:5050: is no name of a host"),
        (["--peer", "192.168.1.5:5050"], "--peer: is for --mirror"),
        (["--allow", "192.168.1.5/24"], "--allow: 192.168.1.5/24 has host bits set"),
        (["--limit", "fast"], "--limit: 'fast' is no size"),
        (["--mirror", "--listen", "0.0.0.0:5050"], "--mirror, --listen: 0.0.0.0:5050: others could"),
        (["--mirror", "--listen", "[::]:5050"], "--mirror, --listen: [::]:5050: others could"),
        (["--mirror", "--peer", "nobody"], "--peer: 'nobody' is not HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused(dom0: RunCommand, arguments: list[str], what: str) -> None:
    refused = dom0("image", "serve", *arguments)
    assert refused.code == 2
    assert what in refused.stderr


def test_a_port_that_is_taken_is_named(dom0: RunCommand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = dom0("image", "serve", "--listen", address)
    assert refused.code == 6
    assert f"--listen: {address}: Address already in use\n" in refused.stderr


@pytest.mark.parametrize("options", [[], ["--mirror"]])
def test_it_serves_what_was_pulled_until_it_is_told_to_end(
    environment: dict[str, str], tmp_path: Path, options: list[str]
) -> None:
    Depot(tmp_path / "dom0" / "pull", 1 << 30).keep(b"blob", digest_of(b"blob"), public=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "dom0", "image", "serve", "--listen", f"127.0.0.1:{port}", *options]
    states = {"DOM0_STATE": str(tmp_path / "dom0"), "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(argv, env=environment | states, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{tmp_path}/dom0/pull: served at 127.0.0.1:{port}\n"
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("GET", f"/blobs/{digest_of(b'blob')}/from/1")
            assert json.loads(connection.getresponse().read())["ready"] == 3
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == (200 if options else 404)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
