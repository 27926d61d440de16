"""Headers tell the truth, certificates are checked, an honest proposer builds valid blocks."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace
from vm.world import JOB, PARAMS, SUPPLY, World, make_genesis

from mlchain.consensus.work.dispute import ClaimKind
from mlchain.crypto import digest
from mlchain.errors import InvalidBlock, MlchainError
from mlchain.ledger.block import Block, Body, Header, body_root, header_id
from mlchain.ledger.commit import Commit, make_commit
from mlchain.ledger.transaction import transaction_id
from mlchain.vm.execute import propose_block
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.jobs import JobState

BOB = b"b" * 32


@pytest.fixture
def world() -> World:
    made = World()
    made.blocks(2)
    return made


def refused(world: World, block: Block) -> str:
    with pytest.raises(MlchainError) as caught:
        world.check(block)
    return f"{type(caught.value).__name__}: {caught.value.message}"


# ---- headers

FLIPS = {
    "protocol_version": lambda old: old + 1,
    "chain_id": lambda old: "test-other",
    "height": lambda old: old + 1,
    "time_ms": lambda old: 1,
    "parent": lambda old: digest("test-other"),
    "proposer": lambda old: BOB,
    "validators_hash": lambda old: digest("test-other"),
    "next_validators_hash": lambda old: digest("test-other"),
    "body_root": lambda old: digest("test-other"),
    "state_root": lambda old: digest("test-other"),
    "receipts_root": lambda old: digest("test-other"),
    "gas_used": lambda old: old + 1,
}


def test_every_field_of_a_header_has_its_test():
    assert list(FLIPS) == list(Header.__struct_fields__)


@pytest.mark.parametrize("field", FLIPS)
def test_a_header_is_refused_by_name_when_one_field_is_wrong(world, field):
    block, _, _ = world.compose(world.transaction("alice", Transfer(BOB, 1), gas_price=1))
    world.check(block)
    wrong = FLIPS[field](getattr(block.header, field))
    lie = replace(block, header=replace(block.header, **{field: wrong}))
    message = refused(world, lie)
    assert message.startswith("InvalidBlock: ") and field in message


@pytest.mark.parametrize("height", [0, 2, 4, 2**63 - 1])
def test_only_the_next_height_follows(world, height):
    block, _, _ = world.compose()
    assert block.header.height == 3
    assert "height" in refused(world, replace(block, header=replace(block.header, height=height)))


def test_time_advances_by_at_least_a_millisecond(world):
    at = world.store.head.time_ms
    world.check(world.compose(after_ms=1)[0])
    for time_ms in (at, at - 1, 0):
        block, _, _ = world.compose()
        lie = replace(block, header=replace(block.header, time_ms=time_ms))
        assert "time_ms" in refused(world, lie)


def test_another_validator_cannot_take_the_credit(world):
    """The fees went to the proposer that executed the block: the state root knows."""
    block, _, _ = world.compose(world.transaction("alice", Transfer(BOB, 1), gas_price=1))
    thief = replace(block.header, proposer=world.key("validator-3").public)
    if thief == block.header:
        thief = replace(block.header, proposer=world.key("validator-2").public)
    assert "state_root" in refused(world, replace(block, header=thief))


def test_a_removed_validator_proposes_no_more(world):
    world.block(evidence=(world.double_vote("validator-0"),), proposer="validator-1")
    block, _, _ = world.compose(proposer="validator-0")
    assert "proposer is not a validator" in refused(world, block)


def test_the_set_that_votes_next_stands_in_the_header(world):
    before = world.store.head.next_validators_hash
    world.block(evidence=(world.double_vote("validator-0"),), proposer="validator-1")
    removing = world.store.head
    assert removing.validators_hash == before != removing.next_validators_hash
    world.block()
    assert world.store.head.validators_hash == removing.next_validators_hash


def test_a_body_is_bound_to_its_header(world):
    block, _, _ = world.compose()
    other, _, _ = world.compose(world.transaction("alice", Transfer(BOB, 1)))
    assert "body_root" in refused(world, replace(block, body=other.body))
    swapped = replace(block.header, body_root=body_root(other.body))
    assert refused(world, Block(swapped, other.body)).startswith("InvalidBlock: ")


def test_checking_changes_nothing(world):
    block, _, _ = world.compose(world.transaction("alice", Transfer(BOB, 1)))
    root = world.state().root()
    assert world.check(block) == world.check(block)
    assert world.state().root() == root


# ---- the certificate of the parent


def with_commit(world: World, commit: Commit | None) -> str:
    """Why a block that carries `commit` for its parent is refused."""
    block, _, _ = world.compose()
    body = replace(block.body, last_commit=commit)
    return refused(world, Block(replace(block.header, body_root=body_root(body)), body))


def test_the_first_block_has_no_certificate_and_every_later_one_does(world):
    assert "missing" in with_commit(world, None)
    fresh = World()
    assert "genesis has no commit" in with_commit(fresh, world.last_commit)


def certificate(world: World, *names: str, block_id: bytes = b"", height: int = 0) -> Commit:
    height = height or world.height
    votes = [world.precommit(n, height, block_id or world.store.head_id) for n in names]
    return make_commit(votes)


def test_a_certificate_is_of_the_parent(world):
    names = world.validators
    other = certificate(world, *names, block_id=digest("test-other"))
    assert "commit is for" in with_commit(world, other)
    older = certificate(world, *names, height=world.height - 1)
    assert "commit is for" in with_commit(world, older)


def test_a_certificate_needs_a_quorum(world):
    assert "weight 2, a quorum is 3" in with_commit(
        world, certificate(world, *world.validators[:2])
    )
    stranger = certificate(world, *world.validators[:3])
    foreign = replace(stranger.signatures[0], validator=bytes(32))
    fake = replace(stranger, signatures=(foreign, *stranger.signatures[1:]))
    assert "weight 2" in with_commit(world, fake)


def test_a_certificate_is_in_key_order_and_nobody_signs_twice(world):
    commit = certificate(world, *world.validators)
    turned = replace(commit, signatures=commit.signatures[::-1])
    assert "key order" in with_commit(world, turned)
    twice = replace(commit, signatures=(commit.signatures[0],) * 3)
    assert "key order" in with_commit(world, twice)


@pytest.mark.parametrize("field", ["signature", "extension"])
def test_every_signature_of_a_certificate_holds_and_covers_its_extension(world, field):
    commit = certificate(world, *world.validators)
    first, *rest = commit.signatures
    spoiled = replace(first, **{field: bytes(64)})
    message = with_commit(world, replace(commit, signatures=(spoiled, *rest)))
    assert message.startswith("InvalidSignature")


def test_after_a_removal_the_certificate_is_that_of_the_old_set(world):
    """The one that was removed still voted on the block that removed it."""
    world.absent = ("validator-2",)
    world.block(evidence=(world.double_vote("validator-0"),), proposer="validator-1")
    signers = [world.names[s.validator] for s in world.last_commit.signatures]
    assert sorted(signers) == ["validator-0", "validator-1", "validator-3"]
    world.absent = ()
    world.blocks(2)


# ---- what an honest proposer builds


def select(
    world: World,
    transactions: list[bytes],
    evidence: tuple[bytes, ...] = (),
    is_wanted=lambda ref, segment: True,
    proposer: str = "validator-1",
) -> Body:
    """Choose, and see that the block of what was chosen is valid and executes alike."""
    parent, parent_id, genesis = world.store.head, world.store.head_id, world.genesis
    key, time_ms = world.key(proposer).public, parent.time_ms + 1000
    block, outcome = propose_block(
        parent, parent_id, world.state(), genesis, world.last_commit, evidence, transactions, key,
        time_ms, is_wanted,
    )  # fmt: skip
    assert world.check(block) == outcome
    return block.body


def test_what_may_not_be_included_is_left_out(world):
    good = [world.transaction("alice", Transfer(BOB, 1), ahead=i) for i in range(2)]
    bad = [
        b"junk",
        world.transaction("alice", Transfer(BOB, 1), nonce=9),
        world.transaction("alice", Transfer(BOB, 1), chain_id="test-other"),
        world.transaction("alice", Transfer(BOB, 1), gas_price=SUPPLY),
        world.transaction("alice", Transfer(BOB, 1), kind=999),
    ]
    mixed = [bad[0], good[0], *bad[1:], good[0], good[1]]
    assert select(world, mixed).transactions == tuple(good)


def test_what_fails_but_pays_is_kept(world):
    failing = world.transaction("alice", Transfer(BOB, SUPPLY + 1))
    assert select(world, [failing]).transactions == (failing,)


def test_gas_that_does_not_fit_waits_and_the_rest_goes_on(world):
    used = world.do("alice", Transfer(BOB, 1)).gas_used
    params = replace(PARAMS, max_block_gas=used * 5 // 4)
    small = World(genesis=make_genesis(params=params))
    small.block()
    big = small.transaction("alice", JOB)
    cheap = [small.transaction(f"validator-{i}", Transfer(BOB, 1)) for i in range(4)]
    body = select(small, [big, *cheap])
    assert body.transactions == tuple(cheap[:1])


def test_evidence_that_proves_nothing_new_is_left_out(world):
    one = world.double_vote("validator-0")
    again = world.double_vote("validator-0", height=1)
    assert select(world, [], (b"junk", one, again)).evidence == (one,)


def test_a_transaction_of_someone_whom_the_same_block_removes_is_left_out(world):
    job = world.running()
    world.commit(job)
    claim = world.transaction("validator-0", world.claim("validator-0", job, 3))
    body = select(world, [claim], (world.double_vote("validator-0"),))
    assert body.transactions == () and len(body.evidence) == 1


def test_every_segment_that_can_be_hard_and_is_wanted_is_finalised(world):
    job = world.running()
    world.commit(job)
    world.attest(job)
    assert select(world, []).finalise == (world.ref(job),)
    assert select(world, [], is_wanted=lambda ref, segment: False).finalise == ()
    claim = world.transaction("validator-0", world.claim("validator-0", job, 3))
    assert select(world, [claim]).finalise == (), "the claim comes first"


def test_attestations_in_the_certificate_at_hand_count_for_the_block(world):
    job = world.running()
    world.commit(job)
    world.blocks(3)
    for name in world.validators:
        world.say(name, "attestations", world.attestation(name, job))
    world.block()
    assert select(world, []).finalise == (world.ref(job),)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_waits_the_block_is_valid(seed):
    """Random mixtures of good, stale, twisted and repeated things over a job in flight."""
    rng = random.Random(seed)
    world = World(workers=2)
    job = world.running(steps=400)
    world.commit(job)
    world.attest(job, names=tuple(world.validators[: rng.randrange(1, 5)]))
    world.blocks(rng.randrange(3))
    for _ in range(6):
        waiting = []
        for ahead in range(rng.randrange(1, 5)):
            waiting.append(world.transaction("alice", Transfer(BOB, ahead), ahead=ahead))
        if world.segment(job).commit:
            kind = rng.choice(list(ClaimKind))
            accuser = rng.choice(world.validators)
            claim = world.claim(accuser, job, rng.randrange(300), kind)
            waiting.append(world.transaction(accuser, claim))
        waiting += rng.choices(waiting, k=2)
        waiting.append(rng.randbytes(rng.randrange(300)))
        victim = bytearray(rng.choice(waiting))
        if victim:
            victim[rng.randrange(len(victim))] ^= 1 << rng.randrange(8)
        waiting.append(bytes(victim))
        rng.shuffle(waiting)
        evidence = (world.double_vote(rng.choice(world.validators)),) * rng.randrange(3)
        evidence = evidence if rng.random() < 0.2 else ()
        proposer = rng.choice(world.validators)
        body = select(world, waiting, evidence, proposer=proposer)
        world.block(
            *body.transactions, finalise=body.finalise, evidence=body.evidence, proposer=proposer
        )
        if world.job(job).state != JobState.RUNNING:
            break
    assert len({transaction_id(t) for t in body.transactions}) == len(body.transactions)
    assert world.store.head_id == header_id(world.store.head)


def test_an_invalid_body_cannot_be_built(world):
    with pytest.raises(InvalidBlock):
        world.compose(b"junk")
