"""Lines of logs from pieces of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from dom0.engine.log_lines import LONGEST_LINE, Line, read_lines

TIME = b"2026-01-02T03:04:05.000000006Z"


@pytest.mark.parametrize("size", [65_536, 1 << 30])
async def test_parts_of_a_long_line_have_its_time(size: int) -> None:
    text = b"word " * (LONGEST_LINE // 2)
    printed = TIME + b" " + text + b"\n" + TIME + b" next\n"

    async def pieces() -> AsyncGenerator[bytes]:
        for at in range(0, len(printed), size):
            yield printed[at : at + size]

    lines: list[Line] = [line for some in [batch async for batch in read_lines(pieces())] for line in some]
    assert {line.moment for line in lines} == {TIME}
    assert b"".join(line.text for line in lines) == text + b"next"
