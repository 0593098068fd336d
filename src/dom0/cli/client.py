"""Asks the running dom0: on its unix socket, or through the Engine of another machine. The documents are in
agent/status.py.

Nothing here imports asyncio or h11: a command starts at once.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from dom0 import __version__
from dom0.agent.events import Entry
from dom0.agent.status import (
    DoneRequest,
    GenerationInfo,
    Progress,
    RollbackRequest,
    Status,
    TryRequest,
    UpRequest,
)
from dom0.cli.places import agent_socket, is_here
from dom0.errors import Busy, Dom0Error, EngineError, UsageError
from dom0.host import launcher
from dom0.http import blocking
from dom0.names import ROOT, run_directory
from dom0.run import dial

if TYPE_CHECKING:
    from dom0.agent.ambassador_status import AmbassadorStatus
    from dom0.agent.file_status import FileInfo
    from dom0.plan.differences import Difference
    from dom0.plan.preview import Change

ANSWER_WITHIN = 30.0  # seconds; of an answer that is no stream
SUCCESSION_WITHIN = 240.0  # seconds for a new root container to answer, or the one before again
PAUSE = 0.1  # seconds between attempts
SILENT = 4.0  # seconds without an answer after which it may be paused
ENGINE_WITHIN = 5.0  # seconds for the Engine to say whether it is
STATUS = "/v1/status"
NOT_CONNECTED = (FileNotFoundError, ConnectionRefusedError, type(None))  # None: it answered, with a refusal

Document = TypeVar("Document")


class AgentUnreachable(Dom0Error):
    """No dom0 runs here, or we may not ask it."""


class AgentPaused(AgentUnreachable):
    """By `docker pause dom0`: connections are accepted, and never answered."""

    def __init__(self) -> None:
        super().__init__("dom0: is paused", hint="docker unpause dom0; or dom0 up")


class _Refusal(msgspec.Struct):
    """What the agent answers instead of a document."""

    message: str
    hint: str = ""


THROUGH_ENGINE = ("docker", "exec", "--interactive", ROOT, "dom0", "agent", "--dial")
"""Its input and output are a connection to the agent of the machine whose Engine docker asks."""


def note_done(command: str, what: str) -> None:
    """In the journal, what `command` has changed without asking the agent. Where none runs there is nobody to tell."""
    with suppress(Dom0Error):
        Agent(patient=False).note_done(DoneRequest(command=command, text=f"{command}: {what}"))


class Agent:
    """The agent of the machine whose Engine is named. Every call raises AgentUnreachable, or what the agent refused.

    A `patient` one waits while one root container takes the place of another.
    """

    def __init__(self, *, patient: bool = True) -> None:
        self._patient = patient
        self._here = is_here()
        self.path = str(agent_socket()) if self._here else "dom0"

    def status(self) -> Status:
        return self.call("GET", STATUS, Status)

    def watch(self) -> Iterator[Status]:
        """The status now, and again at every change, until the agent ends."""
        return self._stream("GET", "/v1/watch", None, Status)

    def history(self) -> list[GenerationInfo]:
        return self.call("GET", "/v1/history", list[GenerationInfo])

    def differences(self, generation: int, before: int | None = None) -> list[Difference]:
        """What it asks for and generation `before`, or the one made before it, does not."""
        from dom0.plan.differences import Difference

        query = f"?before={before}" if before else ""
        return self.call("GET", f"/v1/generations/{generation}/differences{query}", list[Difference])

    def plan_rollback(self, generation: int) -> list[Change]:
        """What going back to it would do."""
        from dom0.plan.preview import Change

        return self.call("GET", f"/v1/generations/{generation}/plan", list[Change])

    def events(self, since: int) -> Iterator[Entry]:
        """Those in the journal with a greater number, the oldest first."""
        while page := list(self._stream("GET", f"/v1/events?since={since}", None, Entry)):
            yield from page
            since = page[-1].seq

    def last_events(self, count: int, *, within: float) -> list[Entry]:
        """The last ones in the journal, the oldest first; `within` in seconds."""
        lines = self._request("GET", f"/v1/events?tail={count}", None, within).splitlines()
        return [self._decode(line, Entry) for line in lines]

    def follow_events(self, since: int) -> Iterator[Entry]:
        """The same, and those that come, until the agent ends."""
        return self._stream("GET", f"/v1/events?since={since}&follow=1", None, Entry)

    def files(self) -> list[FileInfo]:
        """Those of the project that the machine changed."""
        from dom0.agent.file_status import FileInfo

        return self.call("GET", "/v1/files", list[FileInfo])

    def ambassadors(self) -> list[AmbassadorStatus]:
        from dom0.agent.ambassador_status import AmbassadorStatus

        return self.call("GET", "/v1/ambassadors", list[AmbassadorStatus])

    def up(self, request: UpRequest) -> Iterator[Progress]:
        return self._stream("POST", "/v1/up", request, Progress)

    def rollback(self, generation: int | None) -> Iterator[Progress]:
        return self._stream("POST", "/v1/rollback", RollbackRequest(generation=generation), Progress)

    def announce_trial(self, dom0_image: str, seconds: float) -> None:
        """The next generation from `dom0_image` goes back after `seconds` unless it is confirmed."""
        self._request("POST", "/v1/try", TryRequest(dom0_image=dom0_image, seconds=seconds))

    def note_done(self, done: DoneRequest) -> None:
        self._request("POST", "/v1/done", done)

    def confirm(self) -> Status:
        return self.call("POST", "/v1/confirm", Status)

    def abort(self) -> Status:
        return self.call("POST", "/v1/abort", Status)

    def call(
        self,
        method: str,
        target: str,
        document: type[Document],
        *,
        body: Any = None,
        within: float | None = ANSWER_WITHIN,
    ) -> Document:
        """One request with one answer; `within` in seconds, None: however long it takes."""
        return self._decode(self._request(method, target, body, within), document)

    def _stream(self, method: str, target: str, body: Any, document: type[Document]) -> Iterator[Document]:
        with self._ask(method, target, body, None) as answer:
            try:
                for line in answer.lines():
                    yield self._decode(line, document)
            except OSError as error:
                raise self._unreachable(error, None) from error

    def _request(self, method: str, target: str, body: Any, within: float | None = ANSWER_WITHIN) -> bytes:
        with self._ask(method, target, body, within) as answer:
            try:
                return answer.read()
            except OSError as error:
                raise self._unreachable(error, within) from error

    def _ask(self, method: str, target: str, body: Any, timeout: float | None) -> blocking.Answer:
        deadline = time.monotonic() + (SUCCESSION_WITHIN if self._patient else 0.0)
        while True:
            try:
                return self._ask_once(method, target, body, timeout)
            except (AgentUnreachable, Busy) as error:
                not_begun = method == "GET" or isinstance(error.__cause__, NOT_CONNECTED)
                if not not_begun or time.monotonic() > deadline or not is_handed_over():
                    raise
            time.sleep(PAUSE)

    def _ask_once(self, method: str, target: str, body: Any, timeout: float | None) -> blocking.Answer:
        data = msgspec.json.encode(body) if body is not None else None
        if method != "GET" and is_paused():  # it would do it as soon as it goes on, with nobody there any more
            raise AgentPaused
        try:
            connection = blocking.connect(self.path) if self._here else dial(THROUGH_ENGINE, stderr=False)
            blocking.send(connection, method, target, body=data, timeout=timeout)
            if method == "GET" and not select.select([connection], [], [], SILENT)[0] and is_paused():
                connection.close()
                raise AgentPaused
            answer = blocking.answer(connection)
            if answer.status < blocking.BAD_REQUEST:
                return answer
            with answer:
                words = answer.read()
        except OSError as error:
            raise self._unreachable(error, timeout) from error
        try:
            refusal = msgspec.json.decode(words, type=_Refusal)
        except msgspec.DecodeError:
            refusal = _Refusal(message=f"{self.path}: status {answer.status}")
        kind = {blocking.BAD_REQUEST: UsageError, blocking.CONFLICT: Busy}.get(answer.status, Dom0Error)
        raise kind(refusal.message, hint=refusal.hint)

    def _decode(self, data: bytes, document: type[Document]) -> Document:
        try:
            return msgspec.json.decode(data, type=document)
        except msgspec.DecodeError as error:
            raise Dom0Error(
                f"{self.path}: the answer of the running dom0 is not understood: {error}",
                hint="it may be of another version than this command: `dom0 up` brings both together",
            ) from error

    def _unreachable(self, error: OSError, within: float | None) -> Dom0Error:
        """By what the Engine and the launcher say of the root container. Raises EngineError."""
        if not self._here:
            from dom0.cli import engine_client

            if engine_client.container(ROOT) is None:
                return AgentUnreachable("dom0: does not run on that machine", hint="start it: dom0 up")
            hint = f"see why: docker logs {ROOT}; it has to be of this version: {__version__}"
            return AgentUnreachable(f"dom0: does not answer on that machine: {error}", hint=hint)
        match error:
            case FileNotFoundError() | ConnectionRefusedError() if (kept_down := _told_by_launcher()) is not None:
                return kept_down
            case ConnectionRefusedError() if _state_of_root() not in ("stopped", "missing"):
                return AgentUnreachable("dom0: does not answer", hint="see why: docker logs dom0; start it: dom0 up")
            case FileNotFoundError() if _state_of_root() == "running":
                hint = "ask again in a moment; if that stays so, see why: docker logs dom0"
                return AgentUnreachable("dom0: runs, and does not answer yet", hint=hint)
            case FileNotFoundError() | ConnectionRefusedError():
                return AgentUnreachable("dom0: does not run here", hint="start it: dom0 up")
            case PermissionError():
                return AgentUnreachable(
                    f"{self.path}: permission denied", hint="ask as root, or as a user of the socket's group"
                )
            case TimeoutError():
                return AgentUnreachable(f"{self.path}: no answer within {within:g} s", hint="see why: docker logs dom0")
        return AgentUnreachable(f"{self.path}: the connection broke: {error}", hint="see why: docker logs dom0")


def is_handed_over() -> bool:
    """Whether one root container takes the place of another."""
    from dom0.cli import engine_client
    from dom0.plan import labels
    from dom0.plan.desired import Role

    try:
        helpers = engine_client.containers(f"{labels.ROLE}={Role.HANDOVER}")
    except EngineError:
        return False
    return any(helper.state == "running" for helper in helpers)


def is_paused() -> bool:
    """Whether the root container is; False where the Engine cannot be asked."""
    return _state_of_root() == "paused"


def _state_of_root() -> Literal["paused", "running", "stopped", "missing", "unknown"]:
    """`unknown` where the Engine cannot be asked."""
    from dom0.cli import engine_client

    try:
        root = engine_client.container(ROOT, within=ENGINE_WITHIN)
    except EngineError:
        return "unknown"
    if root is None:
        return "missing"
    if root.state.paused:
        return "paused"
    return "running" if root.state.running else "stopped"


def _told_by_launcher() -> AgentUnreachable | None:
    """Where the host's launcher knows why no dom0 runs."""
    status = launcher.read_status(run_directory())
    if status is None or status.runs not in _HINTS:
        return None
    taken_down = status.runs is launcher.Runs.STOPPED and _state_of_root() == "missing"
    hint = "start it: dom0 up" if taken_down else _HINTS[status.runs]
    return AgentUnreachable(f"dom0: does not run here: {status.why}", hint=hint)


_HINTS = {
    launcher.Runs.STARTING: "wait: dom0 is the last step of its boot",
    launcher.Runs.STOPPED: "start it: docker start dom0",
    launcher.Runs.RESCUE: "see why: docker logs dom0-failed; bring an image that works: dom0 up",
    launcher.Runs.NOTHING: "see why: docker logs dom0-failed; bring an image that works: dom0 up",
}
