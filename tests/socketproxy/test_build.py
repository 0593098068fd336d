"""Builds through a scoped socket: what a Dockerfile and its context may hold, and where it is built."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dom0.socketproxy import dockerfile
from dom0.socketproxy.refusal import Refused
from dom0.socketproxy.scope import Scope
from dom0.testing import api, scopes
from dom0.testing.hosts import Host
from dom0.testing.scopes import Scoped

IMAGE = "busybox:test"
GRANTS = "images: {use: [busybox], build: true}"
ID = "sha256:" + "a" * 64
GUEST = Scope("guest")
ENVIRONMENT = ("PATH=/usr/bin:/bin", f"LONG={'x' * 10_000}")
STAMP = 'LABEL "dom0.scope"="/guest" "dom0.orchestrator"=""'


def rewritten(text: str) -> str:
    """Without the labels of the scope, which `stamped` is about."""
    return stamped(text).replace(f"{STAMP}\n", "")


def stamped(text: str, of_image: Mapping[str, str] = {}) -> str:
    found = dockerfile.read(text.encode())
    dockerfile.check_expanded(found, ENVIRONMENT)
    bases = dockerfile.bases(found)
    ids = dict.fromkeys(bases.built_on | bases.copied_from, ID)
    stamps = {name: GUEST.stamped_container({}, of_image) for name in bases.built_on}
    return dockerfile.written(found, ids, stamps | {"": GUEST.stamped_container({}, {})}, "guest/").decode()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("# syntax=docker/dockerfile:1\n\nfrom a:1\r\n  run x\n", f"FROM {ID}\nRUN x\n"),
        ("FROM a\nRUN a && \\\n# no part of it\n\n   b \\ \n  && c\n", f"FROM {ID}\nRUN a &&    b   && c\n"),
        ("FROM a\nRUN a \\\n", f"FROM {ID}\nRUN a\n"),
        ("ARG A=1\nFROM a\nENV B=$A\n", f"ARG A=1\nFROM {ID}\nENV B=$A\n"),
        (
            "FROM a AS First\nFROM FIRST as second\nFROM scratch\nCOPY --from=first /a /b\nCOPY --from=1 /a /b\n",
            f"FROM {ID} AS first\nFROM first AS second\nFROM scratch\nCOPY --from=0 /a /b\nCOPY --from=1 /a /b\n",
        ),
        ("FROM scratch\nCOPY --chown=1:1 --from=b:2 a b\n", f"FROM scratch\nCOPY --chown=1:1 --from={ID} a b\n"),
        ('FROM a\nADD ["x", "/y"]\nADD *.tar /\n', f'FROM {ID}\nADD ["x", "/y"]\nADD *.tar /\n'),
        ("\ufeffFROM a\nHEALTHCHECK --interval=5s CMD x\n", f"FROM {ID}\nHEALTHCHECK --interval=5s CMD x\n"),
    ],
)
def test_a_dockerfile_is_written_anew(given: str, sent: str) -> None:
    assert rewritten(given) == sent
    assert rewritten(sent) == sent


def test_the_labels_of_each_step_are_the_scopes() -> None:
    text = 'FROM a AS b\nRUN x\nlabel dom0.scope /x\nRUN x\nFROM b\nLABEL dom0.scope="/team"\nRUN x\n'
    assert stamped(text, {"k": 'v "$1" \\', "guest/own": "1", "long": "two\nlines"}).splitlines() == [
        f"FROM {ID} AS b",
        r'LABEL "k"="" "long"="" "guest/k"="v \"\$1\" \\" "dom0.scope"="/guest" "dom0.orchestrator"=""',
        *("RUN x", "LABEL guest/dom0.scope /x", "RUN x"),
        *("FROM b", STAMP, 'LABEL guest/dom0.scope="/team"', "RUN x"),
    ]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("a=b", "guest/a=b"),
        ('a=b  "c d"="e f"\tg=', 'guest/a=b guest/"c d"="e f" guest/g='),
        ("a a=b c=d", "guest/a a=b c=d"),
        ("a\\ b=c d=e", "guest/a\\ b=c guest/d=e"),
        ("a='b c=d' e=\"f ' g=h\"", "guest/a='b c=d' guest/e=\"f ' g=h\""),
        (r'a="\" b=c" d=e', r'guest/a="\" b=c" guest/d=e'),
        (r"a='\' b=c", r"guest/a='\' guest/b=c"),
        ('$x=1 "$y"=2', 'guest/$x=1 guest/"$y"=2'),
    ],
)
def test_each_label_has_the_scopes_prefix(given: str, sent: str) -> None:
    assert rewritten(f"FROM a\nLABEL {given}\n") == f"FROM {ID}\nLABEL {sent}\n"
    assert dockerfile.changes(f"LABEL {given}", "guest/", ()) == f"LABEL {sent}"


@pytest.mark.parametrize("given", ['a="b', "a='b", 'a="b\\"', "a=b'c d", '"'])
def test_labels_whose_quotes_do_not_end_are_refused(given: str) -> None:
    with pytest.raises(Refused):
        rewritten(f"FROM a\nLABEL {given}\n")


@pytest.mark.parametrize("key", ["a=b", "a\nLABEL b"])
def test_an_image_with_a_label_that_no_dockerfile_can_say_is_not_built_on(key: str) -> None:
    with pytest.raises(Refused):
        stamped("FROM a\n", {key: "x"})


MANY = dockerfile.MOST_STAGES


def test_as_many_stages_as_anybody_writes_are_written() -> None:
    text = "FROM a\n" * MANY
    assert rewritten(text) == f"FROM {ID}\n" * MANY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\n" * (MANY + 1), f"more than {MANY} stages"),
        ("FROM scratch\n" * 20_000, f"more than {MANY} stages"),
        ("FROM a\n" + "RUN x\n" * dockerfile.MOST_INSTRUCTIONS, f"more than {dockerfile.MOST_INSTRUCTIONS} instr"),
        ("FROM a\nADD " + "[" * 100_000, "ADD"),
        ("FROM a\nCOPY --from=" + "1" * 5_000 + " x /\n", "no stage before this one"),
    ],
)
def test_what_would_be_much_work_is_refused_before_it_is_done(text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        rewritten(text)


@pytest.mark.parametrize(
    "text",
    [
        "ENV PATH=/opt/bin:$PATH A=${B:-c} B=${C:+d}\n" * 200,
        "ARG VERSION\nENV V=$VERSION W='$V' X=${V}-1\nLABEL version=$VERSION other=\"$X\"\nEXPOSE $PORT\n",
        "RUN echo ${A%.*} ${B//x/y} $\u00e9\n",
        "ENV A $LONG\nWORKDIR /$A\n" * 20,
    ],
)
def test_variables_that_stay_short_are_put_in(text: str) -> None:
    assert rewritten(f"FROM a\n{text}")


@pytest.mark.parametrize(
    "text",
    [
        "ENV A=xxxxxxxx\n" + "ENV A=$A$A\n" * 20,
        "ENV A=xxxxxxxx\n" + "ENV B=$A$A\nENV A=${B}${B}\n" * 10,
        "ARG A=xxxxxxxx\n" + "ARG A=$A$A\n" * 20,
        "ENV A=xxxxxxxx\n" + 'ENV "A"=$A$A\n' * 20,
        "ENV A=xxxxxxxx\n" + "ENV \\A=$A$A\n" * 20,
        "ENV A=xxxxxxxx\n" + "ENV A $A$A\n" * 20,
        "ENV A=xxxxxxxx\n" + "ENV A=\\$$A\\$$A\n" * 20,
        "ENV A=xxxxxxxx\n" + "ENV A=${X:-$A$A}\n" * 20,
        "ENV 1=xxxxxxxx\n" + "ENV 1=$1$1\n" * 20,
        "ENV @=xxxxxxxx\n" + "ENV @=$@$@\n" * 20,
        "LABEL " + " ".join(f"a{number}=$LONG" for number in range(10)),
        "LABEL a=" + "x" * 40_000 + "\nLABEL b=" + "x" * 40_000,
        "WORKDIR /" + "$LONG" * 200,
        "ENV A=B\nENV $A=x",
        "ENV A=${LONG//x/xxxxxxxx}",
        "ENV A=${LONG%x*}",
        "ENV A=${X:-${LONG/x/y}}",
        "ENV A=$\u00e9",
    ],
)
def test_variables_that_make_much_of_little_are_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"say less|of a variable there are|not another's value"):
        rewritten(f"FROM a\n{text}")
    with pytest.raises(Refused):
        dockerfile.changes(text, "guest/", ENVIRONMENT)


def test_labels_of_an_image_make_no_long_dockerfile_of_a_short_one() -> None:
    with pytest.raises(Refused, match="with the labels of its images"):
        stamped("FROM a\n" * MANY, {"k": "x" * 20_000})


@pytest.mark.parametrize(
    "text", ["ONBUILD RUN x", "CMD x\nONBUILD RUN x", "FROM a", "RUN x", "CMD x \\\nONBUILD\nRUN x"]
)
def test_a_commit_changes_no_more_than_a_configuration(text: str) -> None:
    with pytest.raises(Refused):
        dockerfile.changes(text, "guest/", ())


@pytest.mark.parametrize(
    "flawed",
    [
        "",
        "RUN x\n",
        "FROM\n",
        "FROM a b\n",
        "FROM $A\n",
        "FROM a:${B}\n",
        'FROM "a"\n',
        "FROM --platform=linux/arm64 a\n",
        "FROM a AS scratch\n",
        "FROM a AS b\nFROM a AS B\n",
        "# escape=`\nFROM a\n",
        "#  ESCAPE = `\nFROM a\n",
        "FROM a\nONBUILD RUN x\n",
        "FROM a\nRUN --mount=type=bind,target=/x x\n",
        "FROM a\nRUN --network=host x\n",
        "FROM a\nRUN <<EOF\nx\nEOF\n",
        "FROM a\nCOPY <<a <<b /\n",
        "FROM a\nADD http://127.0.0.1/x /\n",
        "FROM a\nADD HTTP://127.0.0.1/x /\n",
        'FROM a\nADD "ht"tp://127.0.0.1/x /\n',
        "FROM a\nADD h\\ttp://127.0.0.1/x /\n",
        "FROM a\nADD ht\\\ntp://127.0.0.1/x /\n",
        'FROM a\nADD ["http:\\u002f/127.0.0.1/x", "/"]\n',
        "FROM a\nENV U=http://127.0.0.1\nADD $U /\n",
        "FROM a\nADD git@github.com:a/b.git /\n",
        "FROM a\nADD --checksum=sha256:0 x /\n",
        "FROM a\nCOPY --from=$A x /\n",
        'FROM a\nCOPY --from="b" x /\n',
        "FROM a\nCOPY --from=b --from=c x /\n",
        "FROM a\nCOPY --from=0 x /\n",
        "FROM a\nCOPY --from=9 x /\n",
        "FROM a\nCOPY --link x /\n",
        "FROM a\nRUN x \\\\\n",
        "FROM a\nRUN x\x0bFROM b\n",
        "FROM a\nRUN x\u2028FROM b\n",
        "FROM a\rFROM b\n",
        "FROM a\nNEW x\n",
        'FROM a\nCMD["x"]\n',
    ],
)
def test_what_is_unclear_in_a_dockerfile_is_refused(flawed: str) -> None:
    with pytest.raises(Refused):
        rewritten(flawed)


@pytest.fixture
def guest(engine_host: Host, tmp_path: Path) -> Iterator[Scoped]:
    with scopes.served(engine_host, tmp_path, GRANTS) as path:
        yield Scoped(engine_host, path)


def context(tmp_path: Path, text: str, **files: str) -> str:
    directory = tmp_path / "context"
    directory.mkdir(exist_ok=True)
    for name, content in {"Dockerfile": text, **files}.items():
        (directory / name).write_text(content)
    return str(directory)


@pytest.mark.engine
def test_docker_build_builds(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    text = """
    FROM busybox:test AS first
    RUN echo built >/built
    FROM busybox:test
    COPY --from=first /built /
    COPY a /dir/
    ADD a /added
    CMD cat /built /dir/a /added
    """
    directory = context(tmp_path, text, a="copied\n")
    said = guest.docker("build", "--tag", "app:dev", directory)
    assert "Step 1/9 : FROM busybox:test AS first" in said
    assert "Successfully tagged app:dev" in said
    assert guest.docker("run", "--rm", "app:dev") == "built\ncopied\ncopied\n"
    assert set(api.images(engine_host.socket)) >= {IMAGE, "dom0.invalid/guest/app:dev"}
    assert "Using cache" in guest.docker("build", "--tag", "app:dev", directory)
    context(tmp_path, "FROM app:dev\nRUN rm /built\nRUN false")
    assert "returned a non-zero code" in guest.docker("build", "--tag", "app:dev", directory, check=False)
    assert guest.docker("run", "--rm", "app:dev") == "built\ncopied\ncopied\n"
    assert engine_host.docker("ps", "--all", "--quiet").stdout == ""


@pytest.mark.engine
def test_docker_compose_builds(guest: Scoped, tmp_path: Path) -> None:
    context(tmp_path, "FROM busybox:test\nARG WORD\nRUN echo $WORD >/word\nCMD cat /word")
    file = tmp_path / "compose.yaml"
    file.write_text("name: shop\nservices: {web: {build: {context: context, args: {WORD: hello}}}}")
    assert "hello" in guest.docker("compose", "--file", str(file), "up", "--build")
    guest.docker("compose", "--file", str(file), "down", "--rmi", "local")
    assert guest.docker("images", "--format", "{{.Repository}}") == "busybox\n"


@pytest.mark.engine
def test_it_is_built_in_the_scopes_network(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    directory = context(tmp_path, "FROM busybox:test\nRUN ip -4 addr show eth0 && ls /sys/class/net >/seen")
    said = guest.docker("build", "--tag", "app:dev", directory)
    networks = json.loads(engine_host.docker("network", "inspect", "guest.bridge").stdout)
    subnet = networks[0]["IPAM"]["Config"][0]["Subnet"].rpartition(".")[0]
    assert f"inet {subnet}." in said
    for mode in ("host", "container:web"):
        refused = guest.docker("build", "--network", mode, "--tag", "app:dev", directory, check=False)
        assert "not through this socket" in refused
    guest.docker("build", "--no-cache", "--network", "none", "--tag", "app:2", context(tmp_path, "FROM busybox:test"))


@pytest.mark.engine
def test_what_others_have_built_is_not_taken_from_the_cache(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    image_id = api.images(engine_host.socket)[IMAGE]
    step = "RUN cat /proc/sys/kernel/random/uuid >/secret\nRUN cat /secret\n"
    (tmp_path / "foreign").mkdir()
    foreign = context(tmp_path / "foreign", f"FROM {image_id}\n{step}")
    api.request(engine_host.socket, "POST", "/build", _tar(foreign), query={"t": "private:1", "networkmode": "none"})
    secret = engine_host.docker("run", "--rm", "private:1", "cat", "/secret").stdout.strip()
    for _ in range(2):  # with nothing of its own, and with something
        said = guest.docker("build", "--network", "none", "--tag", "app:1", context(tmp_path, f"FROM {IMAGE}\n{step}"))
        assert secret not in said
        assert secret != guest.docker("run", "--rm", "app:1", "cat", "/secret").strip()


def _tar(directory: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(directory, ".")
    return buffer.getvalue()


@pytest.mark.engine
def test_an_image_that_others_have_is_not_built_on(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    engine_host.docker("tag", IMAGE, "private:1")
    engine_host.docker("run", "--name", "foreign", IMAGE, "true")
    engine_host.docker("commit", "--change", "ONBUILD RUN echo ran", "foreign", "busybox:onbuild")
    for text in ("FROM private:1", f"FROM {IMAGE}\nCOPY --from=private:1 /bin /b", "FROM dom0.invalid/other/x"):
        assert "No such image" in guest.docker("build", "--tag", "a", context(tmp_path, text), check=False)
    said = guest.docker("build", "--tag", "a", context(tmp_path, "FROM busybox:onbuild"), check=False)
    assert "has steps of its own (ONBUILD)" in said
    assert "build: 'a': not granted" not in said


@pytest.mark.engine
def test_labels_of_an_image_give_nothing(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    engine_host.docker("create", "--name", "labelled", "--label", "dom0.orchestrator={}", IMAGE, "true")
    engine_host.docker("commit", "labelled", "busybox:labelled")
    text = "FROM busybox:labelled\nRUN true\nLABEL dom0.scope=/other dom0.other=1\nRUN true"
    since = engine_host.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    guest.docker("build", "--label", "dom0.scope=", "--tag", "app", context(tmp_path, text))
    until = engine_host.docker("info", "--format", "{{.SystemTime}}").stdout.strip()
    asked = ("--filter", "event=start", "--format", "{{json .Actor.Attributes}}")
    steps = engine_host.docker("events", "--since", since, "--until", until, *asked).stdout.splitlines()
    found = [(step["dom0.scope"], step["dom0.orchestrator"]) for step in map(json.loads, steps)]
    assert found == [("/guest", "")] * 2
    guest.docker("run", "--detach", "--init", "--name", "web", "app", "sleep", "1000")
    labels = json.loads(engine_host.docker("inspect", "guest.web").stdout)[0]["Config"]["Labels"]
    assert labels["dom0.scope"] == "/guest"
    assert guest.docker("ps", "--format", "{{.Names}}") == "web\n"
    directory = tmp_path / "other"
    directory.mkdir()
    with scopes.served(engine_host, directory, GRANTS, scope="other") as path:
        assert Scoped(engine_host, path).docker("ps", "--all", "--quiet") == ""


@pytest.mark.engine
def test_nobody_builds_who_was_not_granted_it(engine_host: Host, tmp_path: Path) -> None:
    with scopes.served(engine_host, tmp_path, "images: {use: [busybox]}") as path:
        said = Scoped(engine_host, path).docker("build", "-t", "a", context(tmp_path, f"FROM {IMAGE}"), check=False)
    assert "build: 'a': not granted; it would take the grant images: {build: true}" in said


@pytest.mark.engine
def test_builds_stack_as_scopes_do(guest: Scoped, engine_host: Host, tmp_path: Path) -> None:
    directory = tmp_path / "team"
    directory.mkdir()
    with scopes.served(engine_host, directory, GRANTS, scope="team", engine=guest.path) as path:
        team = Scoped(engine_host, path)
        for _ in range(2):
            said = team.docker("build", "--tag", "app", context(tmp_path, f"FROM {IMAGE}\nRUN echo 1 >/1\nCMD cat /1"))
            assert "Step 1/5 : FROM busybox:test" in said
        assert "Using cache" in said
        assert team.docker("run", "--rm", "app") == "1\n"
    assert "dom0.invalid/guest/dom0.invalid/team/app:latest" in api.images(engine_host.socket)
