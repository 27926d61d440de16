"""The strip: a mark for each slice of a job, as HTML, on the page of an audit and on cards."""

from __future__ import annotations

from html import escape
from itertools import groupby

EQUAL, UNSEEN, DIFFERS = "█", "·", "x"
KINDS = {EQUAL: "e", UNSEEN: "u", DIFFERS: "d"}
"""Class of each mark; they differ in shape as well, for colour never stands alone."""
MAX_MARKS = 2_000
"""Slices that are drawn one by one; the rest is counted."""


def draw_strip(marks: str, label: str) -> str:
    """Return the first `MAX_MARKS` of the marks, and what they show in words."""
    runs = "".join(
        f'<span class="{KINDS[mark]}">{"".join(run)}</span>'
        for mark, run in groupby(marks[:MAX_MARKS])
    )
    label = escape(label)
    return f'<p class="strip" role="img" aria-label="{label}">{runs}</p><small>{label}</small>'
