"""Makes this folder importable, so that tests share `factories`, and says which run in one process.

The gate runs in two processes, `scripts/test`.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
TOGETHER = ("cli",)
"""Folders whose last test looks at what the others did."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, for they share its networks."""
    for item in items:
        place = item.path.relative_to(HERE).parts
        group = place[0] if place[0] in TOGETHER else "/".join(place)
        item.add_marker(pytest.mark.xdist_group(group))
