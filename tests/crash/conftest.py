"""Makes helpers of other folders importable, and thousands of starts affordable."""

import logging
import sys
from pathlib import Path

import pytest
import structlog

from mlchain.node import node

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "node"), str(TESTS / "process")]


@pytest.fixture(autouse=True)
def quick_start(monkeypatch):
    """Digesting the tables of ops and models takes a second, and is not what is tested here.

    Nor is what thousands of starts log of each of their blocks.
    """
    monkeypatch.setattr(node, "check_protocol", lambda protocol: None)
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)
