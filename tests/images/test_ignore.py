"""`.dockerignore` says the same to us as to docker."""

from __future__ import annotations

import pytest

from dom0.errors import ProjectError
from dom0.images.ignore import Ignore
from dom0.testing.hosts import Host

FILES = (
    "a.log",
    "b.txt",
    "foo",
    "sub/a.log",
    "sub/deep/a.log",
    "sub/deep/keep.log",
    "sub/foo/x",
    "web/node_modules/m.js",
    "web/index.js",
    "#hash",
    "[x]",
    "star*name",
    ".hidden/file",
)
IGNORED = {
    "one directory level only": "*.log",
    "every level": "**/*.log",
    "a directory with all in it": "sub",
    "with a slash at both ends": "/sub/",
    "an exception below an ignored directory": "sub\n!sub/deep/keep.log",
    "the last one wins": "!b.txt\nb.txt\n!b.txt",
    "stars around": "**/node_modules/**",
    "stars in the middle": "sub/**/a.log",
    "a suffix": "**.js",
    "one character": "?.log",
    "a class": "[ab].*",
    "a class with an exception": "[^a]*",
    "escaped": "\\[x\\]\nstar\\*name",
    "a comment and blank lines": "# foo\n\n  foo  \n",
    "dots to clean up": "./sub/../foo",
    "everything but one": "*\n!web/index.js",
    "everything": "**",
}


def test_a_pattern_without_an_end_is_refused_with_its_place() -> None:
    with pytest.raises(ProjectError, match=r"box/\.dockerignore: '\[a' is no pattern"):
        Ignore("[a", where="box/.dockerignore")


def test_an_exception_is_known_to_be_there() -> None:
    assert Ignore("a\n!b", where="").has_exceptions
    assert not Ignore("a\nb", where="").has_exceptions


def test_docker_leaves_out_the_same_files(engine_host: Host) -> None:
    context = engine_host.root / "context"
    for name in FILES:
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for case, text in IGNORED.items():
        (context / ".dockerignore").write_text(f"{text}\nDockerfile\n.dockerignore\n")
        output = engine_host.root / "output" / case
        engine_host.docker("build", f"--output={output}", str(context))
        taken = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
        ignore = Ignore(text, where="")
        assert {name for name in FILES if not ignore(name)} == taken, case
