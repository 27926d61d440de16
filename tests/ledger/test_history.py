"""Old blocks: removed on purpose, found damaged, put back."""

from __future__ import annotations

import pytest
from ledger_factory import grow, new_store, validator_set
from test_store import reopen

from mlchain.errors import InvalidBlock, NotFound, StoreCorrupted
from mlchain.ledger import store as store_module
from mlchain.ledger.history import check_history, find_damage
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.rows import at
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id


@pytest.fixture
def kv():
    return MemoryKeyValue()


def grown(kv, blocks: int = 8) -> Store:
    store = new_store(kv)
    grow(store, blocks)
    return store


# ---- pruning


def test_pruned_blocks_are_gone_and_whoever_asks_is_told_so(kv):
    store = grown(kv)
    assert store.prune(6, 100) == 6 and store.kept == 6
    for chain in (store, reopen(kv)):
        for read in (chain.block, chain.receipts, chain.header, chain.commit):
            assert read(6) == read(6)
            with pytest.raises(NotFound, match="pruned below height 6") as caught:
                read(5)
            assert "archive" in caught.value.hint
        assert chain.find_transaction(transaction_id(b"first 5")) is None
        assert chain.find_transaction(transaction_id(b"first 6")) == (6, 0)
        check_history(chain)
    letters = [key[:1] for key in dict(kv.items()) if len(key) == 9 and key[:1] in b"hbcr"]
    assert len(letters) == 4 * 3 + 1, "three whole blocks, and the header of block 0"


def test_the_chain_goes_on_from_what_is_left(kv):
    store = grown(kv)
    root, state = store.state().root(), dict(store.state().items())
    store.prune(100, 100)
    assert store.kept == store.height, "the head stays, whatever is asked"
    again = reopen(kv)
    assert again.state().root() == root and dict(again.state().items()) == state
    grow(again, 3)
    check_history(reopen(kv))


def test_pruning_is_done_in_steps_each_of_which_is_one_write(kv, monkeypatch):
    store = grown(kv)
    writes = []
    write = kv.write
    monkeypatch.setattr(kv, "write", lambda *args: (writes.append(args), write(*args)))
    steps = []
    while done := store.prune(6, 2):
        steps.append(done)
        check_history(reopen(kv))  # as after a crash between two steps
    assert steps == [2, 2, 2] and len(writes) == 3


def test_headers_by_which_light_clients_find_their_way_are_kept(kv, monkeypatch):
    monkeypatch.setattr(store_module, "MILESTONE", 4)
    store = grown(kv)
    header, commit = store.header(4), store.commit(4)
    store.prune(7, 100)
    assert (store.header(4), store.commit(4)) == (header, commit)
    with pytest.raises(NotFound, match="pruned"):
        store.block(4)
    with pytest.raises(NotFound, match="pruned"):
        store.header(3)


# ---- damage


@pytest.mark.parametrize("letter", [b"h", b"b", b"c", b"r"])
@pytest.mark.parametrize("kind", ["lost", "another block's"])
def test_a_damaged_row_is_named_and_put_back(kv, letter, kind):
    store = grown(kv)
    whole = (store.block(3), store.commit(3), store.receipts(3), validator_set())
    puts = {} if kind == "lost" else {at(letter, 3): kv.get(at(letter, 5))}
    kv.write(puts, [at(letter, 3)])
    found = [damage for damage in find_damage(store, 0, 8) if damage]
    assert [damage.height for damage in found] == [3] and found[0].what
    store.restore(*whole)
    assert not any(find_damage(store, 0, 8))


def test_control_without_the_comparison_another_body_would_be_served(kv, monkeypatch):
    store = grown(kv)
    true = store.block(3)
    kv.write({at(b"b", 3): kv.get(at(b"b", 5))})
    with pytest.raises(StoreCorrupted, match="body 3"):
        store.block(3)
    monkeypatch.setattr(store_module, "body_root", lambda body: true.header.body_root)
    assert store.block(3).body != true.body


def test_lost_index_entries_and_voters_are_found_and_put_back(kv):
    store = grown(kv)
    first, third = [
        (store.block(h), store.commit(h) if h else None, store.receipts(h), validator_set())
        for h in (0, 3)
    ]
    kv.write({}, [b"t" + transaction_id(b"second 3")])
    assert [d.height for d in find_damage(store, 0, 8) if d] == [3]
    store.restore(*third)
    kv.write({}, [at(b"v", 0)])
    assert [d.height for d in find_damage(store, 0, 8) if d] == list(range(9))
    with pytest.raises(InvalidBlock):
        store.restore(first[0], third[1], first[2], first[3])
    store.restore(*first)
    assert not any(find_damage(store, 0, 8))


def test_what_never_stood_here_is_not_put_back(kv):
    store = grown(kv)
    parts = (store.block(3), store.commit(3), store.receipts(3), validator_set())
    for place, other in (
        (1, store.commit(4)),
        (2, store.receipts(4)),
        (3, validator_set(weights=(2, 1, 1, 1))),
    ):
        wrong = [*parts]
        wrong[place] = other
        with pytest.raises(InvalidBlock):
            store.restore(*wrong)
