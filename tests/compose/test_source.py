"""The measuring of one file: whatever its bytes are, it is read or refused, quickly and with a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dom0.compose.source import MAX_BYTES, MAX_DEPTH, MAX_NODES, read_source
from dom0.errors import ProjectError

PIECES = ("services:", "\n", "  ", "web:", " ", "image: x", "- ", "&a ", "*a", "<<: ", "[", "]", "{", "}", ",", ": ",
          "!reset ", "!override ", "!!int ", "!x ", "'", '"', "|", ">", "#", "---\n", "...\n", "%YAML 1.2\n", "\\0",
          "\t", "? ", "é", "0x1f", "1e999", ".nan", "~", "\ufeff", "x-dom0:", "$", "9" * 30)  # fmt: skip


def read(content: bytes) -> None:
    """Nothing but a ProjectError, and that one readable."""
    message = "compose.yaml"
    try:
        read_source("compose.yaml", content)
    except ProjectError as refusal:
        message = refusal.message
    assert message.startswith("compose.yaml")
    assert message.isprintable()


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    read(content)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    read(text.encode("utf-8", "surrogatepass"))


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_pieces_of_yaml(text: str) -> None:
    read(text.encode())


def test_lines_of_keys_and_entries() -> None:
    source = read_source("c", b"# x\nservices:\n  web:\n    ports:\n      - 80\n      - 81\n    image: >-\n      y\n")
    assert source.lines["services"] == 2
    assert source.lines["services.web.ports"] == 4
    assert source.lines["services.web.ports.1"] == 6
    assert source.lines["services.web.image"] == 7


def test_lines_hold_through_comments_documents_and_byte_order_marks() -> None:
    source = read_source("c", "\ufeff# x\na: 1\n---\n\nb:\n  c: 2\n".encode())
    assert (source.lines["a"], source.lines["b.c"]) == (2, 6)


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ("{a: ", "}")])
def test_depth_is_bounded(opened: str, closed: str) -> None:
    read_source("c", f"a: {opened * (MAX_DEPTH - 2)}x{closed * (MAX_DEPTH - 2)}".encode())
    with pytest.raises(ProjectError, match="nested more than"):
        read_source("c", (opened * 100_000).encode())


def test_depth_is_bounded_through_aliases() -> None:
    levels = "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 80))
    with pytest.raises(ProjectError, match="nested more than"):
        read_source("c", f"a0: &a0 [x]\n{levels}".encode())


def test_the_number_of_values_is_bounded_where_aliases_multiply_it() -> None:
    many = ", ".join("x" for _ in range(1000))
    twice = f"a: &a [{many}]\nb: [{', '.join(['*a'] * 90)}]\n"
    read_source("c", twice.encode())
    with pytest.raises(ProjectError, match=f"more than {MAX_NODES}"):
        read_source("c", (twice + f"c: [{', '.join(['*a'] * 20)}]\n").encode())


def test_anchors_of_one_document_mean_nothing_in_the_next() -> None:
    with pytest.raises(ProjectError, match="not defined above"):
        read_source("c", b"a: &x b\n---\nc: *x\n")


def test_an_anchor_is_set_once() -> None:
    with pytest.raises(ProjectError, match="the anchor &x is set twice"):
        read_source("c", b"a: &x 1\nb: &x 2\nc: *x\n")


def test_size_is_bounded() -> None:
    read_source("c", b"a: b\n#" + b"x" * (MAX_BYTES - 6))
    with pytest.raises(ProjectError, match="a Compose file may have at most"):
        read_source("c", b"a: b\n#" + b"x" * MAX_BYTES)


def test_an_entry_that_is_an_alias_has_a_line() -> None:
    source = read_source("c", b"a: &x 1\nb:\n  - 0\n  - *x\n  - 2\n")
    assert [source.lines[f"b.{number}"] for number in range(3)] == [3, 4, 5]


def test_the_names_of_keys_are_bounded() -> None:
    entries = ",".join("1" * 9000)
    with pytest.raises(ProjectError, match="the keys are too long"):
        read_source("c", f"? {'k' * 100_000}\n: [{entries}]\n".encode())


def test_what_aliases_repeat_has_lines_as_far_as_the_size_of_the_file_allows() -> None:
    text = f"a: &a [{','.join('1' * 300)}]\nb: [{','.join(['*a'] * 300)}]\nc: d\n"
    lines = read_source("c", text.encode()).lines
    assert (lines["b.0.299"], lines["b.299"], lines["c"]) == (1, 2, 3)
    assert len(lines) < 5 * len(text)
