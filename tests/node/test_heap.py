"""What a node sets aside from the garbage collector, it gets back when it starts again."""

import gc
import weakref

import pytest

from mlchain.node.main import freeze_heap


class Ring:
    """Garbage only the collector can find."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_what_is_here_is_not_walked_again():
    ring = Ring()
    freeze_heap()
    assert ring not in gc.get_objects()


def test_a_node_that_gave_way_to_another_is_forgotten():
    ring = Ring()
    freeze_heap()
    seen = weakref.ref(ring)
    del ring
    freeze_heap()
    assert seen() is None
