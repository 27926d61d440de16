"""A database damaged in every way comes back to the state of the others, and never by belief."""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack, contextmanager

import pytest
import structlog
import trio
from factories import GrowingChain, make_key, make_slashed_chain
from msgspec.structs import replace

from mlchain import codec
from mlchain.errors import MlchainError, StoreCorrupted
from mlchain.ledger.history import check_history, find_damage
from mlchain.ledger.kv import LevelKeyValue, MemoryKeyValue
from mlchain.ledger.rows import at
from mlchain.ledger.store import Store
from mlchain.node import mend
from mlchain.node.chain import Chain
from mlchain.node.mend import Mender, WholeBlock
from mlchain.node.repair import examine, repair
from mlchain.node.wal import LastSignFile
from mlchain.p2p.memory import Hub, MemoryTransport
from mlchain.p2p.transport import PeerAddress
from mlchain.vm.initial import write_genesis


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    return make_slashed_chain(3)


def open_store(kv, chain) -> Store:
    return Store.create_or_open(
        kv, chain.genesis, lambda state: write_genesis(state, chain.genesis)
    )


def follow(store: Store, chain: GrowingChain, last: int) -> None:
    """Take blocks as block sync does."""
    follower = Chain(store, None, lambda ref, commit: True)
    for height in range(store.height + 1, last + 1):
        commit = chain.store.commit(height)
        follower.commit(commit.block_id, codec.encode(chain.store.block(height)), commit)


@pytest.fixture(scope="module")
def database(chain, tmp_path_factory):
    """A node's database with tables and a log, as after two starts."""
    path = tmp_path_factory.mktemp("whole") / "data"
    for last in (chain.store.height // 2, chain.store.height - 3, chain.store.height):
        kv = LevelKeyValue(path)
        follow(open_store(kv, chain), chain, last)
        kv.close()
    return path


@pytest.fixture
def data(database, tmp_path):
    return shutil.copytree(database, tmp_path / "data")


@contextmanager
def opened(data):
    kv = LevelKeyValue(data)
    try:
        yield kv
    finally:
        kv.close()


def only(data, pattern):
    return sorted(data.glob(pattern))


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 0x10
    file.write_bytes(content)


def rows(change):
    def damage(data):
        with opened(data) as kv:
            change(kv)

    return damage


def other_value(kv):
    key, value = next((k, v) for k, v in kv.items(b"saccount/"))
    kv.write({key: value[:-1] + bytes([value[-1] ^ 1])})


FATAL = {
    "a bit of a table": lambda data: flip(only(data, "*.ldb")[0], 900),
    "a bit of the last table": lambda data: flip(only(data, "*.ldb")[-1], 300),
    "a lost table": lambda data: only(data, "*.ldb")[0].unlink(),
    "a table cut off": lambda data: only(data, "*.ldb")[0].write_bytes(
        only(data, "*.ldb")[0].read_bytes()[:500]
    ),
    "a lost manifest": lambda data: only(data, "MANIFEST-*")[0].unlink(),
    "a lost CURRENT": lambda data: (data / "CURRENT").unlink(),
    "zeros in CURRENT": lambda data: (data / "CURRENT").write_bytes(bytes(16)),
    "all tables lost": lambda data: [file.unlink() for file in only(data, "*.ldb")],
    "a changed balance": rows(other_value),
    "a lost account": rows(lambda kv: kv.write({}, [next(kv.items(b"saccount/"))[0]])),
    "the row of the head lost": rows(lambda kv: kv.write({}, [b"head"])),
    "the genesis row spoilt": rows(lambda kv: kv.write({b"genesis": b"x"})),
}


@pytest.mark.parametrize("kind", FATAL)
def test_a_database_beyond_use_is_moved_aside_and_what_is_whole_is_replayed(
    data, chain, kind, tmp_path
):
    FATAL[kind](data)
    with pytest.raises(MlchainError):  # control: it is not used as it is
        examine(data, chain.genesis)
    with structlog.testing.capture_logs() as logs:
        assert repair(data, chain.genesis, None) == []
    assert [line["what"] for line in logs if line["event"] == "damage"]
    assert (tmp_path / "data.damaged-1").is_dir(), "nothing is deleted"
    with opened(data) as kv:
        store = open_store(kv, chain)
        check_history(store)
        assert store.head_id == chain.store.commit(store.height).block_id if store.height else True
        follow(store, chain, chain.store.height)  # the rest, as from peers
        assert store.state().root() == chain.store.state().root()
        assert dict(store.state().items()) == dict(chain.store.state().items())
    replayed = next(line["replayed_to"] for line in logs if "replayed_to" in line)
    if kind in ("a changed balance", "a lost account", "the row of the head lost"):
        assert replayed == chain.store.height, "only the state was wrong: all comes from here"


def test_a_log_cut_off_is_an_earlier_moment_and_goes_on(data, chain):
    log = max(only(data, "*.log"), key=lambda file: file.stat().st_size)
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    repair(data, chain.genesis, None)
    with opened(data) as kv:
        store = open_store(kv, chain)
        follow(store, chain, chain.store.height)
        assert store.state().root() == chain.store.state().root()


def test_a_forged_block_in_the_old_database_is_not_replayed(data, chain):
    """Whoever repairs believes certificates, not the disk."""
    with opened(data) as kv:
        block, commit = chain.store.block(5), chain.store.commit(5)
        header = replace(block.header, time_ms=block.header.time_ms + 1)
        kv.write({at(b"h", 5): codec.encode(header), b"head": codec.encode(5)})
        assert commit.block_id
    with structlog.testing.capture_logs() as logs:
        repair(data, chain.genesis, None)
    assert next(line["replayed_to"] for line in logs if "replayed_to" in line) == 4


def test_without_its_last_signature_a_validator_is_not_repaired(data, chain, tmp_path):
    FATAL["a changed balance"](data)
    place = tmp_path / "wal" / "last-sign"
    with pytest.raises(StoreCorrupted, match="may have signed"):
        repair(data, chain.genesis, place)
    assert not (tmp_path / "data.damaged-1").exists()
    LastSignFile(place).load()
    place.write_bytes(b"signed at height 12")
    repair(data, chain.genesis, place)
    assert place.read_bytes() == b"signed at height 12"


def test_a_whole_database_is_left_as_it_is(data, chain):
    before = examine(data, chain.genesis)
    assert before == repair(data, chain.genesis, None) == []
    assert not list(data.parent.glob("*.damaged-*"))


# ---- single blocks, while the node runs


def damage_rows(kv, height, letters):
    other = {letter: kv.get(at(letter, height + 1)) for letter in letters}
    kv.write({at(letter, height): value for letter, value in other.items() if value})


BLOCK_DAMAGE = {
    "a header": lambda kv, chain: damage_rows(kv, 4, [b"h"]),
    "a body": lambda kv, chain: damage_rows(kv, 4, [b"b"]),
    "a certificate": lambda kv, chain: damage_rows(kv, 4, [b"c"]),
    "receipts": lambda kv, chain: damage_rows(kv, 1, [b"r"]),
    "everything of three blocks": lambda kv, chain: kv.write(
        {}, [at(letter, h) for letter in (b"h", b"b", b"c", b"r") for h in (3, 4, 5)]
    ),
    "block 0": lambda kv, chain: kv.write({}, [at(b"h", 0), at(b"b", 0)]),
    "who votes first": lambda kv, chain: kv.write({}, [at(b"v", 0)]),
    "who votes after a change": lambda kv, chain: kv.write(
        {}, [at(b"v", chain.store.set_changes[1])]
    ),
    "a spoilt set": lambda kv, chain: kv.write({at(b"v", 0): b"x"}),
    "places of transactions": lambda kv, chain: kv.write({}, [k for k, _ in kv.items(b"t")]),
}


def heal(kv: MemoryKeyValue, chain: GrowingChain, spoil=lambda data: data) -> tuple[Store, int]:
    """Run a node's mender once beside a peer that has the whole chain."""
    keys = {name: make_key(name + "/peer").public for name in ("hurt", "whole")}
    address = PeerAddress("127.0.0.1", 1, "observer", "whole")
    hub = Hub()
    hurt = MemoryTransport(hub, keys["hurt"], {keys["whole"]: address}, "observer")
    whole = MemoryTransport(hub, keys["whole"], {keys["hurt"]: address}, "observer")
    peer = Mender(chain.store, whole)

    async def serve(who, payload):
        return spoil(await peer._serve(who, payload))

    whole.serve(mend.WHOLE_PROTOCOL, serve)
    store = Store.create_or_open(kv, chain.genesis, lambda state: None)
    mender = Mender(store, hurt)

    async def main() -> int:
        async with AsyncExitStack() as stack:
            for transport in (whole, hurt):
                await stack.enter_async_context(transport.run())
            with trio.fail_after(30):
                while not any(status.connected for status in hurt.peers()):
                    await trio.sleep(0.01)
                return await mender.look()

    return store, trio.run(main)


@pytest.fixture
def copy(chain):
    kv = MemoryKeyValue()
    follow(open_store(kv, chain), chain, chain.store.height)
    return kv


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(mend, "PAUSE_S", 0.0)


@pytest.mark.parametrize("kind", BLOCK_DAMAGE)
def test_damaged_blocks_are_named_and_fetched_from_peers(copy, chain, kind):
    store = Store.create_or_open(copy, chain.genesis, lambda state: None)
    whole = dict(copy.items())
    BLOCK_DAMAGE[kind](copy, chain)
    try:
        Store.create_or_open(copy, chain.genesis, lambda state: None)
    except StoreCorrupted:
        assert kind in ("who votes first", "who votes after a change", "a spoilt set", "block 0")
        return  # at the head itself: this is for `--repair`
    assert any(find_damage(store, 0, store.height))
    with structlog.testing.capture_logs() as logs:
        healed, left = heal(copy, chain)
    assert left == 0 and not any(find_damage(healed, 0, healed.height))
    assert dict(copy.items()) == whole
    assert [line for line in logs if line["event"] == "block-damaged"]


def forge_body(data: bytes) -> bytes:
    whole = codec.decode(WholeBlock, data, 1 << 24)
    return codec.encode(replace(whole, body=replace(whole.body, evidence=(b"forged",))))


def forge_receipts(data: bytes) -> bytes:
    whole = codec.decode(WholeBlock, data, 1 << 24)
    return codec.encode(replace(whole, receipts=()))


def forge_signatures(data: bytes) -> bytes:
    whole = codec.decode(WholeBlock, data, 1 << 24)
    header = replace(whole.light.header, gas_used=7)
    return codec.encode(replace(whole, light=replace(whole.light, header=header)))


@pytest.mark.parametrize("lie", [forge_body, forge_receipts, forge_signatures, lambda data: b"x"])
def test_what_a_peer_serves_instead_of_a_damaged_block_is_judged(copy, chain, lie):
    damage_rows(copy, 1, [b"b", b"r"])
    before = dict(copy.items())
    _, left = heal(copy, chain, lie)
    assert left == 1 and dict(copy.items()) == before
    _, left = heal(copy, chain)  # control: the same peer, honest
    assert left == 0
