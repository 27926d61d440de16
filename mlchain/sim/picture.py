"""A run as one SVG picture: a lane for each node, time to the right.

Hover over a mark to read what it is. Drawn from `Outcome.story`, which is told with the transcript.
"""

from __future__ import annotations

from html import escape

from mlchain.sim.scenario import Happening, Outcome

LEFT, TOP, LANE, WIDTH = 110, 96, 44, 1500
HALF = LANE // 2
MOST_MARKS = 20_000

MARKS = {
    "proposal": ("#1f6feb", "▸", "proposal"),
    "prevote": ("#8b949e", "·", "prevote"),
    "precommit": ("#57606a", "•", "precommit"),
    "decided": ("#1a7f37", "|", "decided"),
    "commit": ("#0a7ea4", "◆", "segment committed"),
    "attested": ("#1a7f37", "✓", "attested"),
    "claim": ("#cf222e", "⚑", "accusation"),
    "verdict": ("#8250df", "§", "verdict"),
    "block-refused": ("#bc4c00", "○", "veto or invalid block"),
    "slashed": ("#cf222e", "✗", "slashed"),
}
"""Kind of happening: colour, sign, and what the legend says."""

HEIGHT_OF = {"proposal": -12, "prevote": -4, "precommit": 4, "decided": 0, "block-refused": -12}
"""Where in its lane a mark stands, in pixels from the middle; others stand at the bottom."""


def draw(outcome: Outcome) -> str:
    """Return the SVG document."""
    lanes = {name: TOP + HALF + LANE * i for i, name in enumerate(dict.fromkeys(outcome.lanes))}
    bottom = TOP + LANE * len(lanes)
    scale = (WIDTH - LEFT - 30) / max(outcome.virtual_ms, 1)

    def x(at_ms: int) -> float:
        return round(LEFT + min(at_ms, outcome.virtual_ms) * scale, 1)

    parts = [_head(outcome, bottom)]
    parts += _partitions(outcome.story, lanes, x, outcome.virtual_ms)
    parts += _axis(outcome.virtual_ms, x, bottom)
    for name, y in lanes.items():
        parts.append(f'<text x="8" y="{y + 4}" class="name">{escape(name)}</text>')
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 30}" y1="{y}" y2="{y}" class="lane"/>')
        parts += _outages(outcome.story, name, y, x, outcome.virtual_ms)
    for each in outcome.story[:MOST_MARKS]:
        parts.append(_mark(each, lanes, x, bottom))
    parts.append("</svg>\n")
    return "\n".join(part for part in parts if part)


def _head(outcome: Outcome, bottom: int) -> str:
    verdict = outcome.violation or "every promise held"
    colour = "#cf222e" if outcome.violation else "#1a7f37"
    legend, at = [], LEFT
    for colour_of, sign, words in MARKS.values():
        legend.append(
            f'<text x="{at}" y="66" fill="{colour_of}">{sign}'
            f'<tspan fill="#24292f"> {words}</tspan></text>'
        )
        at += 34 + 6 * len(words)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 40}" '
        f'viewBox="0 0 {WIDTH} {bottom + 40}" font-family="sans-serif" font-size="11">\n'
        "<style>.name{font-weight:bold}.lane{stroke:#d0d7de}.cut{fill:#bf8700;opacity:.16}"
        ".down{fill:#24292f;opacity:.75}.hard{stroke:#1a7f37;stroke-dasharray:4 3}"
        ".axis{fill:#57606a;font-size:10px}</style>\n"
        f'<rect width="{WIDTH}" height="{bottom + 40}" fill="white"/>\n'
        f'<text x="8" y="22" font-size="15">{escape(outcome.scenario.command)}</text>\n'
        f'<text x="8" y="42" fill="{colour}">{escape(outcome.adversary)}: '
        f"{escape(verdict[:230])}</text>\n" + "\n".join(legend)
    )


def _axis(end_ms: int, x: object, bottom: int) -> list[str]:
    step = next(s for s in (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 10**9)
                if end_ms / s <= 24)  # fmt: skip
    assert callable(x)
    return [
        f'<text x="{x(at)}" y="{bottom + 24}" class="axis">{at / 1000:g} s</text>'
        for at in range(0, end_ms + 1, step)
    ]


def _partitions(story: list[Happening], lanes: dict[str, int], x: object, end_ms: int) -> list[str]:
    """Shade the lanes of the smaller side while a partition lasts."""
    assert callable(x)
    moves = [each for each in story if each.kind in ("partition", "calm")]
    shades = []
    for move, after in zip(moves, [*moves[1:], None], strict=False):
        until = after.at_ms if after else end_ms
        cut = move.text.split() if move.kind == "partition" else []
        for name in cut:
            if name in lanes:
                shades.append(
                    f'<rect x="{x(move.at_ms)}" y="{lanes[name] - HALF}" class="cut" '
                    f'width="{max(x(until) - x(move.at_ms), 1):.1f}" height="{LANE}">'
                    f"<title>cut off: {escape(move.text)}</title></rect>"
                )
    return shades


def _outages(story: list[Happening], name: str, y: int, x: object, end_ms: int) -> list[str]:
    assert callable(x)
    gaps, since = [], -1
    for each in [*story, Happening(end_ms, name, "boot", "")]:
        if each.lane != name:
            continue
        if each.kind == "crash":
            since = each.at_ms
        elif each.kind == "boot" and since >= 0:
            width = max(x(each.at_ms) - x(since), 2)
            gaps.append(
                f'<rect x="{x(since)}" y="{y - 3}" width="{width:.1f}" height="6" class="down">'
                f"<title>down from {since} to {each.at_ms} ms</title></rect>"
            )
            since = -1
    return gaps


def _mark(each: Happening, lanes: dict[str, int], x: object, bottom: int) -> str:
    assert callable(x)
    at = x(each.at_ms)
    title = f"<title>{each.at_ms} ms {each.lane} {each.kind} {escape(each.text)}</title>"
    if each.kind == "HARD":
        return (
            f'<line x1="{at}" x2="{at}" y1="{TOP - 6}" y2="{bottom}" class="hard">{title}</line>'
            f'<text x="{at}" y="{TOP - 8}" fill="#1a7f37" text-anchor="middle">'
            f"HARD{title}</text>"
        )
    if each.kind not in MARKS or each.lane not in lanes:
        return ""
    colour, sign, _ = MARKS[each.kind]
    y = lanes[each.lane] + HEIGHT_OF.get(each.kind, 16) + 4
    return f'<text x="{at}" y="{y}" fill="{colour}" text-anchor="middle">{sign}{title}</text>'
