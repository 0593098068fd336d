"""What one generation asks for and another one does not, for people: in the Engine's words, value by value. Pure.

Values that may be secret are not told, only that they differ: variables, contents of files, options of drivers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dom0.names import short_id
from dom0.plan.desired import Desired, InjectedFile, Slot

HIDDEN = "(not shown)"
HASH = "hash"  # of all that makes another container necessary; told where no other value says it: contents of files
LONGEST = 300  # characters of a value
_OF_OURS = ("Labels.dom0.", "Labels.com.docker.compose.")  # follow from the others
_SECRET = ("Env.", "file ", "post_start", "ntfy", "webhook")
_OPTIONS = ("DriverOpts.", "create.Options.", "LogConfig.Config.")  # of drivers: a share's password, a log's token
_FOLLOWS = {"name", "number", "image_id", "create", "files", "post_start", "resources", "health"}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`before` and `after` are texts as in the Engine's API; "": it is not set, or there is no such thing."""

    subject: str  # `service web`, `network default`, `volume data`, `rollout`, `pull`, `notify`, `metrics`, `web`
    key: str  # `HostConfig.Memory`, `Env.VERSION`; "" for all of the subject
    before: str
    after: str


def compare(before: Desired | None, after: Desired) -> list[Difference]:
    """In the order of subjects and keys. `before` None: there was nothing."""
    old, new = _subjects(before) if before else {}, _subjects(after)
    return [
        Difference(subject=subject, key=key, before=was, after=will)
        for subject in sorted(old.keys() | new.keys())
        for key, was, will in _changes(old.get(subject), new.get(subject))
    ]


def _changes(old: Mapping[str, str] | None, new: Mapping[str, str] | None) -> Iterator[tuple[str, str, str]]:
    if old is None or new is None:
        yield "", "" if old is None else "there", "" if new is None else "there"
        return
    differing = (key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
    keys = [key for key in differing if not any(ours in key for ours in _OF_OURS)]
    for key in keys:
        if key != HASH or keys == [HASH]:
            yield key, _told(key, old.get(key, "")), _told(key, new.get(key, ""))


def _told(key: str, value: str) -> str:
    is_secret = key.startswith(_SECRET) or any(options in key for options in _OPTIONS) or '"DriverOpts":' in value
    return HIDDEN if value and is_secret else value[:LONGEST]


def _subjects(desired: Desired) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for slot in desired.slots:
        values = found.setdefault(f"service {slot.service}", {} if slot.number > 1 else _of_slot(slot))
        values["replicas"] = str(int(values.get("replicas", "0")) + 1)
    for kind, specs in (("network", desired.networks), ("volume", desired.volumes)):
        for spec in specs:
            found[f"{kind} {spec.key}"] = _flat(msgspec.to_builtins(spec), "", set())
    found["rollout"] = _flat(msgspec.to_builtins(desired.rollout), "", set())
    found["pull"] = _flat(msgspec.to_builtins(desired.sharing), "", set())
    for name in ("notify", "metrics", "web"):
        if (asked := getattr(desired, name)) is not None:
            found[name] = _flat(msgspec.to_builtins(asked), "", set())
    return found


def _of_slot(slot: Slot) -> dict[str, str]:
    body = msgspec.to_builtins(slot.create)
    env = dict(variable.partition("=")[::2] for variable in body.pop("Env", ()))
    body.pop("Image", None)
    return {
        **_flat(msgspec.to_builtins(slot), "", _FOLLOWS),
        **_flat(body, "", set()),
        **{f"Env.{key}": value or '""' for key, value in env.items()},
        **{f"file {file.path}": _digest(file) for file in slot.files},
        **({"post_start": _digest(slot.post_start)} if slot.post_start else {}),
        "image": f"{slot.image} {short_id(slot.image_id)}",
    }


def _digest(value: InjectedFile | tuple[object, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def _flat(value: Mapping[str, Any], path: str, left_out: set[str]) -> dict[str, str]:
    """`{"HostConfig.Memory": "268435456"}`; a list is one value."""
    flat: dict[str, str] = {}
    for key, inner in value.items():
        if key in left_out:
            continue
        where = f"{path}.{key}" if path else key
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, where, set())
        else:
            flat[where] = inner if isinstance(inner, str) else msgspec.json.encode(inner).decode()
    return flat
