"""Names in a scope and in its Engine. Pure.

A container that a scope calls `web` is `guest.web` in the Engine: two scopes may both have one, and a name with a dot
is never taken for an ID. The name decides whose an object is, its label confirms it. Scopes stack: the socket of `team`
inside `guest` asks guest's socket, which puts its own part in front: `guest.team.web`, `/guest/team`.

A label that it gives, `traefik.enable`, is `guest/traefik.enable` there (`guest/team/traefik.enable`): what acts on
labels beside it, a Compose or a Traefik of the host's, knows none of these.

An image that it calls `app:dev` is `dom0.invalid/guest/app:dev`: a name that no registry can have (RFC 2606).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from functools import cached_property

import msgspec

from dom0 import names
from dom0.errors import UsageError
from dom0.socketproxy.refusal import BAD_REQUEST, Refused, check_size

LABEL = "dom0.scope"
ORCHESTRATOR = "dom0.orchestrator"  # on who was given the socket: JSON, labels of its image that ours took the place of
PATHS = "dom0.paths"  # on containers: what was written for paths of the host, see `paths`
OWN = (LABEL, ORCHESTRATOR, PATHS)  # labels that the servers of scopes write, and that have one name at every level
RESERVED = (names.LABELS, "com.docker.compose.")  # labels that say what something is to who made it
ANONYMOUS = re.compile(r"[0-9a-f]{64}")  # what the Engine calls a volume that nobody named
ANONYMOUS_ALONE = "(^[0-9a-f]{64}$)"  # for the Engine's filter; behind another scope too, by `long_pattern` the same
NAME_PATTERN = re.compile(names.SCOPE_NAME)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = rf"{_PART}(?:/{_PART})*"  # without a registry that has a port
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}"
LONGEST_REPOSITORY = 255
LARGEST_LABELS = 64 << 10  # bytes of a container's, as JSON: others read them with the lists that they are in
LARGEST_OF_OTHERS = 8 << 10  # bytes of a volume's or a network's


class Scope(msgspec.Struct, frozen=True, dict=True):
    name: str

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise UsageError(
                f"scope {self.name!r}: not a name for one",
                hint="1 to 31 small letters, digits, - and _, a letter or digit first: --scope guest",
            )

    @cached_property
    def path(self) -> str:
        return f"/{self.name}"

    @cached_property
    def prefix(self) -> str:
        return f"{self.name}."

    @cached_property
    def _prefix_in_text(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![\w.-]){re.escape(self.prefix)}")

    def long(self, name: str) -> str:
        return self.prefix + name

    def long_pattern(self, pattern: str) -> str:
        """Of the Engine's filter of names, which are searched with a slash and without."""
        match = re.match(r"\^(/\??)?", pattern)
        return f"^/?{re.escape(self.prefix)}{pattern[match.end() :]}" if match else pattern

    def short(self, name: str) -> str:
        return name.removeprefix(self.prefix)

    @cached_property
    def label_prefix(self) -> str:
        return f"{self.name}/"

    def long_label(self, key: str) -> str:
        return self.label_prefix + key

    def long_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {self.long_label(key): value for key, value in labels.items() if key not in OWN}

    def inherited(self, of_image: Mapping[str, str]) -> dict[str, str]:
        """What a container says so that the Engine does not give it its image's labels: empty, and with our prefix as
        they are. Those that have it already may be handed on.
        """
        others = {key: value for key, value in of_image.items() if not key.startswith(self.label_prefix)}
        copies = {key: value for key, value in self.long_labels(others).items() if key not in of_image}
        return {**{key: "" for key in others if key not in OWN}, **copies}

    @cached_property
    def image_prefix(self) -> str:
        return f"{names.SCOPED_IMAGES}/{self.name}/"

    def long_image(self, name: str) -> str:
        """`name` with its tag. Raises Refused where the Engine could not call an image of the scope's so."""
        long = self.image_prefix + name
        if not re.fullmatch(f"{REPOSITORY}:{TAG}", long) or len(long.rpartition(":")[0]) > LONGEST_REPOSITORY:
            raise Refused(BAD_REQUEST, f"{name}: the scope can give no image a name with these letters")
        return long

    def short_image(self, name: str) -> str:
        return name.removeprefix(self.image_prefix)

    def owns_image(self, name: str) -> bool:
        return name.startswith(self.image_prefix)

    def owns_name(self, name: str) -> bool:
        """What the name alone says: where there is no label, or it was checked."""
        return name.startswith(self.prefix)

    def owns(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """`name` as in the Engine, without a slash in front."""
        return self.owns_name(name) and self._is_stamp(labels)

    def owns_volume(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """That of an anonymous one is the Engine's choice, so its label decides: only sockets of scopes write it."""
        return self.owns(name, labels) or (ANONYMOUS.fullmatch(name) is not None and self._is_stamp(labels))

    def _is_stamp(self, labels: Mapping[str, str] | None) -> bool:
        path = (labels or {}).get(LABEL, "")
        return path == self.path or path.startswith(f"{self.path}/")

    def stamped(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Of a volume or a network, as the Engine gets them. Raises Refused."""
        stamped = self._stamped(labels)
        check_size("Labels", stamped, LARGEST_OF_OTHERS, "give it fewer or shorter ones")
        return stamped

    def _stamped(self, labels: Mapping[str, str]) -> dict[str, str]:
        """What a scope inside this one has written of its path stands behind ours. Raises Refused."""
        inner = labels.get(LABEL, "")
        if inner and not re.fullmatch(r"(/[a-z0-9_-]{1,31}){1,16}", inner):
            raise Refused(BAD_REQUEST, f"Labels.{LABEL}: {inner!r} is not the path of a scope", field="Labels")
        return {**self.long_labels(labels), LABEL: self.path + inner}

    def stamped_container(
        self, labels: Mapping[str, str], of_image: Mapping[str, str], more: Mapping[str, str] = {}
    ) -> dict[str, str]:
        """Nothing made here was given our own socket by who serves it, whatever its image's labels say.

        `more` is ours too. Raises Refused.
        """
        orchestrator = labels.get(ORCHESTRATOR, "") if labels.get(LABEL) else ""
        stamped = {**self.inherited(of_image), **self._stamped(labels), ORCHESTRATOR: orchestrator, **more}
        check_size("Labels", stamped, LARGEST_LABELS, "give it, or its image, fewer or shorter ones")
        return stamped

    def is_orchestrator(self, labels: Mapping[str, str] | None) -> bool:
        """Whether a container of the scope's was given our own socket: then it is its owner's, not the scope's."""
        found = labels or {}
        return found.get(LABEL) == self.path and bool(found.get(ORCHESTRATOR))

    def shown(self, labels: Mapping[str, str] | None) -> dict[str, str]:
        """As the scope sees them. Its orchestrator is another's service outside, and here what its image says."""
        found = as_written(labels or {}, self.label_prefix)
        inner = found.pop(LABEL, "").removeprefix(self.path)
        if inner:
            return {**found, LABEL: inner}
        written = found.pop(ORCHESTRATOR, "")
        if not written:
            return found
        seen = {key: value for key, value in found.items() if not key.startswith(RESERVED)}
        of_image: dict[str, str] = {}
        with contextlib.suppress(msgspec.DecodeError):  # the orchestrator of a scope inside may have written anything
            of_image = msgspec.json.decode(written, type=dict[str, str])
        return {**seen, **of_image, ORCHESTRATOR: "itself"}

    def without_prefix(self, text: str) -> str:
        """Of the Engine's messages, which quote names."""
        return self._prefix_in_text.sub("", text.replace(self.image_prefix, ""))


def is_in_one(labels: Iterable[str]) -> bool:
    """Whether an Engine with these labels is a scope's."""
    return any(label.startswith(f"{LABEL}=") for label in labels)


def as_written(labels: Mapping[str, str], prefix: str) -> dict[str, str]:
    """By who wrote them with `prefix` in front; those without one are of an image, or of an older server's."""
    others = {key: value for key, value in labels.items() if not key.startswith(prefix)}
    own = {key.removeprefix(prefix): value for key, value in labels.items() if key.startswith(prefix)}
    return {**others, **{key: value for key, value in own.items() if key not in OWN}}


def is_made_inside(labels: Mapping[str, str]) -> bool:
    """Whether a container was made through the socket of a scope: then it is not this machine's, whatever it says."""
    return labels.get(LABEL, "").count("/") > (1 if labels.get(ORCHESTRATOR) else 0)
