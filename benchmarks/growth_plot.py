"""The picture of `growth.py`: a panel for each quantity, what each cost is times its first.

Both axes are logarithmic and all panels have one vertical scale, so a flat line is a cost that does
not grow, and the dashed one is what grows in proportion.
"""

from __future__ import annotations

import math
from pathlib import Path

Row = dict[str, float]
Found = dict[str, tuple[list[int], list[Row]]]

COLUMNS = 2
WIDTH, HEIGHT, LEFT, TOP, LINE = 360, 260, 60, 34, 17
BELOW = 6 * LINE + 30
"""Room below a panel: sizes, and a line for each cost."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Told apart by who sees few colours (Okabe and Ito)."""


def power(xs: list[int], ys: list[float]) -> float:
    """Return the slope of log y over log x, by least squares."""
    points = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True) if y > 0]
    mx, my = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mx) ** 2 for x, _ in points)
    return sum((x - mx) * (y - my) for x, y in points) / spread if spread else 0.0


def number(value: float) -> str:
    """Return a number as the table shows it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(path: Path, found: Found, about: str) -> None:
    """Write an SVG; `about` is its last line: where and when it was measured."""
    ratios = [r for _, rows in found.values() for row in rows for r in _ratios(row, rows[0])]
    low, high = min(1.0, *ratios) / 1.3, max(10.0, *ratios) * 1.3
    lines = -(-len(found) // COLUMNS)
    width, height = COLUMNS * (LEFT + WIDTH) + 20, lines * (TOP + HEIGHT + BELOW) + 24
    parts = ['<rect width="100%" height="100%" fill="white"/>']
    for place, (name, (xs, rows)) in enumerate(found.items()):
        left = LEFT + place % COLUMNS * (LEFT + WIDTH)
        top = TOP + place // COLUMNS * (TOP + HEIGHT + BELOW)
        parts += [f'<g transform="translate({left},{top})">']
        parts += [*_frame(name, xs, low, high), *_lines(xs, rows, low, high), "</g>"]
    parts.append(_text(LEFT, height - 10, about, fill="#666"))
    head = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-size="12"'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {head} font-family="sans-serif">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _ratios(row: Row, first: Row) -> list[float]:
    return [row[column] / first[column] for column in row if row[column] > 0 < first[column]]


def _frame(name: str, xs: list[int], low: float, high: float) -> list[str]:
    """Return the axes of a panel, and the dashed line of what grows in proportion."""
    parts = [
        _text(0, -10, name, font_weight="bold"),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
    ]
    for exponent in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        y = _y(10.0**exponent, low, high)
        parts.append(
            f'<path d="M0 {y:.1f}H{WIDTH}" stroke="{"#999" if not exponent else "#ddd"}"/>'
        )
        parts.append(_text(-6, y + 4, f"{10.0**exponent:,g}×", text_anchor="end"))
    for x in xs:
        at = _x(x, xs)
        parts.append(f'<path d="M{at:.1f} {HEIGHT}v5" stroke="#999"/>')
        parts.append(_text(at, HEIGHT + 18, f"{x:,}", text_anchor="middle"))
    end = min(xs[-1] / xs[0], high)
    to = f"{_x(round(xs[0] * end), xs):.1f} {_y(end, low, high):.1f}"
    parts.append(
        f'<path d="M0 {_y(1.0, low, high):.1f}L{to}" stroke="#bbb" stroke-dasharray="5 4"/>'
    )
    return parts


def _lines(xs: list[int], rows: list[Row], low: float, high: float) -> list[str]:
    """Return the curve of each cost, and below the panel what it is."""
    parts = []
    for at, (column, first) in enumerate(rows[0].items()):
        colour = COLOURS[at % len(COLOURS)]
        values = [row[column] for row in rows]
        points = [
            (_x(x, xs), _y(value / first, low, high)) for x, value in zip(xs, values, strict=True)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        y = HEIGHT + 40 + LINE * at
        parts.append(f'<path d="M0 {y - 4}h16" stroke="{colour}" stroke-width="3"/>')
        words = f"{column}: {number(first)} to {number(values[-1])}, power {power(xs, values):.2f}"
        parts.append(_text(22, y, words))
    return parts


def _x(x: int, xs: list[int]) -> float:
    return WIDTH * math.log(x / xs[0]) / (math.log(xs[-1] / xs[0]) or 1.0)


def _y(ratio: float, low: float, high: float) -> float:
    return HEIGHT * math.log(high / ratio) / math.log(high / low)


def _text(x: float, y: float, words: str, **how: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in how.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{words}</text>'
