"""Makes the cluster of nodes in one process, `harness`, importable from the node's own tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "node"))
