"""Row 23: what was signed or computed for one chain or height is used for another."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from vm.world import World, make_genesis

from mlchain.consensus.evidence import verify_evidence
from mlchain.consensus.work.commitment import chunk_leaf
from mlchain.crypto import digest
from mlchain.errors import InvalidBlock, InvalidEvidence, InvalidSignature
from mlchain.ledger.block import Block, body_root
from mlchain.ledger.commit import make_commit
from mlchain.vm.execute import check_block
from mlchain.vm.families.accounts import Transfer, get_account
from mlchain.vm.families.members import get_validator_set

BOB = b"b" * 32


def pair(other: str = "test-other") -> tuple[World, World]:
    """Two chains of the same members, keys and money."""
    worlds = World(), World(genesis=make_genesis(chain_id=other))
    for world in worlds:
        world.blocks(2)
    return worlds


def test_a_transaction_of_one_chain_is_none_on_another():
    here, there = pair()
    sent = here.transaction("alice", Transfer(BOB, 5))
    here.block(sent)
    with pytest.raises(InvalidBlock, match="signed for chain 'test-world'"):
        there.compose(sent)


def test_nor_is_it_one_twice_on_the_same_chain():
    here, _ = pair()
    sent = here.transaction("alice", Transfer(BOB, 5))
    here.block(sent)
    with pytest.raises(InvalidBlock, match="was used"):
        here.compose(sent)


def test_control_where_both_chains_have_one_name_the_payment_is_made_twice():
    here, twin = pair(other="test-world")
    sent = here.transaction("alice", Transfer(BOB, 5))
    here.block(sent)
    twin.block(sent)
    assert get_account(twin.state(), BOB).balance == 5


def grafted(here: World, there: World) -> Block:
    """A block of `there` that carries signatures made on `here`, over the same block id."""
    votes = here.last_commit.signatures
    block, _, _ = there.compose()
    own = there.last_commit
    stolen = replace(own, signatures=tuple(votes[: len(own.signatures)]))
    body = replace(block.body, last_commit=stolen)
    return Block(replace(block.header, body_root=body_root(body)), body)


def precommits(world: World, block_id: bytes) -> World:
    """Let everybody precommit `block_id` at the head's height on this chain."""
    votes = [world.precommit(name, world.height, block_id) for name in world.validators]
    world.last_commit = make_commit(votes)
    return world


@pytest.mark.parametrize("other, is_valid", [("test-other", False), ("test-world", True)])
def test_votes_of_one_chain_certify_nothing_on_another(other, is_valid):
    """The control: the same name, and the same votes do."""
    here, there = pair(other)
    block = grafted(precommits(here, there.store.head_id), there)
    arguments = (there.store.head, there.store.head_id, there.state(), there.genesis, block)
    if is_valid:
        check_block(*arguments)
    else:
        with pytest.raises(InvalidSignature):
            check_block(*arguments)


def test_votes_of_another_height_certify_nothing():
    here, _ = pair()
    older = [here.precommit(name, here.height - 1, here.store.head_id) for name in here.validators]
    stale = replace(make_commit(older), height=here.height)
    block, _, _ = here.compose()
    body = replace(block.body, last_commit=stale)
    with pytest.raises(InvalidSignature):
        here.check(Block(replace(block.header, body_root=body_root(body)), body))


@pytest.mark.parametrize("other, is_valid", [("test-other", False), ("test-world", True)])
def test_evidence_of_one_chain_convicts_nobody_on_another(other, is_valid):
    """The control: the same name, and it does."""
    here, there = pair(other)
    evidence = here.double_vote("validator-0")
    verify_evidence(evidence, here.genesis.chain_id, get_validator_set(here.state()))
    arguments = evidence, there.genesis.chain_id, get_validator_set(there.state())
    if is_valid:
        verify_evidence(*arguments)
    else:
        with pytest.raises(InvalidEvidence):
            verify_evidence(*arguments)


def test_a_leaf_is_of_one_chain_job_segment_attempt_worker_and_chunk():
    place = ("test-world", digest("job"), 1, 2, digest("worker"), 3, digest("state"))
    moves = ("test-other", digest("x"), 9, 9, digest("x"), 9)
    leaves = {chunk_leaf(*place)}
    for part, other in enumerate(moves):
        leaves.add(chunk_leaf(*place[:part], other, *place[part + 1 :]))
    assert len(leaves) == 1 + len(moves)


def test_a_ticket_is_of_one_height_and_of_one_chain():
    here, there = pair()
    job = here.running()
    here.commit(job)
    height = here.segment(job).commit_height
    for ticket in (here.ticket("validator-0", height + 1), there.ticket("validator-0", height)):
        mine = here.attestation("validator-0", job, ticket=ticket)
        here.say("validator-0", "attestations", mine)
        here.blocks(2)
    assert not here.segment(job).attestations
    here.attest(job, names=("validator-0",))
    assert here.segment(job).attestations


def test_an_attestation_is_of_one_attempt():
    """The same worker, segment and states again: another commit, another id, nothing carries."""
    world = World(workers=1)
    job = world.running()
    world.commit(job)
    old = world.attestation("validator-0", job)
    world.blocks(21)
    world.commit(job)
    assert world.segment(job).attempt == 1
    world.say("validator-0", "attestations", old)
    world.blocks(2)
    assert not world.segment(job).attestations
