"""Plots boots as SVG. Pure.

`waterfall` has a row for each stage, of one boot or of several; `strips` has a row for each boot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from xml.sax.saxutils import escape

from dom0.host.boot import SERVICE, Boot, Stage
from dom0.printable import printable

_WIDTH, _LEFT, _RIGHT = 960, 190, 110  # pixels: of the picture, and of the text beside the bars
_TOP, _BOTTOM = 92, 50
_ROW, _BAR = 30, 18
_FONT = "font-family=\"'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif\""
_INK, _FAINT, _GRID, _PAPER = "#1f2933", "#616e7c", "#e4e7eb", "#ffffff"
_COLOURS = {
    "firmware": "#9aa5b1",
    "kernel": "#3e7cb1",
    "init": "#6a5fb8",
    "drivers": "#a39bd6",
    "network": "#8fc1e3",
    "disk": "#2a9d8f",
    "engine": "#e07a3f",
    "image": "#e9c46a",
    "dom0": "#c8435f",
    "healthy": "#d8a7ca",
}
_SERVICE_COLOUR, _OTHER_COLOUR = "#6aa84f", "#7b8794"
_BOOTS = ("#9fb3c8", "#c8435f", "#2a9d8f", "#e07a3f")  # where rows are stages and colours are boots
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)  # seconds between two lines of the grid
_MOST_LINES = 10


class _Scale:
    """Seconds since the beginning of a boot to pixels."""

    def __init__(self, longest: float) -> None:
        self.longest = max(longest, 0.1)
        self.step = next((step for step in _STEPS if self.longest / step <= _MOST_LINES), self.longest / _MOST_LINES)

    def x(self, seconds: float) -> float:
        return _LEFT + seconds / self.longest * (_WIDTH - _LEFT - _RIGHT)

    def grid(self, top: float, bottom: float) -> Iterator[str]:
        for number in range(int(self.longest / self.step) + 1):
            x, seconds = self.x(number * self.step), f"{number * self.step:g}"
            yield f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{_GRID}"/>'
            yield _text(x, bottom + 18, seconds, anchor="middle", colour=_FAINT, size=11)


def waterfall(boots: Sequence[Boot]) -> str:
    """One or more boots, a row for each stage. With one boot its slowest stage is bold."""
    names = _names(boots)
    scale = _Scale(max(max(boot.ended, boot.ready or 0.0) - boot.began for boot in boots))
    bottom = _TOP + _ROW * len(names)
    parts = [*scale.grid(_TOP - 6, bottom), _axis(boots, bottom)]
    for row, name in enumerate(names):
        parts += _row_of_stage(name, boots, scale, _TOP + _ROW * row)
    if len(boots) == 1:
        boot, took = boots[0], "not ready"
        if boot.ready is not None:
            took = f"ready after {boot.ready - boot.began:.2f} s"
            x = scale.x(boot.ready - boot.began)
            line = f'x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom}"'
            line = f'<line {line} stroke="{_INK}" stroke-dasharray="4 3"/>'
            parts = [line, _text(x, _TOP - 12, "ready", anchor="middle", size=11), *parts]
        slowest = next((stage for stage in boot.stages if stage.name == boot.slowest), None)
        subtitle = f"slowest: {_label(slowest.name)}, {slowest.seconds:.2f} s" if slowest else ""
        return _picture(f"Boot {boot.number}: {took}", subtitle, bottom, parts)
    legend = _legend([(f"boot {boot.number}", _boot_colour(index)) for index, boot in enumerate(boots)])
    numbers = " and ".join(str(boot.number) for boot in boots)
    return _picture(f"Boots {numbers} compared", "", bottom, [*parts, *legend])


def strips(boots: Sequence[Boot]) -> str:
    """A row for each boot: the stages that follow one another, and when all was well."""
    scale = _Scale(max(_length(boot) for boot in boots))
    bottom = _TOP + _ROW * len(boots)
    parts = [*scale.grid(_TOP - 6, bottom), _axis(boots, bottom)]
    for row, boot in enumerate(boots):
        y, start, end = _TOP + _ROW * row, scale.x(0), scale.x(_length(boot))
        parts.append(_text(_LEFT - 14, y + 19, f"boot {boot.number}", anchor="end", bold=boot.running))
        shape = f'x="{start:.1f}" y="{y + 6:.1f}" width="{end - start:.1f}" height="{_BAR}" rx="3"'
        parts.append(f'<rect {shape} fill="{_GRID}"/>')
        parts += [_bar(it, boot, scale, y + 6, _BAR, _colour(it.name)) for it in boot.stages if not it.beside]
        total = f"{_length(boot):.2f} s" + ("" if boot.ready is not None else ", not ready")
        parts.append(_text(end + 7, y + 19, total, bold=boot.running))
    names = [name for name in _names(boots) if any(s.name == name and not s.beside for b in boots for s in b.stages)]
    legend = _legend([(name, _colour(name)) for name in names] + [("until ready", _GRID)])
    return _picture(f"The last {len(boots)} boots", "", bottom, [*parts, *legend])


def _row_of_stage(name: str, boots: Sequence[Boot], scale: _Scale, y: float) -> Iterator[str]:
    slowest = len(boots) == 1 and boots[0].slowest == name
    yield _text(_LEFT - 14, y + 19, _label(name), anchor="end", bold=slowest)
    height = _BAR / len(boots)
    for index, boot in enumerate(boots):
        colour = _colour(name) if len(boots) == 1 else _boot_colour(index)
        of_stage = [stage for stage in boot.stages if stage.name == name]
        for stage in of_stage:
            yield _bar(stage, boot, scale, y + 6 + index * height, height, colour)
        if of_stage:
            took = sum(stage.seconds for stage in of_stage)
            end = max(scale.x(stage.ended - boot.began) for stage in of_stage)
            note = " slowest" if slowest else ""
            size = 12 if len(boots) == 1 else 9.5
            yield _text(
                end + 7, y + 6 + (index + 0.5) * height + size * 0.36, f"{took:.2f} s{note}", size=size, bold=slowest
            )


def _bar(stage: Stage, boot: Boot, scale: _Scale, y: float, height: float, colour: str) -> str:
    start, end = scale.x(stage.began - boot.began), scale.x(stage.ended - boot.began)
    hint = f"{stage.name}: {stage.seconds:.2f} s" + (f", {stage.text}" if stage.text else "")
    shape = f'x="{start:.1f}" y="{y:.1f}" width="{max(end - start, 1.5):.1f}" height="{height:.1f}" rx="2"'
    return f'<rect {shape} fill="{colour}"><title>{_safe(hint)}</title></rect>'


def _axis(boots: Iterable[Boot], bottom: float) -> str:
    known = all(boot.firmware is not None for boot in boots)
    text = "seconds since power-on" if known else "seconds since the kernel's start; time of the firmware unknown"
    return _text(_WIDTH - _RIGHT, bottom + 36, text, anchor="end", colour=_FAINT, size=11)


def _legend(entries: Sequence[tuple[str, str]]) -> Iterator[str]:
    x = float(_LEFT)
    for name, colour in entries:
        yield f'<rect x="{x:.1f}" y="52" width="12" height="12" rx="2" fill="{colour}"/>'
        yield _text(x + 17, 62, _label(name), size=11, colour=_FAINT)
        x += 34 + 6.6 * len(_label(name))


def _picture(title: str, subtitle: str, bottom: float, parts: Iterable[str]) -> str:
    size = f'width="{_WIDTH}" height="{bottom + _BOTTOM:.0f}" viewBox="0 0 {_WIDTH} {bottom + _BOTTOM:.0f}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {_FONT}>',
        f'<rect width="100%" height="100%" fill="{_PAPER}"/>',
        _text(_LEFT, 34, title, size=18, bold=True),
        _text(_LEFT, 56, subtitle, size=12, colour=_FAINT),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: float = 12, bold: bool = False, colour: str = _INK
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    position = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}"{weight}'
    halo = f'stroke="{_PAPER}" stroke-width="4" stroke-linejoin="round" paint-order="stroke"'
    return f'<text {position} fill="{colour}" {halo}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    return escape(printable(text))


def _label(name: str) -> str:
    shown = name.removeprefix(SERVICE)
    return shown if len(shown) <= 22 else f"{shown[:21]}…"


def _colour(name: str) -> str:
    return _COLOURS.get(name, _SERVICE_COLOUR if name.startswith(SERVICE) else _OTHER_COLOUR)


def _boot_colour(index: int) -> str:
    return _BOOTS[index % len(_BOOTS)]


def _names(boots: Iterable[Boot]) -> list[str]:
    """Of all stages, in the order of the first boot that has them."""
    return list(dict.fromkeys(stage.name for boot in boots for stage in boot.stages))


def _length(boot: Boot) -> float:
    """Seconds from its beginning until `ready`, or else to its last stage's end."""
    return (boot.ended if boot.ready is None else boot.ready) - boot.began
