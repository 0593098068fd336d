"""farm.yaml as a person writes it, or as somebody else does."""

from __future__ import annotations

import pytest

from dom0.errors import ProjectError
from dom0.farms import settings


def test_a_name_is_enough() -> None:
    found = settings.read(b"name: attic\n")
    assert (found.name, found.address) == ("attic", ("0.0.0.0", 7701))  # noqa: S104 -- read, not bound
    assert settings.read(b"name: a\nlisten: '[fd00::2]:80'\n").address == ("fd00::2", 80)


def test_a_role_is_rolled_out_to_one_after_the_other_unless_it_says_otherwise() -> None:
    found = settings.read(b"name: attic\nroles:\n  web: {at_once: 3, soak: 1m30s, canary: pi1}\n")
    assert found.roles["web"] == settings.RoleSettings(at_once=3, soak="1m30s", canary="pi1")
    assert found.roles["web"].soak_seconds == 90
    assert (settings.RoleSettings().at_once, settings.RoleSettings().soak_seconds) == (1, 30)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "farm.yaml: is empty"),
        ("listen: 0.0.0.0:1\n", "farm.yaml: name: is missing"),
        ("name: attic\n---\nname: b\n", "farm.yaml: has several documents"),
        ("name: 7\n", "farm.yaml: name: has to be text, not a whole number"),
        ("name: [a]\n", "farm.yaml: name: has to be text, not a list"),
        ("name: Attic\n", "farm.yaml: name: Attic: is no name"),
        ('name: "a\\n"\n', "farm.yaml: name: a\\n: is no name"),
        ("name: a/../b\n", "farm.yaml: name: a/../b: is no name"),
        (f"name: {'a' * 64}\n", "is no name"),
        ("colour: attic\n", "farm.yaml: colour: no such key"),
        ("name: a\nlisten: 7701\n", "farm.yaml: listen: has to be text"),
        ("name: a\nlisten: localhost:7701\n", "localhost:7701: is not ADDRESS:PORT"),
        ("name: a\nlisten: 999.0.0.1:7701\n", "is not ADDRESS:PORT"),
        ("name: a\nlisten: 127.0.0.1:0\n", "is not ADDRESS:PORT"),
        ("name: a\nlisten: 127.0.0.1:65536\n", "is not ADDRESS:PORT"),
        ("name: a\nlisten: fd00::2:7701\n", "is not ADDRESS:PORT"),
        ("name: a\nroles: {Web: {}}\n", "farm.yaml: roles: Web: is no name"),
        ("name: a\nroles: {web: {at_once: 0}}\n", "farm.yaml: roles.web.at_once: 0: has to be at least 1"),
        ("name: a\nroles: {web: {at_once: 1.5}}\n", "farm.yaml: roles.*.at_once: has to be a whole number"),
        ("name: a\nroles: {web: {soak: 30}}\n", "farm.yaml: roles.*.soak: has to be text"),
        ("name: a\nroles: {web: {soak: soon}}\n", "farm.yaml: roles.web.soak: soon: is no time up to a week"),
        ("name: a\nroles: {web: {soak: -1s}}\n", "is no time up to a week"),
        ("name: a\nroles: {web: {soak: 200h}}\n", "is no time up to a week"),
        ("name: a\nroles: {web: {canary: 'pi 1'}}\n", "farm.yaml: roles.web.canary: pi 1: is no name of a node"),
        ("name: a\nroles: {web: {project: web}}\n", "farm.yaml: roles.*.project: no such key"),
        ("name: a\nroles: [web]\n", "farm.yaml: roles: has to be a mapping"),
        ("name: a\nnotify: {}\n", "farm.yaml: notify: nobody is told"),
        ("name: a\nnotify: {ntfy: 'ftp://x'}\n", "farm.yaml: notify.ntfy: 'ftp://x' is not http(s)://HOST/"),
        ("name: a\nnotify: {mail: {to: [a@b], from: a@b}}\n", "farm.yaml: notify.mail.server: is missing"),
        ("name: a\nnotify: {env_file: /etc/x}\n", "notify.env_file: '/etc/x' is no file of this directory"),
        ("name: a\nfleetlock: yes\n", "farm.yaml: fleetlock: yes: is neither nodes nor open"),
        ("name: a\nfleetlock: all\n", "farm.yaml: fleetlock: all: is neither"),
        ("name: a\nname: b\n", "farm.yaml:2: duplicate key 'name'"),
        ("name: !!python/object/apply:os.system [x]\n", "unknown tag"),
        (
            "a: &a [b, b]\n"
            + "".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}]\n" if n else "x0: &x0 [*a, *a]\n" for n in range(20)),
            "grows to more than",
        ),
        ("name: " + "[" * 100 + "]" * 100 + "\n", "nested more than"),
        ("name: a\x00b\n", "binary data"),
        ("- name: attic\n", "has to be a mapping"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(text: str, what: str) -> None:
    with pytest.raises(ProjectError, match=r"^farm\.yaml") as refused:
        settings.read(text.encode())
    assert what in refused.value.message


def test_a_key_that_is_nearly_right_is_named() -> None:
    with pytest.raises(ProjectError) as refused:
        settings.read(b"name: a\nlsten: 127.0.0.1:1\n")
    assert refused.value.hint == "did you mean listen?"
