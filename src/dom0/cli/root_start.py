"""A root container that starts while the rest of `dom0 up` is loaded and looks whether it may: where none is yet.

An agent takes as long to load as the command does. With as little loaded as unchanged.py, because this comes before all
else. The agent waits for a `dom0 up` (agent/machine); if the command refuses, or is ended, the container is removed. It
is created, not started, before it is known whether its image is the project's.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dom0.agent.contract import root_document
from dom0.cli import quick_engine
from dom0.cli.places import agent_socket, forget_agent_sockets, is_here
from dom0.cli.unchanged import ask_for_images, is_current, tagged_images
from dom0.errors import Dom0Error, EngineError
from dom0.http import blocking
from dom0.names import IMAGE, ROOT
from dom0.plan import labels

STOP_GRACE = 20  # seconds for the agent to end
_CREATE = f"/containers/create?name={ROOT}"
_ROOTS = f"/containers/json?all=1&filters={quote(json.dumps({'label': [labels.ROLE]}))}"


class RootStart:
    """At the end of the block what has begun and was not accepted is removed."""

    def __init__(self) -> None:
        self._id = ""
        self._creation: socket.socket | None = None
        self._answer: socket.socket | None = None

    @property
    def is_pending(self) -> bool:
        return bool(self._id)

    def begin_if_current(self, project: Path) -> str | None:
        """Begin where nothing of dom0 is there but a dom0:latest that `project` would be built into.

        Returns its ID, "" if there is no such image, None if nobody has looked. Raises ProjectError.
        """
        try:
            if not is_here() or blocking.is_listening(str(agent_socket())):
                return None
            asked, others = ask_for_images(), quick_engine.send(_ROOTS, "GET")
            from dom0.images.names import has_its_names  # with what compares a project, while the Engine answers

            images = tagged_images(asked)
            image, has_none = images.get(IMAGE), quick_engine.read(others, _ROOTS) in (b"[]", b"[]\n")
            if may_begin := has_none and image and labels.AWAITS in image.labels and has_its_names(image.tags):
                self._create()  # while the project and all of dom0 are read
            if not is_current(project, IMAGE, images):
                self._remove()
                return ""
            if may_begin:
                self.begin()
        except EngineError:
            return None  # the command says why
        return images[IMAGE].id

    def begin(self) -> None:
        """Create it, and have it started meanwhile. If it cannot be, whoever waits for its answer says why."""
        if self._id:
            return
        if self._creation is None:
            self._create()
        if self._is_created():
            with contextlib.suppress(EngineError):
                self._answer = quick_engine.send(f"{self._path}/start", "POST")

    def accept(self) -> None:
        """It stays."""
        self._id = ""

    def await_start(self) -> bool:
        """Whether the Engine has started it, once that is known."""
        connection, self._answer = self._answer, None
        if connection is None:
            return False
        try:
            return quick_engine.read(connection, f"/containers/{ROOT}/start") is not None
        except EngineError:
            return False

    def __enter__(self) -> RootStart:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _create(self) -> None:
        body = json.dumps(root_document(IMAGE, awaits_up=True)).encode()
        with _uninterrupted(), contextlib.suppress(EngineError):
            self._creation = quick_engine.send(_CREATE, "POST", body)

    def _is_created(self) -> bool:
        with _uninterrupted(), contextlib.suppress(EngineError, ValueError, LookupError, TypeError):
            connection, self._creation = self._creation, None
            if connection is not None:
                self._id = str(json.loads(quick_engine.read(connection, _CREATE) or b"")["Id"])
        return bool(self._id)

    def _remove(self) -> None:
        if not self._is_created():
            return
        self.await_start()
        with contextlib.suppress(EngineError):
            quick_engine.ask(f"{self._path}/stop?t={STOP_GRACE}", "POST")
            quick_engine.ask(f"{self._path}?force=1", "DELETE")
        self._id = ""
        with contextlib.suppress(Dom0Error):
            forget_agent_sockets()

    @property
    def _path(self) -> str:
        return f"/containers/{quote(self._id)}"


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C in between would leave a container that nobody knows of."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
