"""Networks of processes in bad weather; and what the soak's judge finds when nodes are wrong."""

import json
import xml.etree.ElementTree as ET

import pytest
from soak import Plan, soak
from weather import FAULTS

SHORT = {"calm_s": 2.0, "last_calm_s": 2.0, "longest_s": 2.0, "seconds": 6.0}


def run(folder, **plan):
    return soak(folder, Plan(**{**SHORT, **plan}), lambda text: None)


def test_a_short_soak_loses_and_contradicts_nothing_and_draws_what_it_saw(tmp_path):
    report = run(tmp_path, faults=("freeze", "cut"))
    assert report.complaints == []
    assert {event.name for event in report.events} == {"freeze", "cut"}
    assert report.final > 0 and report.votes > 0
    document, lines = report.document(), "\n".join(report.lines())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert len(document["nodes"]) == 4 and "back to normal" in lines
    assert ET.fromstring(report.picture()).tag.endswith("svg")


@pytest.mark.parametrize(
    ("mutant", "says"),
    [("acknowledges-early", "was said to be final"), ("applies-twice", "counts twice")],
)
def test_control_a_node_with_a_wrong_idea_is_found(tmp_path, mutant, says):
    report = run(tmp_path, validators=1, faults=(), mutant=mutant)
    assert any(says in complaint for complaint in report.complaints), report.complaints


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("validators", [4, 7])
def test_a_soak_with_every_fault_loses_and_contradicts_nothing(tmp_path, validators):
    report = soak(tmp_path, Plan(90.0, validators), print)
    assert report.complaints == []
    assert {event.name for event in report.events} >= set(FAULTS) - {"full-disk", "clock"}
