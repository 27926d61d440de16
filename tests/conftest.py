"""Makes this folder importable, so that tests share `factories`, and deals them to two processes.

`scripts/test` runs both: the tests of a file share its networks, so they stay together. And it says
how long a slow test may take.
"""

import pytest

TOGETHER = ("tests/cli/",)
"""Folders whose last test looks at what the others did."""

SLOW_LIMIT_S = 1800
"""Of a slow test that does not name its own: many times what it takes, for machines with other
work. Tests say nothing about speed; the limit ends what hangs."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_LIMIT_S))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deal out files, and whole folders where they belong together."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    return ByFile(config, log)
