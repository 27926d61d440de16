"""Behind the decoders: values that are well-formed and wrong, executed for what they are."""

import random

import pytest
from factories import make_chain
from msgspec.structs import replace
from spoil import flip, spoilt
from targets import targets, world

from mlchain import codec
from mlchain.client.receipt import verify_receipt
from mlchain.consensus.actions import Verdict
from mlchain.errors import MlchainError, Trap
from mlchain.ledger.block import Body, body_root, header_id
from mlchain.ml_runtime import Dataset, State, Task, Trainer, check_plan, decode_plan
from mlchain.node.chain import Chain
from mlchain.vm.receipt import MAX_RECEIPT_BYTES, Receipt

MAX_ARENA_BYTES = 16 << 20
MAX_GAS = 10**8


def spoil_plans(seed: int, count: int) -> tuple[int, int]:
    """Run every spoilt program that is admitted; return how many were, and how many ran."""
    chain = world()
    job = chain.job(chain.job_id)
    data = chain.content.get(job.dataset)
    dataset, samples = Dataset.decode(data), targets()["plan"].samples
    admitted = ran = 0
    for spoilt_plan in spoilt(seed, samples, count):
        try:
            cost = check_plan(decode_plan(spoilt_plan))
        except MlchainError:
            continue
        admitted += 1
        if cost.arena_bytes > MAX_ARENA_BYTES or cost.gas_per_step > MAX_GAS:
            continue
        try:
            trainer = Trainer(Task(spoilt_plan, 2, 2, 45, 15), dataset, bytes(32))
            state = trainer.run_chunk(0, trainer.initial_state())
            assert State.decode(state.encode(), trainer.plan).digest() == state.digest()
            trainer.evaluate(state)
        except (Trap, MlchainError):
            continue
        ran += 1
    return admitted, ran


def test_a_spoilt_program_is_refused_or_runs_or_traps():
    admitted, ran = spoil_plans(3, 2000)
    assert admitted and ran, "some are harmless: a changed rate, another seed"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 210))
def test_spoilt_programs_for_long(seed):
    spoil_plans(seed, 20_000)


def busy_chain():
    """A chain with a job, and the block that comes next."""
    chain = make_chain(4, 1)
    job_id = chain.submit()
    chain.start(job_id)
    chain.commit_segment(job_id)
    for key in chain.chain.validators.keys:
        chain.attest(key, job_id, 0)
    chain.grow(1)
    block, _ = chain.chain.build(chain.store.head.time_ms + 1000, chain.last_commit)
    return chain, block


def spoil_blocks(seed: int, count: int) -> int:
    """Execute blocks whose parts are spoilt and whose header says so; return how many held."""
    chain, block = busy_chain()
    node = Chain(chain.store, None, lambda ref, commit: True)
    now, draw, held = block.header.time_ms, random.Random(seed), 0
    whole = codec.encode(block.body)
    for data in spoilt(seed, [whole], count):
        data = flip(draw, whole) if draw.random() < 0.7 else data
        try:
            body = codec.decode(Body, data)
        except MlchainError:
            continue
        header = replace(block.header, body_root=body_root(body))
        for field in draw.sample(header.__struct_fields__, draw.choice([0, 0, 1])):
            value = getattr(header, field)
            if isinstance(value, int):
                header = replace(header, **{field: draw.choice([0, value + 1, 2**53, 2**63 - 1])})
        spoilt_block = replace(block, header=header, body=body)
        verdict, reason = node.check(header_id(header), codec.encode(spoilt_block), now)
        assert verdict is Verdict.VALID or reason
        held += verdict is Verdict.VALID
    return held


def test_a_spoilt_block_is_refused_in_words_and_the_true_one_is_not():
    chain, block = busy_chain()
    node = Chain(chain.store, None, lambda ref, commit: True)
    good = node.check(header_id(block.header), codec.encode(block), block.header.time_ms)
    assert good == (Verdict.VALID, "")
    assert spoil_blocks(4, 400) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300, 310))
def test_spoilt_blocks_for_long(seed):
    spoil_blocks(seed, 10_000)


def spoil_receipts(seed: int, count: int) -> None:
    chain, samples = world(), targets()["receipt"].samples[1:]
    for data in spoilt(seed, samples, count):
        try:
            receipt = codec.decode(Receipt, data, MAX_RECEIPT_BYTES)
            report = verify_receipt(receipt, chain.genesis, slices=1, seed="s")
        except MlchainError:
            continue
        assert data in samples or report.failed, "a changed receipt proves something"


def test_a_spoilt_receipt_never_passes():
    spoil_receipts(5, 400)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400, 405))
def test_spoilt_receipts_for_long(seed):
    spoil_receipts(seed, 4_000)
