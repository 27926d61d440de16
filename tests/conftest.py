"""Makes this folder importable, so that tests share `factories`, and deals them to two processes.

`scripts/test` runs both: the tests of a file share its networks, so they stay together.
"""

import pytest

TOGETHER = ("tests/cli/",)
"""Folders whose last test looks at what the others did."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deal out files, and whole folders where they belong together."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    return ByFile(config, log)
