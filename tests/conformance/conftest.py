"""Lets the conformance suites use the factories of the packages they examine."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "ml_runtime"))
