"""Plans: written from models, checked as data, costed exactly."""

from __future__ import annotations

import msgspec
import pytest

from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime import Plan, StateSpec, check_plan, decode_plan, make_plan
from mlchain.ml_runtime.op import real_to_bits
from mlchain.ml_runtime.plan import MAX_PLAN_BYTES
from mlchain.ml_runtime.program import MAX_NODES, Node, Program, check
from mlchain.ml_runtime.tensor import finite, labels

PLAN = make_plan("softmax", features=6, classes=3, optimiser="sgd", batch=4)


def altered(**fields: object) -> Plan:
    return msgspec.structs.replace(PLAN, **fields)


def step(**fields: object) -> Plan:
    return altered(step=msgspec.structs.replace(PLAN.step, **fields))


def spec(**fields: object) -> Plan:
    return altered(state=(msgspec.structs.replace(PLAN.state[0], **fields), *PLAN.state[1:]))


HUGE = StateSpec("w", (2**31 - 1, 2**31 - 1, 2**31 - 1), "zeros", 0)
X, Y, *STATE = PLAN.step.inputs

REFUSED = {
    "a step that reads other rows": altered(batch=5),
    "a step that reads other labels": altered(outputs=4),
    "a step that reads other state": spec(shape=(6, 4)),
    "a step without loss": step(outputs=PLAN.step.outputs[:-1]),
    "a step whose loss is no number": step(outputs=(*PLAN.step.outputs[:-1], 0)),
    "a step that gives no state": step(outputs=(*PLAN.step.outputs[:-3], 0, 1, 2)),
    "labels where the plan has values": altered(target="value"),
    "a prediction of another width": altered(
        predict=Program(PLAN.predict.inputs, PLAN.predict.nodes, (0,))
    ),
    "a prediction from unknown inputs": altered(
        predict=Program((*PLAN.predict.inputs, finite(2)), PLAN.predict.nodes, PLAN.predict.outputs)
    ),
    "an unknown op": step(nodes=(Node("exec", (0,), ()), *PLAN.step.nodes[1:])),
    "a limit that is not a number": spec(limit=0x7FF8000000000000),
    "a limit without end": spec(limit=real_to_bits(1e300)),
    "a limit below zero": spec(limit=real_to_bits(-1.0)),
    "a limit of zeros": altered(state=(PLAN.state[0], PLAN.state[1], HUGE)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_check_refuses(what):
    with pytest.raises(RejectedProgram):
        check_plan(REFUSED[what])


def test_refusals_name_the_program_and_the_op():
    with pytest.raises(RejectedProgram, match=r"step: op 0 \(exec\): no such op"):
        check_plan(REFUSED["an unknown op"])


def test_state_without_end_is_refused_by_its_size():
    with pytest.raises(RejectedProgram, match="bytes, at most"):
        check_plan(altered(state=(HUGE,)))


def test_memory_without_end_is_refused():
    with pytest.raises(RejectedProgram, match=r"step: needs \d+ bytes of memory"):
        make_plan("mlp", features=64, classes=10, hidden=(4096,) * 3, batch=1 << 15)


def test_more_ops_than_the_bound_are_refused_when_decoded():
    nodes = (Node("relu", (0,), ()),) * (MAX_NODES + 1)
    with pytest.raises(RejectedProgram, match="too large"):
        decode_plan(step(nodes=nodes).encode())


def test_cost_is_known_before_anything_runs():
    cost = check_plan(PLAN)
    assert cost.gas_per_step == check(PLAN.step).gas
    assert cost.gas_predict_row == -(-check(PLAN.predict).gas // 4)
    assert cost.state_bytes == 4 * (6 * 3 + 3)
    assert 0 < cost.arena_bytes < 1 << 20


def test_a_larger_network_costs_more():
    small, large = (
        check_plan(make_plan("mlp", features=64, classes=10, hidden=(h,))) for h in (64, 256)
    )
    assert large.gas_per_step > small.gas_per_step
    assert large.gas_predict_row > small.gas_predict_row
    assert large.state_bytes > small.state_bytes
    assert large.arena_bytes > small.arena_bytes


def test_a_plan_has_one_encoding():
    assert decode_plan(PLAN.encode()) == PLAN
    for raw in (b"", b"\xc1", PLAN.encode()[:-1], PLAN.encode() + b"\0", bytes(MAX_PLAN_BYTES + 1)):
        with pytest.raises(RejectedProgram):
            decode_plan(raw)


def test_a_decimal_rate_becomes_the_nearest_binary64_once():
    options = {"features": 6, "classes": 3, "optimiser": "sgd", "batch": 4}
    text, number = (make_plan("softmax", rate=rate, **options) for rate in ("0.1", 0.1))
    assert text == number == PLAN


def test_the_programs_read_labels_below_the_number_of_classes_only():
    assert labels(3, 4) == Y


@pytest.mark.parametrize(
    "options",
    [
        {"model": "forest"},
        {"optimiser": "lbfgs"},
        {"classes": 0},
        {"outputs": 2},
        {"classes": 0, "outputs": 2, "model": "softmax"},
        {"model": "linear"},
        {"features": 0},
        {"batch": 0},
        {"hidden": (3,)},
        {"beta1": 0.9},
        {"rate": "fast"},
        {"model": "mlp", "activation": "sine"},
        {"model": "mlp", "hidden": ("wide",)},
    ],
)
def test_a_plan_that_makes_no_sense_is_a_mistake_in_the_job_file(options):
    base = {"model": "softmax", "features": 6, "classes": 3, "optimiser": "sgd", "batch": 4}
    with pytest.raises(ConfigError):
        make_plan(**{**base, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"rate": "inf"},
        {"rate": float("nan")},
        {"momentum": 1.5, "optimiser": "momentum"},
        {"beta2": 1.0, "optimiser": "adam"},
        {"features": 2**24},
        {"classes": 10_000},
        {"hidden": (-1,), "model": "mlp"},
        {"hidden": (0,), "model": "mlp"},
    ],
)
def test_a_plan_beyond_the_bounds_is_refused_where_it_is_written(options):
    base = {"model": "softmax", "features": 6, "classes": 3, "optimiser": "sgd", "batch": 4}
    with pytest.raises((RejectedProgram, ConfigError)):
        make_plan(**{**base, **options})
