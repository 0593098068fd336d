"""A registry with one image, for pulls: the part of the distribution API that an Engine reads. A program of its own.

`python registry.py REPOSITORY TAG TEXT` serves it at 127.0.0.1, prints the port and its digest, and ends when it is
killed. Its only layer is the file /text with TEXT in it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _image(text: str) -> tuple[bytes, dict[str, bytes]]:
    """Its manifest, and its blobs by digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("text")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    rootfs = {"type": "layers", "diff_ids": [_digest(buffer.getvalue())]}
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, "history": []}
    ).encode()
    described = [
        {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}
        for kind, blob in ((CONFIG, config), (LAYER, layer))
    ]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    return json.dumps(manifest).encode(), {_digest(blob): blob for blob in (config, layer)}


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    documents: dict[str, tuple[str, bytes]]  # type and content by path

    def do_GET(self) -> None:
        kind, content = self.documents.get(self.path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", _digest(content))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def main(repository: str, tag: str, text: str) -> None:
    manifest, blobs = _image(text)
    base = f"/v2/{repository}"
    _Answers.documents = {"/v2/": ("application/json", b"{}")}
    _Answers.documents |= {f"{base}/manifests/{name}": (MANIFEST, manifest) for name in (tag, _digest(manifest))}
    _Answers.documents |= {f"{base}/blobs/{name}": ("application/octet-stream", blob) for name, blob in blobs.items()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    sys.stdout.write(f"{server.server_port} {_digest(manifest)}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
