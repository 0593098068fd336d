"""The x-dom0 section: merging of layers, durations, and the page that documents every key."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.compose.tags import Override, Reset
from dom0.compose.x_dom0 import MachineSettings, ServiceSettings, findings, merge, with_empty_sections
from dom0.durations import nanoseconds, seconds
from dom0.socketproxy.grants import Grants

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "x-dom0.md"
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SECTION = st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3)


@given(SECTION)
def test_merging_with_nothing_changes_only_double_entries_of_lists(section: dict[str, Any]) -> None:
    merged = merge({}, section)
    assert merge(merged, {}) == merged
    assert merge(merged, merged) == merged


@given(SECTION, SECTION)
def test_every_key_of_both_layers_is_there(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    assert merge(lower, upper).keys() == lower.keys() | upper.keys()


@given(SECTION, SECTION)
def test_the_lower_layer_is_left_as_it_was(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    before = msgspec.json.encode(lower)
    merge(lower, upper)
    assert msgspec.json.encode(lower) == before


def test_lists_are_joined_but_a_command_is_one_value() -> None:
    assert merge({"keys": ["a"], "command": ["a"]}, {"keys": ["a", "b"], "command": ["b"]}) == {
        "keys": ["a", "b"],
        "command": ["b"],
    }


def test_reset_takes_away_and_override_replaces() -> None:
    lower = {"a": {"x": 1}, "b": [1], "c": 1}
    assert merge(lower, {"a": Override({"y": 2}), "b": Override([2]), "c": Reset}) == {"a": {"y": 2}, "b": [2]}


def test_a_section_without_content_is_switched_on() -> None:
    assert msgspec.convert(with_empty_sections({"ssh": None, "home": None}), MachineSettings) == msgspec.convert(
        {"ssh": {}, "home": {}}, MachineSettings
    )
    assert msgspec.convert(with_empty_sections(None), MachineSettings) == MachineSettings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5m", 300.0), ("1m30s", 90.0), ("1h0m0.5s", 3600.5), ("250ms", 0.25), ("0s", 0.0), ("", 0.0), ("-1s", -1.0)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["5", "5 m", "m", "-", "1d", "1m30", "٣s", "1e3s", "9999999h", "--1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|years"):
        seconds(text)


@given(st.text(alphabet="0123456789.hmsuµn-", max_size=12))
def test_a_duration_is_a_number_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert abs(nanoseconds(text)) < 2**63


BACKUP = {"to": "/srv/backup", "env_file": "./backup.env"}
MAIL = {"to": ["me@example.org"], "from": "box@example.org", "server": "smtp.example.org:587"}


@pytest.mark.parametrize(
    "section",
    [
        {"backup": {"data": BACKUP}},
        {"backup": {"data": {**BACKUP, "to": "s3:https://s3.example/bucket", "keep": {"daily": 7}}}},
        {"backup": {"data": {**BACKUP, "to": "rest:https://backup.example/box/"}}},
        {"backup": {"data": {**BACKUP, "to": "sftp:me@nas:/srv", "ssh_key": "key", "known_hosts": ["nas ssh-rsa A"]}}},
        {"notify": {"ntfy": "https://ntfy.sh/topic", "mail": MAIL}},
        {"notify": {"env_file": "./notify.env"}},
    ],
)
def test_backups_and_people_who_are_told_may_be_written_so(section: dict[str, Any]) -> None:
    assert list(findings(msgspec.convert(section, MachineSettings))) == []


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"backup": {"data": {**BACKUP, "to": "srv/backup"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "to": "/"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "to": "/a,readonly"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "to": "rclone:x"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "to": "s3:https://s3.example"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "to": "rest:https://me:secret@backup.example/"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "to": "sftp:me@nas:/srv"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "ssh_key": "key"}}}, "backup.data.to"),
        ({"backup": {"data": {**BACKUP, "env_file": "../backup.env"}}}, "backup.data.env_file"),
        ({"backup": {"data": {**BACKUP, "schedule": "at night"}}}, "backup.data.schedule"),
        (
            {"backup": {"data": {**BACKUP, "before": [{"service": "a", "command": ["b"], "timeout": "0s"}]}}},
            "backup.data.before.0.timeout",
        ),
        ({"backup": {"data": {**BACKUP, "keep": {}}}}, "backup.data.keep"),
        ({"backup": {"data": {**BACKUP, "keep": {"daily": -1}}}}, "backup.data.keep"),
        (
            {"backup": {"data": {**BACKUP, "before": [{"service": "db", "command": []}]}}},
            "backup.data.before.0.command",
        ),
        ({"notify": {}}, "notify"),
        ({"notify": {"ntfy": "ntfy.sh/topic"}}, "notify.ntfy"),
        ({"notify": {"webhook": "https://me:secret@example.org/"}}, "notify.webhook"),
        ({"notify": {"env_file": "/etc/shadow"}}, "notify.env_file"),
        ({"notify": {"mail": {**MAIL, "to": []}}}, "notify.mail.to"),
        ({"notify": {"mail": {**MAIL, "to": ["me@a, you@b"]}}}, "notify.mail.to"),
        ({"notify": {"mail": {**MAIL, "from": "me@a\nBcc: x@y"}}}, "notify.mail.from"),
        ({"notify": {"mail": {**MAIL, "server": "smtp://x"}}}, "notify.mail.server"),
    ],
)
def test_what_makes_no_sense_of_them_is_refused_at_its_key(section: dict[str, Any], key: str) -> None:
    found = list(findings(msgspec.convert(section, MachineSettings)))
    assert [".".join(one.path) for one in found] == [f"x-dom0.{key}"]


def test_every_key_is_documented_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `([\w.-]+)` \| (\S.*?) \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == dict(_keys("x-dom0", MachineSettings)) | dict(_keys("services.NAME.x-dom0", ServiceSettings))


def _keys(path: str, kind: type[msgspec.Struct]) -> list[tuple[str, str]]:
    found = []
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        name = f"{path}.{field.encode_name}"
        section, below = _section(field.type, name)
        default = "off" if isinstance(field.type, msgspec.inspect.UnionType) and section else _default(field)
        found += [(name, default), *(_keys(below, section) if section else [])]
    return found


def _section(shape: Any, name: str) -> tuple[type[msgspec.Struct] | None, str]:
    """The struct behind a key, and where its keys are; an entry of a mapping is NAME."""
    if isinstance(shape, msgspec.inspect.DictType):
        return _section(shape.value_type, f"{name}.NAME")
    choices = getattr(getattr(shape, "item_type", shape), "types", (shape,))
    found = next((t.cls for t in choices if isinstance(t, msgspec.inspect.StructType)), None)
    return (None if found is Grants else found), name  # docs/socketproxy.md lists those


def _default(field: Any) -> str:
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    return "none" if value == "" else f"`{msgspec.json.encode(value).decode().strip(chr(34))}`"
