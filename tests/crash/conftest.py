"""Makes helpers of other folders importable, and thousands of starts affordable."""

import sys
from pathlib import Path

import pytest

from mlchain.node import node

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "node"), str(TESTS / "process")]


@pytest.fixture(autouse=True)
def quick_start(monkeypatch):
    """Digesting the tables of ops and models takes a second, and is not what is tested here."""
    monkeypatch.setattr(node, "check_protocol", lambda protocol: None)
