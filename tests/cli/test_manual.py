"""The manual pages that the Debian package brings: made from the commands, and readable by man."""

from __future__ import annotations

import subprocess

import click
import pytest

from dom0.cli.commands import cli
from dom0.testing import manual, reference

PAGES = manual.pages()


def rendered(page: str) -> str:
    """As `man` shows it; a warning of the formatter is an error."""
    argv = ["groff", "-Kutf8", "-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=200n"]
    done = subprocess.run(argv, input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.replace("\u2212", "-")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_rendered_without_a_warning(name: str) -> None:
    shown = rendered(PAGES[name])
    for head in ("NAME", "SYNOPSIS", "DESCRIPTION"):
        assert f"\n{head}\n" in shown


def test_every_command_and_option_is_in_them() -> None:
    ctx = click.Context(cli)
    main = rendered(PAGES["dom0.1"])
    for name in cli.list_commands(ctx):
        command = cli.get_command(ctx, name)
        assert command is not None
        assert f"dom0 {name}" in main
        inner = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        page = rendered(PAGES[f"dom0-{name}.1"]) if isinstance(command, click.Group) else main
        for child, it in inner:
            if not it.hidden:
                assert f"   dom0 {name} {child}".rstrip() in page
                for option in reference.options(it, exposed=True):
                    assert all(word in page for word in (*option.opts, *option.secondary_opts)), option


def test_what_begins_with_a_dot_or_has_a_backslash_stands_for_itself() -> None:
    command = click.Command("odd", help=".SH no heading\n\n'br\n\nC:\\new --all")
    page = "\n".join(['.TH X 1 "" "" ""', ".SH NAME", "x", *manual.prose(command), ""])
    shown = rendered(page)
    for text in (".SH no heading", "'br", "C:\\new --all"):
        assert text in shown
