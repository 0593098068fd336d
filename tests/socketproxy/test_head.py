from __future__ import annotations

import h11
import pytest

from dom0.socketproxy import head
from dom0.socketproxy.refusal import Refused
from dom0.testing.escape import still

NEWEST = (1, 45)


def read(target: str, method: str = "GET", **headers: str) -> head.Head:
    told = [("Host", "docker"), *((name.replace("_", "-"), value) for name, value in headers.items())]
    return head.read(h11.Request(method=method, target=target, headers=told), NEWEST)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/_ping", ("_ping",), {}),
        ("/v1.45/containers/json?all=1", ("containers", "json"), {"all": "1"}),
        ("/v1.24/images/a/b:1.2/json", ("images", "a", "b:1.2", "json"), {}),
        ("/images/busybox%3Atest/json", ("images", "busybox:test", "json"), {}),
        ("/containers/create?name=a%20b&x=", ("containers", "create"), {"name": "a b", "x": ""}),
    ],
)
def test_a_head_is_method_path_and_query(target: str, path: tuple[str, ...], query: dict[str, str]) -> None:
    found = read(target)
    assert (found.path, found.query) == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "http://docker/_ping",
        "//_ping",
        "/containers//json",
        "/containers/./json",
        "/containers/../json",
        "/containers/%2e%2e/json",
        "/containers/%2E/json",
        "/containers/a%2Fb/json",
        "/containers/a%252Fb/json",
        "/containers/%6Ason",
        "/containers/a%00/json",
        "/containers/a%0a/json",
        "/containers/a%/json",
        "/containers/a%zz/json",
        "/containers/%ff/json",
        "/containers/json/",
        "/v01.45/_ping/",
        "/v1.99/_ping",
        "/v1.12/_ping",
        "/_ping?a=1&a=2",
        "/_ping?a=%0a",
        "/_ping?a=%ff",
        "/_ping?" + "&".join(f"a{number}=1" for number in range(100)),
        "/" + "a" * 9000,
    ],
)
def test_a_path_has_one_spelling(target: str) -> None:
    with pytest.raises(Refused):
        read(target)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "Multipart/Form-Data; boundary=x"])
def test_a_form_is_refused(kind: str) -> None:
    with pytest.raises(Refused, match="form"):
        read("/volumes/prune", "POST", Content_Type=kind)


def test_two_lengths_of_a_body_are_refused() -> None:
    with pytest.raises(Refused, match="two lengths"):
        read("/containers/create", "POST", Content_Length="2", Transfer_Encoding="chunked")


@pytest.mark.parametrize("method", ["PATCH", "CONNECT", "TRACE", "OPTIONS", "get"])
def test_other_methods_are_refused(method: str) -> None:
    with pytest.raises(Refused) as refused:
        read("/_ping", method)
    assert refused.value.status == 405


def test_what_aiodocker_says_of_events_and_of_a_context_that_is_as_it_is_is_taken() -> None:
    (asked,) = still.outcome(b"GET /events?stream=1&since=1 HTTP/1.1\r\nHost: docker\r\n\r\n").sent
    assert asked.query == {"since": "1", "filters": "{}"}
    assert still.outcome(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nContent-Encoding: identity\r\n\r\n").answer
