"""What a refusal says, whatever a client has written into it."""

from __future__ import annotations

import pytest

from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, FORBIDDEN, LONGEST, Refused, check_size, size_as_json
from dom0.testing.escape import still


def test_a_client_gets_back_no_more_of_its_own_than_says_what_is_meant() -> None:
    assert Refused(BAD_REQUEST, "x" * LONGEST).message == "x" * LONGEST
    assert Refused(BAD_REQUEST, "x" * 100_000).message == "x" * (LONGEST - 1) + "…"


def test_the_grant_that_it_would_take_is_said_behind_it() -> None:
    refused = Refused(FORBIDDEN, "x" * 100_000, grant=Grants(ports=("80/tcp",)))
    assert refused.message.endswith('…; it would take the grant ports: ["80/tcp"]')


@pytest.mark.parametrize(
    ("text", "written"),  # by Go 1.21: json.Marshal
    [
        ("a", '"a"'),
        ('\\"', r'"\\\""'),
        ("\x01\b\f", r'"\u0001\u0008\u000c"'),
        ("<&>", r'"\u003c\u0026\u003e"'),
        ("\u2028", r'"\u2028"'),
        ("\u00e9\n", '"\u00e9\\n"'),
    ],
)
def test_a_size_is_at_least_what_the_engine_writes(text: str, written: str) -> None:
    assert len(written.encode()) <= size_as_json(text) <= 2 * len(written.encode())


def test_what_is_too_long_is_said_with_what_to_do() -> None:
    check_size("Labels", "x" * 8, 10, "give fewer")
    with pytest.raises(Refused, match=r"^Labels: 11 bytes of JSON, of 10 that may be: give fewer$"):
        check_size("Labels", "x" * 9, 10, "give fewer")


@pytest.mark.parametrize(
    ("target", "body", "said"),
    [
        ("/grpc", "", "POST /grpc: .* docker build does without it by DOCKER_BUILDKIT=0"),
        ("/session", "", "POST /session: .* docker build does without it by DOCKER_BUILDKIT=0"),
        ("/images/create?fromImage=moby/buildkit&tag=buildx-stable-1", "", "docker build does without it by .*=0$"),
        (
            "/containers/create",
            '{"Image":"busybox:test","HostConfig":{"DeviceRequests":[{"Count":-1,"Capabilities":[["gpu"]]}]}}',
            "HostConfig.DeviceRequests: .*'Capabilities'.*: not through this socket",
        ),
    ],
)
def test_what_is_refused_is_said_in_words_of_the_clients(target: str, body: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        still.outcome(f"POST {target} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


def test_a_list_of_services_is_no_error_of_its_parameters() -> None:
    with pytest.raises(Refused, match="This node is not a swarm manager"):
        still.outcome(b"GET /services?status=true HTTP/1.1\r\nHost: d\r\n\r\n")


def test_no_cache_of_a_scopes_is_there_to_prune() -> None:
    answer = still.outcome(b"POST /build/prune?filters=%7B%7D HTTP/1.1\r\nHost: d\r\n\r\n").answer
    assert answer
    assert answer.value == {"CachesDeleted": None, "SpaceReclaimed": 0}
