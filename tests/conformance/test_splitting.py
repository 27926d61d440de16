"""A step split over any number of shards gives the bits of the unsplit step, for every model."""

from __future__ import annotations

import numpy as np
import pytest
from ml_factory import SEED, make_dataset, make_program, make_task, observe
from ml_models import data_for, task_for

from mlchain.errors import CodecError, ConfigError, RejectedProgram, Trap
from mlchain.ml_runtime import NumpyBackend, Oracle, ShardedBackend, Trainer, grid, make_plan, run
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.machine import execute
from mlchain.ml_runtime.models import MODELS
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.optim import OPTIMISERS
from mlchain.ml_runtime.program import Node, Program, check
from mlchain.ml_runtime.shard import Meeting, Shard, resume
from mlchain.ml_runtime.sharded import rows_of
from mlchain.ml_runtime.split import split
from mlchain.ml_runtime.tensor import finite, stored
from mlchain.ml_runtime.tensor import grid as grid_type

CASES = [(name, target) for name, module in MODELS.items() for target in module.TARGETS]
every_model = pytest.mark.parametrize(("model", "target"), CASES)


def chain_of(task, data, backend=None) -> list[bytes]:
    digests: list[bytes] = []
    run(task, data, SEED, lambda _, state: digests.append(state.digest()), backend)
    return digests


@every_model
@pytest.mark.parametrize("batch", [1, 2, 5, 11])
def test_every_model_trains_to_the_bits_of_the_unsplit_step(model, target, batch):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=3, chunk=1, batch=batch)
    whole = chain_of(task, data)
    for shards in (s for s in (1, 2, 3, 5) if s <= batch):
        assert chain_of(task, data, ShardedBackend(shards)) == whole, f"{shards} shards"


@every_model
def test_every_model_split_trains_to_the_oracle_s_bits(model, target):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=2, chunk=1, batch=7)
    assert chain_of(task, data, ShardedBackend(3)) == chain_of(task, data, Oracle())


@every_model
def test_every_model_split_is_worth_the_same(model, target):
    data = data_for(target, model=model)
    task = task_for(data, model, target, steps=4, chunk=4)
    whole, parts = (Trainer(task, data, SEED, b) for b in (None, ShardedBackend(3)))
    state = whole.run_chunk(0, whole.initial_state())
    assert parts.evaluate(state) == whole.evaluate(state)
    assert parts.model(state) == whole.model(state)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_update_runs_once_and_keeps_its_moments_to_itself(optimiser):
    plan = make_plan("mlp", features=4, classes=3, batch=6, optimiser=optimiser)
    parts = split(check(plan.step), 2)
    names = {step.op.name for segment in parts.segments for step in segment}
    assert not names & {*OPTIMISERS, "adam_powers"}
    parameters = len(plan.predict.inputs) - 1
    assert parts.inputs == tuple(range(2 + parameters))


def without(program: Program, drop: int) -> Program:
    """The program without one node and whatever reads what it fills; the results are the last."""
    number: dict[int, int] = {i: i for i in range(len(program.inputs))}
    filled, nodes = len(program.inputs), []
    for i, (node, step) in enumerate(zip(program.nodes, check(program).steps, strict=True)):
        if i != drop and all(r in number for r in node.inputs):
            nodes.append(Node(node.op, tuple(number[r] for r in node.inputs), node.attributes))
            number.update(zip(step.outputs, range(filled, filled + len(step.outputs)), strict=True))
            filled += len(step.outputs)
    return Program(program.inputs, tuple(nodes), tuple(range(max(filled - 6, 0), filled)))


def split_what_can_be(program: Program, shards: int, seen: set[str]) -> Program:
    """The program without the ops that are refused; `seen` gets the ops that met rows."""
    while True:
        try:
            plan = split(check(program), shards)
        except RejectedProgram as error:
            _, at, name, *_ = error.message.replace("(", "").replace(")", "").split(" ")
            seen.add(name.rstrip(":"))
            program = without(program, int(at))
        else:
            met = (s for s in plan.checked.steps if plan.parts.intersection(s.inputs))
            seen.update(s.op.name for s in met)
            return program


READS_NO_ROWS = {"widen", "adam_powers"} | {name for name, op in OPS.items() if not op.arity}


def test_random_programs_give_the_digests_of_the_whole_after_every_op_and_in_the_end():
    """And every op meets rows in some of them, so a rule that nobody examined is found."""
    seen = set(READS_NO_ROWS)
    for seed in range(400):
        missing = sorted(set(OPS) - seen)
        if seed >= 100 and not missing:
            break
        first = [missing[seed % len(missing)]] * 3 if seed >= 100 else []
        program, inputs = make_program(seed, ops=first)
        shards = min(2 + seed % 4, len(inputs[0]))
        program = split_what_can_be(program, shards, seen)
        for look in (observe, results):
            parts, whole = (
                look(program, inputs, b) for b in (ShardedBackend(shards), NumpyBackend())
            )
            assert parts == whole, f"seed {seed}, {shards} shards"
    assert seen >= set(OPS), f"teach ml_factory.make_program to make {set(OPS) - seen}"


def results(program, inputs, backend) -> list[bytes] | str:
    try:
        return [
            (np.where(np.isnan(a), 0, a) + 0).tobytes() for a in execute(program, inputs, backend)
        ]
    except Trap:
        return "trap"


def parts_of(program, inputs, shards):
    plan = split(check(program), shards)
    outputs = [np.zeros(plan.checked.types[r].shape) for r in program.outputs]
    meeting = Meeting(plan, inputs, outputs, NumpyBackend())
    return plan, [Shard(plan, k, rows_of(plan, k, inputs)) for k in range(shards)], meeting


def two_sums(rows=6, columns=3):
    """Column sums of x, and of its square, which is rounded first."""
    b = Builder()
    x = b.input(finite(rows, columns))
    return b.program([b.sum_rows(x), b.sum_rows(b.emit("multiply", x, x))])


def test_what_is_ready_at_one_point_shares_one_exchange():
    plan = split(check(two_sums()), 2)
    assert [(len(e.peaks), len(e.sums)) for e in plan.exchanges] == [(2, 0), (0, 2)]
    assert plan.exchanges[1].size == 6  # numbers


def test_a_layer_of_a_network_adds_two_exchanges():
    """Its output and its gradient are each rounded for the next product; sums ride along."""
    counts = []
    for hidden in ([], [8], [8, 8]):
        plan = make_plan("mlp", features=4, classes=3, batch=6, hidden=hidden)
        counts.append(len(split(check(plan.step), 2).exchanges))
    assert np.diff(counts).tolist() == [2, 2]


def test_a_gradient_that_needs_a_shape_only_does_not_wait_for_the_tensor():
    """That of a mean spreads a number over the shape of the rounded losses."""
    exchanges = split(check(make_plan("softmax", features=4, classes=3, batch=6).step), 2).exchanges
    assert [(len(e.peaks), len(e.sums)) for e in exchanges] == [(2, 0), (0, 3)]


def test_sums_that_only_the_update_reads_are_not_sent_back():
    plan = make_plan("mlp", features=40, classes=3, batch=6)
    exchanges = split(check(plan.step), 2).exchanges
    assert sum(e.size for e in exchanges) > 40 * 64
    assert sum(e.size_down for e in exchanges) < 10


def test_partial_sums_are_integers_of_53_bits_on_one_grid():
    x = np.random.default_rng(3).normal(size=(7, 3)) * [1, 1e-6, 1e3]
    _, shards, meeting = parts_of(two_sums(rows=7), [x], 3)
    runs = [shard.run() for shard in shards]
    reply = meeting.reduce(0, [resume(run, None) for run in runs])
    offers = [resume(run, reply) for run in runs]
    for at, peak in enumerate(reply):
        unit = 2.0 ** (grid.exponent_of(peak) - (grid.SUM_BITS - 1))
        whole = np.array([offer[3 * at : 3 * at + 3] for offer in offers]) / unit
        assert np.array_equal(whole, np.rint(whole))
        assert np.abs(whole).sum() < 2**53
        assert not np.array_equal(whole[0], whole[1])
    forwards, backwards = (meeting.reduce(1, o).size for o in (offers, offers[::-1]))
    assert forwards == backwards == 0  # nobody reads on


def test_the_order_in_which_offers_are_added_does_not_matter():
    x = np.random.default_rng(4).normal(size=(8, 3))
    found = set()
    for turn in range(4):
        _, shards, meeting = parts_of(two_sums(rows=8), [x], 4)
        runs = [shard.run() for shard in shards]
        reply = meeting.reduce(0, [resume(run, None) for run in runs])
        offers = [resume(run, reply) for run in runs]
        meeting.reduce(1, offers[turn:] + offers[:turn])
        found.add(b"".join(meeting.arrays[r].tobytes() for r in meeting.plan.once_inputs))
    assert len(found) == 1


def test_shards_that_round_by_their_own_largest_element_change_the_result(monkeypatch):
    """Control: without agreeing on one exponent the split shows."""
    data = make_dataset()
    task = make_task(data, steps=3, chunk=3, batch=11, hidden=(5,))
    whole = run(task, data, SEED).digest()
    assert run(task, data, SEED, backend=ShardedBackend(2)).digest() == whole

    def alone(self, source, target, bits):
        x = self.arrays[source]
        grid.quantise(x, bits, grid.peak(x), self.arrays[target])

    monkeypatch.setattr(Shard, "_quantise", alone)
    assert run(task, data, SEED, backend=ShardedBackend(2)).digest() != whole


def test_float_gradients_added_over_2_and_over_5_shards_differ():
    """Control: what everybody else does, sums of float32, depends on the number of shards."""
    r = np.random.default_rng(1)
    x, g = (r.normal(size=(40, 8)).astype(np.float32) for _ in range(2))

    def gradient(shards):
        cut = zip(np.array_split(x, shards), np.array_split(g, shards), strict=True)
        return np.sum([a.T @ b for a, b in cut], axis=0, dtype=np.float32).tobytes()

    assert gradient(2) != gradient(5)


def test_more_shards_than_rows_are_refused():
    data = make_dataset()
    with pytest.raises(ConfigError, match="9 for a batch of 8 rows"):
        Trainer(make_task(data), data, SEED, ShardedBackend(9))


def test_a_program_that_mixes_rows_is_refused_by_the_name_of_the_op():
    b = Builder()
    x = b.input(grid_type(16, 4, 4))
    program = b.program([b.matmul(x, b.emit("quantise", x, bits=8))])
    with pytest.raises(RejectedProgram, match=r"op 1 \(matmul\): .*cannot be split by rows"):
        split(check(program), 2)


def test_rows_do_not_meet_a_tensor_that_is_not_split():
    b = Builder()
    x, weights = b.input(finite(4, 4)), b.input(stored(4, 4))
    program = b.program([b.emit("multiply", x, b.emit("widen", weights))])
    with pytest.raises(RejectedProgram, match=r"op 1 \(multiply\): .*cannot be split"):
        split(check(program), 2)


def test_a_program_without_rows_is_refused():
    b = Builder()
    with pytest.raises(RejectedProgram, match="nothing can be split"):
        split(check(b.program([b.emit("constant", value=1.0)])), 1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda offer: offer[:-1], "shard 1, exchange 1: 5 numbers, not 6"),
        (lambda offer: np.append(offer, 0.0), "7 numbers, not 6"),
        (lambda offer: np.full_like(offer, np.nan), "a partial sum is not finite"),
        (lambda offer: np.full_like(offer, np.inf), "a partial sum is not finite"),
    ],
)
def test_an_offer_of_another_size_or_without_a_value_is_refused(spoil, reason):
    _, shards, meeting = parts_of(two_sums(), [np.ones((6, 3))], 2)
    runs = [shard.run() for shard in shards]
    reply = meeting.reduce(0, [resume(run, None) for run in runs])
    first, second = (resume(run, reply) for run in runs)
    with pytest.raises(CodecError, match=reason):
        meeting.reduce(1, [first, spoil(second)])
