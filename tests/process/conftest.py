"""Makes helpers of other folders importable: the cluster in one process, and spoilt bytes."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "node"), str(TESTS / "fuzz")]
