"""State sync: from peers of which some lie or go away, across a crash, to a store that goes on."""

from __future__ import annotations

import pytest
import structlog
from factories import GrowingChain, make_key, make_slashed_chain
from msgspec.structs import replace
from node.snapshot_world import ROLES, World, forge

from mlchain import codec
from mlchain.errors import NotFound, StoreCorrupted, Unreachable
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.merkle import CHUNKS
from mlchain.ledger.snapshot import Chunk, installing_height
from mlchain.ledger.store import Store
from mlchain.node import catchup, statesync
from mlchain.node.catchup import wants_snapshot
from mlchain.node.chain import Chain
from mlchain.node.snapshots import SnapshotFolder
from mlchain.node.upkeep import Upkeep
from mlchain.vm.initial import write_genesis


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    return make_slashed_chain(3)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(statesync, "RETRY_S", 0.01)
    monkeypatch.setattr(catchup, "PATIENCE_S", 1.0)
    monkeypatch.setattr(catchup, "AUTO_PATIENCE_S", 0.2)


@pytest.fixture
def world(chain, tmp_path) -> World:
    return World(chain, tmp_path)


def test_a_new_node_has_state_sets_and_certificates_and_goes_on_with_the_chain(world, chain):
    assert world.start()
    store, theirs = world.open(), chain.store
    assert (store.height, store.head_id) == (theirs.height, theirs.head_id)
    assert dict(store.state().items()) == dict(theirs.state().items())
    assert store.commit(store.height) == theirs.commit(theirs.height)
    assert store.validators_after(store.height) == theirs.validators_after(theirs.height)
    assert set(theirs.set_changes) <= set(store.set_changes)
    assert sorted(i for of in world.served.values() for i in of) == list(range(CHUNKS))
    assert len(world.served) == 3, "from several peers"
    with pytest.raises(NotFound, match="pruned below"):
        store.block(store.height)
    other = Chain(store, make_key("validator-0").public, lambda ref, commit: True)
    for _ in range(3):
        block = chain.grow()
        other.commit(chain.store.head_id, codec.encode(block), chain.last_commit)
    assert other.state().root() == chain.store.state().root()


LIES = {
    "other values": forge,
    "no rows": lambda data: codec.encode(replace(codec.decode(Chunk, data), rows=())),
    "cut off": lambda data: data[:-1],
    "junk": lambda data: b"junk",
    "another chunk": lambda data: codec.encode(
        replace(codec.decode(Chunk, data), index=(codec.decode(Chunk, data).index + 1) % CHUNKS)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_peer_that_serves_wrong_chunks_is_named_and_the_others_are_enough(world, chain, lie):
    world.spoil["b"] = LIES[lie]
    with structlog.testing.capture_logs() as logs:
        assert world.start()
    named = {line["peer"] for line in logs if line["event"] == "lying-peer"}
    assert named == {ROLES["b"].hex()[:8]}
    assert all("chunk" in line for line in logs if line["event"] == "lying-peer")
    assert world.open().state().root() == chain.store.state().root()


def test_control_without_the_proof_of_a_chunk_the_liar_poisons_the_state(world, chain, monkeypatch):
    world.spoil["b"] = forge

    def trusting(data, index, root):
        return {row.key: row.value for row in codec.decode(Chunk, data).rows}

    monkeypatch.setattr(statesync, "check_chunk", trusting)
    assert world.start()
    with pytest.raises(StoreCorrupted, match="not the one of block"):
        world.open()  # found at the end, with nobody to blame: 256 chunks for nothing


def test_when_all_lie_nothing_is_installed(world):
    world.spoil = dict.fromkeys(world.names, forge)
    with pytest.raises(NotFound, match="no peer has a snapshot"):
        world.start()
    assert dict(world.kv.items()) == {}


def test_after_a_crash_what_is_here_is_checked_and_only_the_rest_is_fetched(world, chain):
    height = chain.store.height

    class Crash(BaseException):
        pass

    def crash_after(count):
        def spoil(data):
            if len(world.served["a"]) > count:
                raise Crash
            return data

        return spoil

    world.names, world.spoil["a"] = ["a"], crash_after(100)
    with pytest.raises(BaseException):  # noqa: B017
        world.start()
    folder = world.folder / "new" / str(height)
    here = sorted(path.name for path in folder.iterdir())
    assert 90 <= len(here) < CHUNKS
    (folder / here[5]).write_bytes(b"bits that the disk lost")
    world.spoil, world.served = {}, {}
    assert world.start()
    fetched = world.served["a"]
    assert len(fetched) == CHUNKS - len(here) + 1 and int(here[5], 16) in fetched
    assert world.open().height == height


def test_a_crash_in_the_middle_of_installing_is_finished_at_the_next_start(world, monkeypatch):
    write, writes = world.kv.write, []

    def fail(puts, deletes=()):
        writes.append(puts)
        if len(writes) == 100:
            raise StoreCorrupted("the power failed")
        write(puts, deletes)

    monkeypatch.setattr(world.kv, "write", fail)
    with pytest.raises(StoreCorrupted, match="power"):
        world.start()
    monkeypatch.undo()
    assert installing_height(world.kv) is not None
    with pytest.raises(StoreCorrupted, match="being installed"):
        world.open()
    assert wants_snapshot("blocks", world.chain.genesis, world.kv, 0)
    world.served = {}
    assert world.start(is_needed=False)
    assert world.served == {}, "every chunk was on disk"
    assert world.open().height == world.chain.store.height


def test_a_store_that_is_behind_is_replaced_and_what_it_had_is_gone(world, chain):
    old = Store.create_or_open(
        world.kv, chain.genesis, lambda state: write_genesis(state, chain.genesis)
    )
    follower = Chain(old, None, lambda ref, commit: True)
    for height in range(1, 6):
        block, commit = chain.store.block(height), chain.store.commit(height)
        follower.commit(commit.block_id, codec.encode(block), commit)
    assert world.start()
    store = world.open()
    assert store.height == chain.store.height and store.kept == store.height + 1
    assert not [key for key, _ in world.kv.items(b"b") if key != b"b" + bytes(8)]
    assert not list(world.kv.items(b"t"))


def test_a_node_may_start_from_a_block_the_operator_vouches_for(world, chain):
    wrong = (5, bytes(32))
    with pytest.raises(NotFound):
        world.start(trust=wrong)
    assert world.start(trust=(5, chain.store.commit(5).block_id))
    store = world.open()
    assert store.height == chain.store.height and store.set_changes == chain.store.set_changes


def test_a_validator_whose_last_signature_is_lost_does_not_start_over_old_blocks(world, tmp_path):
    place = tmp_path / "wal" / "last-sign"
    assert world.start(last_sign=place)
    assert place.read_bytes() == b"", "a new node has signed nothing"
    place.unlink()
    with pytest.raises(StoreCorrupted, match="may have signed"):
        world.start(last_sign=place)


def test_without_anybody_a_new_node_goes_on_by_blocks_unless_a_snapshot_is_needed(world):
    world.names = []
    assert world.start(is_needed=False) is False
    with pytest.raises(Unreachable):
        world.start()


def test_auto_is_for_a_new_node_on_a_chain_that_is_not_young(chain):
    genesis = replace(chain.genesis, time_ms=10**12)
    kv = MemoryKeyValue()
    old, young = 10**12 + 10**6, 10**12 + 1000
    assert wants_snapshot("auto", genesis, kv, old)
    assert not wants_snapshot("auto", genesis, kv, young)
    assert not wants_snapshot("blocks", genesis, kv, old)
    kv.write({b"head": codec.encode(7)})
    assert not wants_snapshot("auto", genesis, kv, old)
    assert wants_snapshot("snapshot", genesis, kv, old)


def test_a_full_disk_is_named_and_not_the_peers(world, monkeypatch):
    write = SnapshotFolder.write

    def full(folder, height, index, data):
        if folder.folder.name == "new":
            raise StoreCorrupted("new: No space left on device")
        write(folder, height, index, data)

    monkeypatch.setattr(SnapshotFolder, "write", full)
    with pytest.raises(StoreCorrupted, match="No space left"):
        world.start()
    assert world.start(is_needed=False) is False, "blocks may still fit"


# ---- the folder


def test_half_a_snapshot_is_not_offered_and_a_damaged_one_is_removed(chain, tmp_path):
    folder = SnapshotFolder(tmp_path)
    for index in range(CHUNKS):
        folder.write(7, index, b"%d" % index)
        assert folder.heights() == [] and folder.begun() == [7]
    folder.complete(7)
    assert folder.heights() == [7] and folder.read(7, 9) == b"9"
    (tmp_path / "7" / "09").write_bytes(b"8")
    with pytest.raises(NotFound, match="damaged here"):
        folder.read(7, 9)
    assert folder.heights() == []
    with pytest.raises(NotFound):
        folder.read(8, 0)


def test_a_snapshot_is_of_its_moment_though_the_chain_goes_on(chain, tmp_path):
    folder = SnapshotFolder(tmp_path)
    upkeep = Upkeep(
        chain.store, MemoryKeyValue(), World(chain, tmp_path).transport("a"), folder, 1, 0
    )
    moment = chain.store.moment()
    chain.grow(2)
    upkeep._snapshots.take(moment)
    root = moment.header.state_root
    for index, data in enumerate(folder.read_all(moment.header.height)):
        statesync.check_chunk(data, index, root)
    for _ in range(3):
        chain.grow(1)
        upkeep._snapshots.take(chain.store.moment())
    assert folder.heights() == [chain.store.height, chain.store.height - 1], "old ones go"
