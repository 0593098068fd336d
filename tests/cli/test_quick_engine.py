"""One question to an Engine on another machine, with little loaded."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dom0.cli import quick_engine
from dom0.errors import EngineUnreachable


class Engine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as it is called there
        pass


@pytest.fixture
def server() -> Iterator[socketserver.TCPServer]:
    with socketserver.TCPServer(("127.0.0.1", 0), Engine) as server:
        yield server
        server.shutdown()


def begin(server: socketserver.TCPServer) -> int:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    port: int = server.server_address[1]
    return port


def test_it_answers_over_tcp(server: socketserver.TCPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{begin(server)}")
    assert quick_engine.ask("/version") == b"{}"
    assert quick_engine.ask("/nothing") is None


def test_one_that_does_not_answer_is_not_to_be_started(
    server: socketserver.TCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_engine, "ANSWER_WITHIN", 0.2)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
    with pytest.raises(EngineUnreachable) as caught:
        quick_engine.ask("/version")
    assert "is it overloaded" in caught.value.hint
    begin(server)


def test_over_tls_it_is_verified_and_shown_our_certificate(
    server: socketserver.TCPServer, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    port = begin(server)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificates))
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    assert quick_engine.ask("/version") == b"{}"
    monkeypatch.setenv("DOCKER_HOST", f"tcp://localhost:{port}")  # not what the certificate is for
    with pytest.raises(EngineUnreachable, match=r"no trusted connection .*certificate"):
        quick_engine.ask("/version")
