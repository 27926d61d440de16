"""A collection removes what nobody needs, the oldest first, and nothing just being added."""

import hashlib
import io
import threading

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mlchain.errors import NotFound
from mlchain.ledger.content import ContentStore
from mlchain.ledger.kv import MemoryKeyValue

LEAF = 262_144


def content(name: str, size: int = 1000) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


@pytest.fixture
def store():
    return ContentStore(MemoryKeyValue(), threading.Lock())


def test_the_newest_files_stay_as_far_as_there_is_room(store):
    cids = [store.put(content(name)) for name in "abcde"]
    assert store.used_bytes() == 5000
    assert store.collect([], 2500) == 3000
    assert [store.has(cid) for cid in cids] == [False, False, False, True, True]
    assert [kept.cid for kept in store.files()] == [cids[4], cids[3]]


def test_a_file_that_is_asked_for_again_is_new_again(store):
    old, new = store.put(content("a")), store.put(content("b"))
    store.note(old)
    store.collect([], 1000)
    assert store.has(old) and not store.has(new)


def test_what_is_needed_or_pinned_stays_beyond_the_bound(store):
    needed, pinned, other = (store.put(content(name, 600_000)) for name in "npo")
    store.pin(pinned)
    store.collect([needed], 0)
    assert store.has(needed) and store.has(pinned) and not store.has(other)
    assert [(kept.cid, kept.is_pinned) for kept in store.files()] == [
        (pinned, True),
        (needed, False),
    ]
    store.pin(pinned, False)
    store.collect([needed], 0)
    assert store.has(needed) and not store.has(pinned)


def test_a_block_that_two_files_share_stays_with_the_one_that_stays(store):
    shared = content("shared", LEAF)
    old, new = store.put(shared + b"old"), store.put(shared + b"new")
    store.collect([], LEAF + 200)
    assert not store.has(old) and store.get(new) == shared + b"new"


def test_a_needed_file_that_is_half_here_keeps_what_it_has(store):
    source = ContentStore(MemoryKeyValue())
    cid = source.put(content("a", 3 * LEAF))
    store.put_block(cid, source.get_block(cid))
    first = store.missing(cid)[0]
    store.put_block(first, source.get_block(first))
    store.put(content("other"))
    assert store.collect([cid], 0) == 1000
    assert store.has_block(cid) and store.has_block(first)


def test_damage_in_a_file_that_stays_stops_no_collection(store):
    cid, other = store.put(content("a", 3 * LEAF)), store.put(content("b"))
    store._kv.write({b"b" + cid: b"damaged"})
    store.collect([cid], 0)
    assert store.has_block(cid) and not store.has(other)


class Forgetful(dict):
    """Remembers nothing of what is written meanwhile."""

    def update(self, more):
        pass


class Halting(io.BytesIO):
    """A file in whose middle something happens."""

    def __init__(self, data: bytes, act) -> None:
        super().__init__(data)
        self.left, self.act = 20, act  # past the first batch that is written

    def read(self, size=-1):
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().read(size)


@pytest.mark.parametrize("is_defended", [True, False])
def test_a_file_that_is_being_added_loses_no_block_to_a_collection(store, is_defended):
    data = b"".join(content(str(n), LEAF) for n in range(24))
    old = store.put(content("old"))
    if not is_defended:
        store._young = Forgetful()
    cid = store.put(Halting(data, lambda: store.collect([], 0)))
    assert not store.has(old), "it did collect"
    assert store.has(cid) == is_defended
    if is_defended:
        assert store.get(cid) == data


@pytest.mark.parametrize("is_defended", [True, False])
@pytest.mark.parametrize("moment", ["files", "_sweep"])
def test_a_file_that_another_thread_adds_while_a_collection_runs_is_whole(
    store, moment, is_defended
):
    old, data, added = store.put(content("old")), content("new", 20 * LEAF), []
    if not is_defended:
        store._young = Forgetful()
    step = getattr(store, moment)

    def with_another(*args):
        found = step(*args) if moment == "files" else None  # after it looked, or before it removes
        thread = threading.Thread(target=lambda: added.append(store.put(data)))
        thread.start()
        thread.join()
        return step(*args) if found is None else found

    setattr(store, moment, with_another)
    store.collect([], 0)
    assert not store.has(old), "it did collect"
    assert store.has(added[0]) == is_defended
    if is_defended:
        assert store.get(added[0]) == data


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2000)), min_size=1, max_size=8),
    st.integers(0, 6000),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_any_collection_keeps_the_bound_or_only_what_it_must(files, bound, data):
    store = ContentStore(MemoryKeyValue())
    cids = [store.put(content(*file)) for file in files]
    needed = data.draw(st.lists(st.sampled_from(cids), max_size=2))
    pinned = data.draw(st.lists(st.sampled_from(cids), max_size=2))
    for cid in pinned:
        store.pin(cid)
    before = store.used_bytes()
    freed = store.collect(needed, bound)
    assert before - freed == store.used_bytes()
    must = {*needed, *pinned}
    assert all(store.has(cid) for cid in must)
    assert store.used_bytes() <= max(bound, sum(store.size(cid) for cid in must))
    for kept in store.files():
        assert store.get(kept.cid) is not None
    for cid in set(cids) - {kept.cid for kept in store.files()} - must:
        with pytest.raises(NotFound):
            store.get(cid)
    assert store.collect(needed, bound) == 0, "once more changes nothing"
