"""The chain on disk: one atomic write per block, honest answers or StoreCorrupted, never others."""

from __future__ import annotations

import random
import shutil

import pytest
from ledger_factory import (
    certificate,
    genesis,
    grow,
    new_store,
    next_block,
    validator_set,
    write_genesis_state,
)
from msgspec.structs import replace

from mlchain import codec
from mlchain.errors import GenesisError, InvalidBlock, MlchainError, NotFound, StoreCorrupted
from mlchain.ledger import store as store_module
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import verify_commit
from mlchain.ledger.history import check_history
from mlchain.ledger.kv import LevelKeyValue, MemoryKeyValue
from mlchain.ledger.merkle import verify_proof
from mlchain.ledger.rows import at
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id


def unreachable(state) -> None:
    raise AssertionError("genesis state is written once")


def reopen(kv) -> Store:
    return Store.create_or_open(kv, genesis(), unreachable)


@pytest.fixture(params=["memory", "leveldb"])
def kv(request, tmp_path):
    made = MemoryKeyValue() if request.param == "memory" else LevelKeyValue(tmp_path / "db")
    yield made
    made.close()


def test_block_0_is_the_genesis(kv):
    store = new_store(kv)
    assert store.height == 0
    assert store.head.parent == genesis().hash
    assert store.head.validators_hash == validator_set().hash
    assert store.block(0).body.transactions == () and store.receipts(0) == ()
    assert store.state().root() == store.head.state_root
    assert store.state().get(b"account/003") == b"3000"
    with pytest.raises(NotFound):
        store.commit(0)


def test_the_id_of_block_0_depends_on_the_whole_genesis_file():
    other = replace(genesis(), registry=bytes([8]) * 32)
    kv = MemoryKeyValue()
    assert Store.create_or_open(kv, other, write_genesis_state).head_id != new_store().head_id


def test_what_was_appended_is_read_back_also_after_opening_again(kv):
    store = new_store(kv)
    made = []
    for n in range(5):
        parts = next_block(store, {b"k": b"%d" % n}, (b"t%d" % n, b"u%d" % n))
        store.append(*parts)
        made.append(parts)
    for chain in (store, reopen(kv)):
        assert chain.height == 5
        assert chain.head == made[-1][0].header and chain.head_id == header_id(chain.head)
        assert chain.state().get(b"k") == b"4"
        for height, (block, commit, _, receipts, _) in enumerate(made, 1):
            assert chain.block(height) == block and chain.header(height) == block.header
            assert chain.commit(height) == commit and chain.receipts(height) == receipts
            assert chain.find_transaction(transaction_id(b"u%d" % (height - 1))) == (height, 1)
        assert chain.find_transaction(transaction_id(b"never sent")) is None
        check_history(chain)


@pytest.mark.parametrize("height", [-1, 3, 2**62])
def test_a_height_the_chain_has_not_is_not_found(kv, height):
    store = new_store(kv)
    grow(store, 2)
    for read in (store.header, store.block, store.commit, store.receipts):
        with pytest.raises(NotFound):
            read(height)


def test_a_candidate_block_does_not_disturb_the_committed_state(kv):
    store = new_store(kv)
    grow(store, 1)
    loser = next_block(store, {b"account/001": b"loser"}, (b"a",))
    winner = next_block(store, {b"account/001": b"winner"}, (b"b",))
    assert store.state().get(b"account/001") not in (b"loser", b"winner")
    store.append(*winner)
    assert store.state().get(b"account/001") == b"winner"
    assert store.find_transaction(transaction_id(b"a")) is None
    with pytest.raises(InvalidBlock):
        store.append(*loser)
    assert reopen(kv).head == store.head


def test_a_state_keeps_its_block_while_the_chain_goes_on(kv):
    store = new_store(kv)
    old = store.state()
    before = dict(old.items())
    grow(store, 3)
    assert dict(old.items()) == before and old.root() == store.header(0).state_root
    assert dict(store.state().items()) != before


def test_a_proof_at_the_head_convinces_whoever_has_header_and_certificate(kv):
    store = new_store(kv)
    grow(store, 3)
    header, commit = store.head, store.commit(3)
    verify_commit(commit, header.chain_id, validator_set(), 3, header_id(header))
    for key in (b"account/003", b"account/001", b"no such key"):
        value, proof = store.prove(key)
        assert value == store.state().get(key)
        verify_proof(header.state_root, key, value, proof)


# What does not belong together


def broken(parts, **changes):
    block, _, state, receipts, validators = parts
    header = replace(block.header, **changes)
    return (
        replace(block, header=header),
        certificate(header.height, header_id(header)),
        state,
        receipts,
        validators,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 4},
        {"height": 2},
        {"parent": bytes(32)},
        {"state_root": bytes(32)},
        {"body_root": bytes(32)},
        {"receipts_root": bytes(32)},
        {"next_validators_hash": bytes(32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_block_whose_header_does_not_fit_is_refused_and_nothing_changes(kv, changes):
    store = new_store(kv)
    grow(store, 2)
    parts = next_block(store, {b"k": b"v"}, (b"t",))
    before = dict(kv.items())
    with pytest.raises(InvalidBlock):
        store.append(*broken(parts, **changes))
    assert dict(kv.items()) == before and store.height == 2
    store.append(*broken(parts))  # control: the same block unchanged is taken
    assert store.height == 3


def test_a_certificate_for_another_block_is_refused():
    store = new_store()
    block, commit, *rest = next_block(store, {})
    with pytest.raises(InvalidBlock, match="certificate"):
        store.append(block, replace(commit, block_id=bytes(32)), *rest)
    with pytest.raises(InvalidBlock, match="certificate"):
        store.append(block, replace(commit, height=2), *rest)


def test_a_state_of_an_older_block_is_refused_even_when_its_root_fits():
    store = new_store()
    old = store.state()
    for flip in (b"1", None):  # there and back: the root is the one of the genesis again
        store.append(*next_block(store, {b"k": flip}))
    assert old.root() == store.head.state_root
    block, commit, _, *rest = next_block(store, {})
    with pytest.raises(InvalidBlock, match="state"):
        store.append(block, commit, old, *rest)


# Other databases and damaged ones


def test_a_database_of_another_chain_is_a_genesis_error(kv):
    new_store(kv)
    with pytest.raises(GenesisError, match="another chain"):
        Store.create_or_open(kv, genesis("dev-other"), unreachable)


def test_a_database_with_something_else_in_it_is_not_taken_for_empty(kv):
    kv.write({b"somebody's": b"data"})
    with pytest.raises(StoreCorrupted, match="genesis"):
        new_store(kv)


@pytest.mark.parametrize("damage", [b"s", b"h", b"head"])
def test_a_lost_record_is_found_at_opening(kv, damage):
    store = new_store(kv)
    grow(store, 3)
    victim = {b"s": b"saccount/002", b"h": at(b"h", 3), b"head": b"head"}[damage]
    kv.write({}, [victim])
    with pytest.raises(StoreCorrupted) as caught:
        reopen(kv)
    assert "--repair" in caught.value.hint


@pytest.mark.parametrize("letter", [b"h", b"b", b"c", b"r"])
def test_a_lost_block_record_is_found_when_read_and_by_check_history(kv, letter):
    store = new_store(kv)
    grow(store, 3)
    kv.write({}, [at(letter, 2)])
    again = reopen(kv)
    read = {b"h": again.header, b"b": again.block, b"c": again.commit, b"r": again.receipts}[letter]
    for call in (lambda: read(2), lambda: check_history(again)):
        with pytest.raises(StoreCorrupted, match="2"):
            call()


def test_the_header_of_another_height_at_the_head_is_found(kv):
    store = new_store(kv)
    for _ in range(2):
        store.append(*next_block(store, {}))  # equal states, so that the root does not tell
    kv.write({at(b"h", 2): kv.get(at(b"h", 1))})
    with pytest.raises(StoreCorrupted):
        reopen(kv)


@pytest.mark.parametrize("letter", [b"h", b"b", b"c", b"r"])
def test_a_record_of_another_block_is_found_by_check_history(kv, letter):
    store = new_store(kv)
    for _ in range(3):
        store.append(*next_block(store, {}))
    check_history(store)
    store.append(*next_block(store, {}, (b"t",)))
    swap = {b"h": 1, b"b": 1, b"c": 1, b"r": 4}[letter]
    kv.write({at(letter, 2): kv.get(at(letter, swap))})
    with pytest.raises(StoreCorrupted, match="2"):
        check_history(reopen(kv))


def test_a_lost_index_entry_is_found_by_check_history(kv):
    store = new_store(kv)
    grow(store, 3)
    kv.write({}, [b"t" + transaction_id(b"second 2")])
    with pytest.raises(StoreCorrupted, match="2"):
        check_history(store)


def test_one_changed_state_byte_is_found_at_opening(kv, monkeypatch):
    store = new_store(kv)
    grow(store, 3)
    value = store.state().get(b"account/002")
    kv.write({b"saccount/002": bytes([value[0] ^ 1]) + value[1:]})
    with pytest.raises(StoreCorrupted, match="not the one of block 3"):
        reopen(kv)
    # Control: without comparing roots the node would serve the changed balance.
    monkeypatch.setattr(store_module, "SparseTree", tree_that_claims(store.head.state_root))
    assert reopen(kv).state().get(b"account/002") != value


def tree_that_claims(root):
    class Tree:
        def __init__(self):
            self.root = root

        def update(self, changes):
            return self

    return Tree


def damage(path, rng) -> str:
    """Flip, cut, blank or remove a part of one database file; return what was done."""
    files = sorted(p for p in path.iterdir() if not p.name.startswith(("LOCK", "LOG")))
    victim = rng.choice(files)
    data = bytearray(victim.read_bytes())
    kind = rng.choice(["flip", "cut", "blank", "remove"])
    place = rng.randrange(len(data))
    if kind == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[place:]
    else:
        data[place : place + 300] = bytes(len(data[place : place + 300]))
    victim.write_bytes(data)
    if kind == "remove":
        victim.unlink()
    return f"{kind} {victim.name} at {place}"


def check_damaged(folder, seed, truth) -> str:
    """A damaged copy either says so, or is exactly the chain at one of its heights."""
    rng = random.Random(seed)
    path = folder / "copy"
    shutil.copytree(folder / "db", path)
    what = damage(path, rng)
    kv = None
    try:
        kv = LevelKeyValue(path)
        chain = Store.create_or_open(kv, genesis(), write_genesis_state)
        check_history(chain)
        answer = (chain.head_id, dict(chain.state().items()))
        assert answer == truth[chain.height], f"a wrong answer after: {what}"
        return "whole" if chain.height == len(truth) - 1 else "earlier"
    except StoreCorrupted:
        return "refused"
    except MlchainError as error:
        raise AssertionError(f"{what}: {error!r}") from error
    finally:
        if kv is not None:
            kv.close()
        shutil.rmtree(path)


def damaged_outcomes(tmp_path, rounds, first_seed=0) -> list[str]:
    kv = LevelKeyValue(tmp_path / "db")
    store = new_store(kv)
    truth = [(store.head_id, dict(store.state().items()))]
    for n in range(12):
        grow(store, 1)
        truth.append((store.head_id, dict(store.state().items())))
        if n in (4, 8):  # each opening turns the log into a table
            kv.close()
            kv = LevelKeyValue(tmp_path / "db")
            store = reopen(kv)
    kv.close()
    return [check_damaged(tmp_path, first_seed + n, truth) for n in range(rounds)]


def test_a_damaged_database_is_refused_or_is_an_earlier_moment_but_never_lies(tmp_path):
    outcomes = damaged_outcomes(tmp_path, 60)
    assert outcomes.count("refused") > 40
    assert "earlier" in outcomes  # the log's end was cut: as if the power had failed before it


@pytest.mark.slow
def test_a_damaged_database_never_lies_over_many_seeds(tmp_path):
    outcomes = damaged_outcomes(tmp_path, 3000, first_seed=1000)
    assert outcomes.count("refused") > 2000


def test_a_crash_between_two_writes_leaves_one_whole_block(monkeypatch):
    # The disk fails at the n-th write: the store must stand at a whole block, before and after
    # opening again.
    kv = MemoryKeyValue()
    store = new_store(kv)
    grow(store, 2)

    def fail(puts, deletes=()):
        raise StoreCorrupted("disk full")

    head, items = store.head, dict(kv.items())
    parts = next_block(store, {b"k": b"v"}, (b"t",))
    with monkeypatch.context() as patched:
        patched.setattr(kv, "write", fail)
        with pytest.raises(StoreCorrupted):
            store.append(*parts)
    assert store.head == head and dict(kv.items()) == items
    assert reopen(kv).head == head
    store.append(*parts)
    assert store.height == 3


def test_one_block_is_one_write(monkeypatch):
    kv = MemoryKeyValue()
    store = new_store(kv)
    writes = []
    write = kv.write
    monkeypatch.setattr(kv, "write", lambda *args: (writes.append(args), write(*args)))
    grow(store, 3)
    assert len(writes) == 3


def test_a_stored_record_that_is_not_canonical_is_refused(kv):
    store = new_store(kv)
    grow(store, 1)
    key = at(b"c", 1)
    kv.write({key: kv.get(key) + b"\x00"})
    with pytest.raises(StoreCorrupted, match="certificate 1"):
        store.commit(1)
    kv.write({key: codec.encode(5)})
    with pytest.raises(StoreCorrupted):
        store.commit(1)
