"""A node that began at a block its operator trusts says what it knows of the sets, and no more."""

from __future__ import annotations

import pytest
import structlog
from factories import GrowingChain, make_slashed_chain
from msgspec.structs import replace
from node.snapshot_world import ROLES, World

from mlchain import codec
from mlchain.consensus import light
from mlchain.consensus.light import LightBlock, LightPath, LightQuestion, make_path, trust_block
from mlchain.errors import InvalidSignature, NotFound, Pruned
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import verify_commit
from mlchain.ledger.rows import at, voting_row
from mlchain.ledger.store import Store
from mlchain.node import catchup, statesync
from mlchain.node.snapshots import LIGHT_PROTOCOL
from mlchain.vm.initial import trust_genesis
from mlchain.vm.receipt import set_changes

FAR = 2**62


@pytest.fixture(scope="module")
def chain() -> GrowingChain:
    """A validator is slashed out of the set in one block, and five more follow."""
    return make_slashed_chain(5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(catchup, "AUTO_PATIENCE_S", 0.1)


@pytest.fixture(scope="module")
def change(chain) -> int:
    return chain.store.set_changes[1]


def start_at(chain, folder, height: int) -> World:
    world = World(chain, folder)
    assert world.start(trust=(height, header_id(chain.store.header(height))))
    return world


@pytest.fixture(scope="module")
def late(chain, change, tmp_path_factory) -> World:
    """A node that began two blocks after the change."""
    return start_at(chain, tmp_path_factory.mktemp("late"), change + 2)


def answers(store: Store):
    for after in [*range(store.height), FAR]:
        for height in range(store.height + 1):
            try:
                for block in make_path(store, LightQuestion(after, height)).blocks:
                    statesync.require_milestone(block, height or store.height)
                    yield block
            except NotFound:
                continue


def test_every_light_block_it_serves_has_the_sets_of_its_header(chain, change, tmp_path):
    for height in (change, change + 1):
        world = start_at(chain, tmp_path / str(height), height)
        store = world.open()
        for block in answers(store):
            light.check_sets(block, chain.genesis.chain_id)
        wanted = chain.store.header(height)
        block = make_path(store, LightQuestion(FAR, height)).blocks[-1]
        trusted = trust_block(block, height, header_id(wanted), chain.genesis.chain_id)
        path = make_path(store, LightQuestion(height, store.height))
        assert light.follow(trusted, path, chain.genesis.chain_id).id == chain.store.head_id


def test_of_who_voted_before_it_says_that_it_does_not_know(late, change):
    store, first = late.open(), change + 2
    assert store.set_changes == (first - 1,)
    for height in (0, change, first - 2):
        with pytest.raises(Pruned, match=f"known here from block {first} on"):
            store.validators_after(height)
    for question in (LightQuestion(0, store.height), LightQuestion(change, store.height)):
        with pytest.raises(Pruned):
            make_path(store, question)
    with pytest.raises(Pruned):
        set_changes(store, store.height)  # a receipt would lack the change


def test_where_the_sets_are_those_of_the_genesis_it_leads_from_there(chain, change, tmp_path):
    store = start_at(chain, tmp_path, change - 1).open()
    assert store.set_changes == chain.store.set_changes
    path = make_path(store, LightQuestion(0, store.height))
    trusted = light.follow(trust_genesis(chain.genesis), path, chain.genesis.chain_id)
    assert trusted.id == chain.store.head_id


def test_a_new_node_that_asks_it_names_no_liar(chain, late, tmp_path):
    assert liars(chain, late.open(), tmp_path) == set()


def test_control_with_the_set_of_the_genesis_for_its_own_an_honest_node_is_named(
    chain, late, change, tmp_path
):
    began = change + 2
    late.kv.write({**voting_row(0, chain.genesis.validators()), **voting_row(
        began, chain.store.validators_after(began)
    )}, [at(b"v", began - 1)])  # fmt: skip
    assert liars(chain, late.open(), tmp_path) == {ROLES["a"].hex()[:8]}


def liars(chain, store: Store, folder) -> set[str]:
    """Let a new node ask one that serves `store`; return whom it calls a liar."""
    world = World(chain, folder)
    world.names, world.stores = ["a"], {"a": store}
    with structlog.testing.capture_logs() as logs:
        world.start(is_needed=False)
    return {line["peer"] for line in logs if line["event"] == "lying-peer"}


def test_starting_again_from_the_genesis_file_it_knows_every_change(late, chain, tmp_path):
    again = World(chain, tmp_path)
    again.kv = late.kv
    chain.grow(1)
    assert again.start()
    assert again.open().set_changes == chain.store.set_changes


# ---- the certificate of the trusted block


def unsigned(chain, height: int):
    """Serve the trusted block with a certificate that nobody signed."""

    async def serve(peer: bytes, payload: bytes) -> bytes:
        path = make_path(chain.store, codec.decode(LightQuestion, payload))
        blocks = tuple(
            spoil(block) if block.header.height == height else block for block in path.blocks
        )
        return codec.encode(LightPath(blocks))

    return serve


def spoil(block: LightBlock) -> LightBlock:
    votes = tuple(replace(vote, signature=bytes(64)) for vote in block.commit.signatures)
    return replace(block, commit=replace(block.commit, signatures=votes))


def begin_at_the_head(chain, folder) -> World:
    """Begin at the last block, from a node that gives a false certificate for it."""
    height = chain.store.height
    world = World(chain, folder)
    world.names, world.handlers = ["a"], {"a": {LIGHT_PROTOCOL: unsigned(chain, height)}}
    world.start(is_needed=False, trust=(height, header_id(chain.store.head)))
    return world


def test_a_trusted_block_with_a_false_certificate_is_not_kept(chain, tmp_path):
    assert dict(begin_at_the_head(chain, tmp_path).kv.items()) == {}


def test_control_without_that_check_the_node_keeps_the_false_certificate(
    chain, tmp_path, monkeypatch
):
    def trusting(block, height, block_id, chain_id):
        return light.check_sets(block, chain_id)

    monkeypatch.setattr(statesync, "trust_block", trusting)
    store = begin_at_the_head(chain, tmp_path).open()
    voters = store.validators_after(store.height - 1)
    with pytest.raises(InvalidSignature):
        verify_commit(store.commit(store.height), "test-1", voters, store.height, store.head_id)
