"""Names of images are read as docker reads them, and what is none is refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.errors import UsageError
from dom0.registry.reference import Reference, parse

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("redis", "docker.io", "library/redis", "latest", None),
        ("redis:7", "docker.io", "library/redis", "7", None),
        ("team/app", "docker.io", "team/app", "latest", None),
        ("docker.io/redis", "docker.io", "library/redis", "latest", None),
        ("index.docker.io/team/app", "docker.io", "team/app", "latest", None),
        ("registry.example/app:1.2-rc_3", "registry.example", "app", "1.2-rc_3", None),
        ("registry:5000/a/b/c", "registry:5000", "a/b/c", "latest", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("localhosts/app", "docker.io", "localhosts/app", "latest", None),
        ("Registry/app", "Registry", "app", "latest", None),
        ("[::1]:5000/app:x", "[::1]:5000", "app", "x", None),
        ("127.0.0.1:80/a__b/c--d", "127.0.0.1:80", "a__b/c--d", "latest", None),
        (f"redis@{DIGEST}", "docker.io", "library/redis", None, DIGEST),
        (f"redis:7@{DIGEST}", "docker.io", "library/redis", "7", DIGEST),
    ],
)
def test_a_name_is_read_as_docker_reads_it(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    assert parse(text) == Reference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no name of a repository"),
        (":7", "no name of a repository"),
        ("Redis", "small letters only"),
        ("registry.example/Team/app", "small letters only"),
        ("a//b", "no name of a repository"),
        ("a/b/", "no name of a repository"),
        ("a___b", "no name of a repository"),
        ("-registry.example/a", "no name of a registry"),
        ("registry.example:port/a", "no name of a registry"),
        ("redis:", "is no tag"),
        ("redis:-x", "is no tag"),
        ("redis:" + "x" * 129, "is no tag"),
        ("redis@", "is no digest"),
        (f"redis@sha256:{HEX.upper()}", "is no digest"),
        (f"redis@{DIGEST}@{DIGEST}", "is no digest"),
        (f"redis@sha512:{HEX}{HEX}", "digests of sha512 are not supported"),
        (HEX, "the ID of an image"),
        ("a" * 256, "longer than 255"),
        ("redis\n", "no name of a repository"),
        ("redis:7\n", "is no tag"),
        ("http://registry.example/a", "no name of a registry"),
        ("user:password@registry.example/a", "is no digest"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        parse(text)
    assert refused.value.hint
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/redis:7", "redis:7"),
        ("docker.io/team/app", "team/app:latest"),
        ("library/a/b", "library/a/b:latest"),
        (f"redis:7@{DIGEST}", f"redis:7@{DIGEST}"),
        ("registry.example/library/redis", "registry.example/library/redis:latest"),
    ],
)
def test_people_see_the_short_name(text: str, familiar: str) -> None:
    assert parse(text).familiar() == familiar


@given(st.text(st.sampled_from("aZ09-_.:/@[]é\n "), max_size=20))
def test_a_name_means_the_same_however_it_is_written(text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    assert parse(str(found)) == found
    assert parse(found.familiar()) == found


def test_a_registry_is_asked_for_the_digest_if_there_is_one() -> None:
    assert parse(f"redis:7@{DIGEST}").wanted == DIGEST
    assert parse("redis").wanted == "latest"
