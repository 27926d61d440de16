"""Hash chains are finite, and walking along them is paid for."""

from __future__ import annotations

from msgspec.structs import replace
from vm.world import CONTENT, FEATURES, JOB, PARAMS, ROWS, World

from mlchain.consensus.work.dispute import ClaimKind
from mlchain.vm.families.data import RegisterData
from mlchain.vm.families.jobs import DRAW_GAS, LIST_GAS
from mlchain.vm.families.segments import HASH_GAS, NO_TICKET

IDLE = 100


def gas_of_claim(kind: ClaimKind, **changes: bytes) -> tuple[int, int, int]:
    """Return (gas of a claim after idle blocks, elements that its ticket spans, chunks drawn)."""
    world = World()
    world.blocks(IDLE)
    job = world.running()
    world.commit(job)
    name = world.validators[0]
    drawn = world.slice_of(name, job)
    claim = replace(world.claim(name, job, drawn[0], kind), **changes)
    receipt = world.do(name, claim)
    assert receipt.code == "ok"
    return receipt.gas_used, world.segment(job, 0).commit_height, len(drawn)


def test_a_claim_that_shows_a_ticket_pays_for_every_hash_and_every_chunk_of_checking_it():
    plain, span, drawn = gas_of_claim(ClaimKind.FRAUD, ticket=NO_TICKET)
    assert span > IDLE and drawn
    for kind in ClaimKind:
        shown, _, _ = gas_of_claim(kind)
        assert shown - plain == HASH_GAS * span + (DRAW_GAS + LIST_GAS) * drawn


def test_no_job_is_taken_when_the_tickets_are_used_up():
    world = World()
    assert world.do("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES)).code == "ok"
    world.blocks(PARAMS.ticket_heights - world.store.height - 1)
    assert "used up" in world.do("alice", JOB).message


def test_the_block_before_a_job_is_still_taken():
    world = World()
    assert world.do("alice", RegisterData(CONTENT, 9_999, ROWS, FEATURES)).code == "ok"
    world.blocks(PARAMS.ticket_heights - world.store.height - 2)
    assert world.do("alice", JOB).code == "ok"
