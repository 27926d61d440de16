"""Receipts for the eye: a line, a card for notebooks, a plot. Nothing is loaded from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from mlchain.client.estimators.curves import Curves
from mlchain.client.strip import (
    DIFFERS,
    EQUAL,
    KINDS,
    MAX_MARKS,
    UNSEEN,
    draw_strip,
)
from mlchain.errors import ConfigError

WORDS = {EQUAL: "re-run", UNSEEN: "not sampled", DIFFERS: "differs"}
SHORT = 16

VERDIGRIS, VERMILION, AMBER, BLUE = "#0f7a6c", "#c8402a", "#c98a1b", "#1d4f91"
"""Byte-equal and nothing else; differs; waiting; a curve."""

_STYLE = """<style>
.mlc{font:13px/1.5 system-ui,sans-serif;font-variant-numeric:tabular-nums;max-width:46em;
color:#16202c;background:#fff;border:1px solid #e6e1d8;border-radius:4px;padding:.6em .9em}
.mlc b{font-weight:600}.mlc dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1em;
margin:.4em 0}.mlc dt{color:#566170}.mlc dd{margin:0;overflow-wrap:anywhere}
.mlc code,.mlc p{font-family:ui-monospace,monospace}.mlc p{margin:.3em 0;line-height:1.15;
overflow-wrap:anywhere;letter-spacing:-.02em}
.mlc .e{color:#0f7a6c}.mlc .d{color:#c8402a;font-weight:700}.mlc .u{color:#566170}
@media (prefers-color-scheme:dark){.mlc{color:#e8e4dc;background:#151c26;border-color:#2a3442}
.mlc dt,.mlc .u{color:#9aa5b4}.mlc .e{color:#37c3ad}.mlc .d{color:#ff7a62}}
</style>"""


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of a fit: `mark` is EQUAL, UNSEEN or DIFFERS, `verdict` says it in words."""

    name: str
    mark: str
    verdict: str
    facts: tuple[tuple[str, str], ...]
    strip: str

    @property
    def sign(self) -> str:
        """A dot, filled if others checked; a cross if something differs."""
        return {EQUAL: "●", UNSEEN: "○", DIFFERS: "✗"}[self.mark]


def line(story: Story) -> str:
    """Return the story as one line of text."""
    facts = [f"{label} {value}" for label, value in story.facts[:3]]
    return "   ".join([f"{story.sign} {story.verdict}", *facts])


def html(story: Story) -> str:
    """Return the story as a card, complete in itself; what came from others is escaped."""
    kind = KINDS[story.mark]
    verdict = f"{story.sign} {escape(story.verdict)}"
    head = f'<span class="{kind}">{verdict}</span> <b>{escape(story.name)}</b>'
    rows = "".join(
        f"<dt>{escape(label)}</dt><dd>{_value(value)}</dd>" for label, value in story.facts
    )
    return f'{_STYLE}<div class="mlc">{head}<dl>{rows}</dl>{_strip(story.strip)}</div>'


def _value(value: str) -> str:
    """Return a fact; hashes are shortened, with the whole in the title."""
    words = [
        f'<code title="{escape(word)}">{escape(word[:8])}…{escape(word[-4:])}</code>'
        if len(word) > SHORT * 2
        else escape(word)
        for word in value.split(" ")
    ]
    return " ".join(words)


def _strip(strip: str) -> str:
    counts = ", ".join(
        f"{strip.count(mark)} {words}" for mark, words in WORDS.items() if mark in strip
    )
    more = f" (the first {MAX_MARKS} are shown)" if len(strip) > MAX_MARKS else ""
    label = f"{len(strip)} slices: {counts}{more}"
    return draw_strip(strip, label)


def plot(story: Story, curves: Curves, ax: Any = None) -> Any:
    """Draw loss and score over steps, slices that were re-run shaded; return the figure.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError(
            "plot: matplotlib is not installed", "pip install mlchain[plot]"
        ) from error
    ax = pyplot.subplots(figsize=(7, 3.2))[1] if ax is None else ax
    steps = [chunks * curves.chunk for chunks in curves.chunks]
    at = 0
    for mark, run in groupby(story.strip):
        width = len(list(run)) * curves.chunk
        if mark != UNSEEN:
            colour = VERDIGRIS if mark == EQUAL else VERMILION
            ax.axvspan(at, at + width, color=colour, alpha=0.12, lw=0)
        at += width
    ax.plot(steps, curves.loss, color=BLUE, label="loss")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    if curves.score:
        right = ax.twinx()
        right.plot(steps, curves.score, color="#16202c", ls="--", label="accuracy on training rows")
        right.set_ylabel("accuracy")
        right.set_ylim(0, 1.02)
    again = len(story.strip) - story.strip.count(UNSEEN)
    ax.set_title(f"{story.name}: {again} of {len(story.strip)} slices re-run (shaded)", fontsize=10)
    return ax.figure
