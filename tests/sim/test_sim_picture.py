"""The picture of a run: well-formed, of one lane a node, with what happened in it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from mlchain.sim.picture import draw
from mlchain.sim.run import run
from mlchain.sim.scenario import Scenario

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("world", ["agreement", "work"])
def test_it_is_a_drawing_with_a_lane_for_each_node(world: str):
    outcome = run(Scenario(2 if world == "agreement" else 0, world=world, transcript=True))
    root = ElementTree.fromstring(draw(outcome))
    names = [e.text for e in root.iter(f"{SVG}text") if e.get("class") == "name"]
    assert names == list(dict.fromkeys(outcome.lanes)) and len(names) >= 4
    titles = [e.text or "" for e in root.iter(f"{SVG}title")]
    assert any("decided" in title for title in titles)
    assert any("precommit" in title for title in titles)
    assert any("down from" in title for title in titles), "these seeds have crashes"


def test_a_broken_promise_stands_on_top_escaped():
    outcome = run(Scenario(0, mutant="small-quorum", transcript=True))
    outcome.violation += " <&>"
    assert "&lt;&amp;&gt;" in draw(outcome)
