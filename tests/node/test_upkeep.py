"""Old blocks go while the node runs; the disk comes back; the last ones stay."""

import gc

import pytest
import trio
from factories import GrowingChain, make_chain
from test_repair import follow, open_store

from mlchain.errors import StoreCorrupted
from mlchain.ledger.history import check_history
from mlchain.ledger.kv import LevelKeyValue, MemoryKeyValue, Unreadable
from mlchain.ledger.rows import RECEIPTS, at, read
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id
from mlchain.node import upkeep as upkeep_module
from mlchain.node.upkeep import Upkeep
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.vm.families.accounts import Transfer

BLOCKS = 60


def folder_bytes(path):
    return sum(file.stat().st_size for file in path.iterdir())


def test_old_blocks_go_in_steps_and_the_disk_comes_back(tmp_path, monkeypatch):
    for name, value in (("PRUNE_STEP", 7), ("PRUNE_PAUSE_S", 0), ("COMPACT_AFTER", 10)):
        monkeypatch.setattr(upkeep_module, name, value)
    chain = make_chain(1, 1)
    for number in range(BLOCKS):
        for _ in range(40):
            chain.send(Transfer(bytes([number]) * 32, 1))
        chain.grow()
    path = tmp_path / "data"
    kv = LevelKeyValue(path)
    store = open_store(kv, chain)
    follow(store, chain, BLOCKS)
    gc.collect()  # whoever followed looked at the state through a view, which pins old rows
    kv.compact()
    before = folder_bytes(path)
    upkeep = Upkeep(store, kv, MemoryTransport(Hub(), bytes(32), {}), None, 0, 10)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upkeep.run)
            with trio.fail_after(60):
                while store.kept < BLOCKS - 9 or folder_bytes(path) > before // 2:
                    upkeep.on_block(10**6)  # as the chain goes on
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert store.kept == BLOCKS - 9
    root = store.state().root()
    kv.close()
    kv = LevelKeyValue(path)
    again = open_store(kv, chain)
    assert again.kept == BLOCKS - 9 and again.state().root() == root == chain.store.state().root()
    check_history(again)
    kv.close()


def test_an_archive_node_removes_nothing():
    chain = make_chain(1, 1)
    chain.grow(BLOCKS)
    upkeep = Upkeep(
        chain.store, MemoryKeyValue(), MemoryTransport(Hub(), bytes(32), {}), None, 0, 0
    )

    async def main():
        with trio.move_on_after(0.3):
            upkeep.on_block(BLOCKS)
            await upkeep.run()

    trio.run(main)
    assert chain.store.kept == 0


# ---- damaged old blocks


@pytest.fixture
def chain() -> GrowingChain:
    """Ten blocks, of which the fifth holds one transaction."""
    chain = make_chain(1, 1)
    chain.grow(4)
    chain.send(Transfer(bytes(32), 1))
    chain.grow(6)
    return chain


JUNK = b"\xc1 bits that the disk lost"
DAMAGES = {
    "receipts": lambda kv, monkeypatch: kv.write({at(b"r", 5): JUNK}),
    "no receipts": lambda kv, monkeypatch: kv.write({}, [at(b"r", 5)]),
    "receipts and body": lambda kv, monkeypatch: kv.write(
        {at(b"r", 5): JUNK, at(b"b", 5): JUNK, at(b"h", 5): JUNK}
    ),
    "a file of the database": lambda kv, monkeypatch: monkeypatch.setattr(
        kv, "get", unreadable(kv.get)
    ),
}


def unreadable(get):
    def fail(key: bytes) -> bytes | None:
        if key in (at(b"r", 5), at(b"b", 5)):
            raise Unreadable("a checksum does not match")
        return get(key)

    return fail


def keep_five(chain: GrowingChain) -> None:
    """Run the upkeep of a node that keeps five blocks, until the others are gone."""
    store = chain.store
    upkeep = Upkeep(store, store._kv, MemoryTransport(Hub(), bytes(32), {}), None, 0, 5)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upkeep.run)
            with trio.fail_after(60):
                while store.kept < store.height - 4:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_old_block_goes_like_any_other_and_ends_no_node(chain, damage, monkeypatch):
    store = chain.store
    (sent,) = store.block(5).body.transactions
    DAMAGES[damage](store._kv, monkeypatch)
    keep_five(chain)
    assert store.kept == store.height - 4
    kv = store._kv
    assert not [row for row in kv.items(b"b") if row[0] < at(b"b", store.kept)]
    is_body_lost = damage in ("receipts and body", "a file of the database")
    assert (store.find_transaction(transaction_id(sent)) is None) is not is_body_lost


def test_control_a_node_that_needs_the_receipts_of_what_it_removes_ends(chain, monkeypatch):
    def included(store, height):
        data = store._kv.get(at(b"r", height))
        return [receipt.transaction for receipt in read(RECEIPTS, data, "receipts")]

    DAMAGES["receipts"](chain.store._kv, monkeypatch)
    monkeypatch.setattr(Store, "_included", included)
    with pytest.raises(BaseExceptionGroup) as caught:
        keep_five(chain)
    assert caught.group_contains(StoreCorrupted) and chain.store.kept == 0
