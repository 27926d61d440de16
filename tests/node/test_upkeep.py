"""Old blocks go while the node runs; the disk comes back; the last ones stay."""

import gc

import trio
from factories import make_chain
from test_repair import follow, open_store

from mlchain.ledger.history import check_history
from mlchain.ledger.kv import LevelKeyValue, MemoryKeyValue
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
