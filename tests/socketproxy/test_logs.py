"""Logs of containers: nothing that the Engine runs for them, or does without an end, is the client's to say."""

from __future__ import annotations

import pytest

from dom0.socketproxy import logs
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.requests import LogConfig
from dom0.socketproxy.scope import Scope

GUEST = Scope("guest")


def test_a_log_has_the_labels_that_it_is_asked_for() -> None:
    asked = LogConfig(type="json-file", config={"labels": "a,b", "max-size": "5m"})
    sent = LogConfig(type="json-file", config={"labels": "guest/a,guest/b", "max-size": "5m"})
    assert logs.checked(asked, GUEST) == sent


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("tag", "{{.ImageName}}/{{.Name}}/{{.ID}}"), ("tag", "web-{{ .FullID }}"), ("tag", ""), ("tag", "x" * 256)],
        *[("max-size", "4k"), ("max-size", "10m"), ("max-size", "1G"), ("max-size", "512kB"), ("max-size", "4000")],
        *[("max-file", "1"), ("max-file", "100"), ("compress", "true"), ("mode", "non-blocking")],
        *[("env", "HOME,A_B"), ("env-regex", "^(A|B).*$"), ("labels-regex", "guest/[a-z]+")],
    ],
)
def test_what_people_say_of_logs_passes(option: str, value: str) -> None:
    asked = LogConfig(type="json-file", config={option: value})
    assert logs.checked(asked, GUEST) == asked


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("tag", "{{pad .ID 2000000000 2000000000}}"), ("tag", '{{define "a"}}{{end}}{{template "a" .}}')],
        *[("tag", "{{.Command}}"), ("tag", "{{.Name | json}}"), ("tag", "{{range .ContainerEnv}}x{{end}}")],
        *[("tag", "{{.Name.ID}}"), ("tag", "{{.}}"), ("tag", "{{{.ID}}}"), ("tag", "{{.ID}"), ("tag", "{{.ID}}\n")],
        *[("tag", "{{/* */}}"), ("tag", "{{.Name}}" * 29), ("tag", "x" * 257), ("tag", "{{- .ID -}}")],
        *[("max-size", "3k"), ("max-size", "3999"), ("max-size", "0"), ("max-size", "-1"), ("max-size", "1.5m")],
        *[("max-size", "0g"), ("max-size", ""), ("max-size", "10m\n"), ("max-size", "1" * 13)],
        *[("max-file", "0"), ("max-file", "101"), ("max-file", "1000000"), ("max-file", "-1"), ("max-file", "\u0661")],
        *[("compress", "x"), ("mode", "fast"), ("max-buffer-size", "100g"), ("path", "/etc")],
        *[("env-regex", "((a{1000}){1000}){3}"), ("labels-regex", "a" * 257), ("env", "A" * 4097), ("labels", "a\nb")],
    ],
)
def test_what_costs_the_engine_more_than_to_write_is_refused(option: str, value: str) -> None:
    with pytest.raises(Refused, match=rf"LogConfig\.Config.*{option}.*not through this socket"):
        logs.checked(LogConfig(type="json-file", config={option: value}), GUEST)


def test_a_refusal_says_what_may_be() -> None:
    with pytest.raises(Refused, match="1 to 100"):
        logs.checked(LogConfig(config={"max-file": "x"}), GUEST)
    with pytest.raises(Refused, match=r"text with fields: \{\{.ID\}\}"):
        logs.checked(LogConfig(config={"tag": "{{x}}"}), GUEST)
