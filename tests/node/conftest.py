"""Lets the tests of a node use the makers of models and datasets of the runtime's tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "ml_runtime"))
