"""State and tables against dictionaries: overlays, marks that nest, keys that cannot collide."""

from __future__ import annotations

from typing import Annotated

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Meta

from mlchain.codec import Name, Record, Uint
from mlchain.errors import StoreCorrupted
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.merkle import SparseTree
from mlchain.ledger.state import MAX_KEY_BYTES, State, Table

short = st.binary(max_size=2)
mappings = st.dictionaries(short, st.binary(max_size=3), max_size=12)


def state_over(mapping) -> State:
    kv = MemoryKeyValue()
    kv.write(mapping)
    return State(kv.snapshot(), SparseTree().update(mapping))


class AgainstDictionaries(RuleBasedStateMachine):
    """A state with a stack of marks, beside a stack of dictionaries."""

    @initialize(base=mappings)
    def start(self, base):
        self.base = base
        self.state = state_over(base)
        self.model = dict(base)
        self.stack = []

    @rule(key=short, value=st.binary(max_size=3))
    def put(self, key, value):
        self.state.put(key, value)
        self.model[key] = value

    @rule(key=short)
    def delete(self, key):
        self.state.delete(key)
        self.model.pop(key, None)

    @rule()
    def checkpoint(self):
        self.stack.append((self.state.checkpoint(), dict(self.model)))

    @precondition(lambda self: self.stack)
    @rule(data=st.data())
    def rollback(self, data):
        place = data.draw(st.integers(0, len(self.stack) - 1))
        mark, self.model = self.stack[place]
        self.model = dict(self.model)
        self.state.rollback(mark)
        del self.stack[place + 1 :]

    @rule(prefix=short)
    def read(self, prefix):
        expected = [(k, self.model[k]) for k in sorted(self.model) if k.startswith(prefix)]
        assert list(self.state.items(prefix)) == expected
        assert self.state.get(prefix) == self.model.get(prefix)

    @rule()
    def root(self):
        assert self.state.root() == SparseTree().update(self.model).root

    @invariant()
    def changes_lead_from_the_base_to_the_model(self):
        changes = self.state.changes()
        assert list(changes) == sorted(changes)
        after = {**self.base, **changes}
        assert {k: v for k, v in after.items() if v is not None} == self.model


TestAgainstDictionaries = AgainstDictionaries.TestCase
TestAgainstDictionaries.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_two_states_over_one_base_do_not_see_each_other():
    kv = MemoryKeyValue()
    kv.write({b"a": b"1"})
    tree = SparseTree().update({b"a": b"1"})
    left, right = State(kv.snapshot(), tree), State(kv.snapshot(), tree)
    left.put(b"a", b"left")
    right.delete(b"a")
    assert (left.get(b"a"), right.get(b"a"), kv.get(b"a")) == (b"left", None, b"1")
    assert len({left.root(), right.root(), tree.root}) == 3


def test_a_running_iteration_does_not_see_later_changes():
    state = state_over({b"a": b"1", b"c": b"1"})
    state.put(b"b", b"1")
    running = state.items()
    state.put(b"bb", b"2")
    state.delete(b"c")
    assert [key for key, _ in running] == [b"a", b"b", b"c"]


def test_the_root_follows_a_rollback():
    state = state_over({b"a": b"1"})
    before = state.root()
    mark = state.checkpoint()
    state.put(b"a", b"2")
    assert state.root() != before
    state.rollback(mark)
    assert state.root() == before and state.changes() == {}


def test_a_mark_already_rolled_past_is_a_bug():
    state = state_over({})
    state.put(b"a", b"1")
    mark = state.checkpoint()
    state.rollback(0)
    with pytest.raises(AssertionError):
        state.rollback(mark)


def test_a_key_beyond_its_bound_is_a_bug():
    state = state_over({})
    state.put(b"k" * MAX_KEY_BYTES, b"")
    with pytest.raises(AssertionError):
        state.put(b"k" * (MAX_KEY_BYTES + 1), b"")


# Tables


class Note(Record, frozen=True):
    number: Uint
    text: Name


NOTES = Table(b"note/", Note, bytes, int)
ONE, TWO = bytes([1]) * 32, bytes([2]) * 32


def test_a_table_gives_back_the_record_and_none_for_the_rest():
    state = state_over({})
    NOTES.put(state, Note(7, "seven"), ONE, 7)
    assert NOTES.get(state, ONE, 7) == Note(7, "seven")
    assert NOTES.get(state, ONE, 8) is None
    assert state.get(b"note/" + ONE + (7).to_bytes(8, "big")) is not None
    NOTES.delete(state, ONE, 7)
    assert NOTES.get(state, ONE, 7) is None


def test_items_come_in_the_order_of_numbers_under_the_leading_parts():
    state = state_over({})
    for number in (300, 2, 10):
        NOTES.put(state, Note(number, "x"), ONE, number)
    NOTES.put(state, Note(1, "x"), TWO, 1)
    assert [key for key, _ in NOTES.items(state, ONE)] == [(ONE, 2), (ONE, 10), (ONE, 300)]
    assert [note.number for _, note in NOTES.items(state)] == [2, 10, 300, 1]


def test_a_table_without_parts_holds_one_record():
    one = Table(b"beacon/", Note)
    state = state_over({})
    one.put(state, Note(1, "only"))
    assert one.get(state) == Note(1, "only")
    assert list(one.items(state)) == [((), Note(1, "only"))]


@given(
    st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=3)),
    st.tuples(st.binary(min_size=32, max_size=32), st.binary(max_size=3)),
)
def test_two_keys_of_a_table_are_two_keys_of_the_state(first, second):
    table = Table(b"open/", Note, bytes, bytes)
    assert (table.key(*first) == table.key(*second)) == (first == second)
    assert table._split(table.key(*first)) == first


def test_only_the_last_part_may_be_bytes_of_any_length():
    table = Table(b"open/", Note, bytes, bytes)
    with pytest.raises(AssertionError):  # else (b"a", b"bc") and (b"ab", b"c") were one key
        table.key(b"a", b"bc")
    with pytest.raises(AssertionError):
        NOTES.key(ONE, b"7")
    with pytest.raises(AssertionError):
        NOTES.key(7, 7)
    with pytest.raises(AssertionError):
        NOTES.key(ONE)


@pytest.mark.parametrize("prefix", [b"note", b"note/x/", b"/note", b""])
def test_a_prefix_is_one_word_and_a_slash(prefix):
    with pytest.raises(AssertionError):
        Table(prefix, Note, bytes)


def test_a_record_that_does_not_decode_means_a_damaged_store():
    state = state_over({NOTES.key(ONE, 1): b"\xc1"})
    with pytest.raises(StoreCorrupted, match="note/"):
        NOTES.get(state, ONE, 1)


def test_a_table_may_hold_plain_bounded_values():
    counters = Table(b"count/", Annotated[int, Meta(ge=0)], bytes)
    state = state_over({})
    counters.put(state, 5, b"name")
    assert counters.get(state, b"name") == 5
