"""One state from the states that parties trained on their own rows, the same bits for everybody.

Each tensor of the state is merged by the first rule that fits it:

- *Totals* (`Network.tally`) are added up. So what learns by counting (naive Bayes, centroids) is
  after the merge what it would be had one party counted all rows.
- *What follows from totals alone* is computed from the merged ones, by the ops of the step itself.
  So the weights of ridge regression solve the normal equations of all rows.
- *Anything else* is the mean of the parties', each weighing as much as the rows it trained on
  (McMahan et al., AISTATS 2017), added up in the order of the parties.

Groups of one party are not those of another, so k-means is not merged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime.grid import round_state
from mlchain.ml_runtime.machine import Backend, NumpyBackend
from mlchain.ml_runtime.plan import Plan
from mlchain.ml_runtime.program import Checked, Node, Program, check
from mlchain.ml_runtime.state import State
from mlchain.ml_runtime.tensor import Array, allocate, finite


def merge_states(
    plan: Plan, states: Sequence[State], rows: Sequence[int], backend: Backend | None = None
) -> State:
    """Return the merged state of parties that trained `plan` on so many `rows` each.

    Raises:
        RejectedProgram: the plan learns groups.
        Trap: the merged state leaves the exact range.
    """
    require_mergeable(plan)
    assert len(states) == len(rows) >= 1 and min(rows) >= 1, "a state and rows for each party"
    merged = [_mean([s.tensors[i] for s in states], rows) for i in range(len(plan.state))]
    totals: dict[int, Array] = {}  # by the register of the new total in the step
    checked = check(plan.step)
    for near, rest, register in find_totals(plan, checked):
        total = np.zeros(plan.state[near].shape)
        for state in states:
            total += state.tensors[near].astype(np.float64) + state.tensors[rest]
        round_state(total, merged[near])
        round_state(total - merged[near], merged[rest])
        totals[register] = total
    for i, tensor in _follow(plan, checked, totals, backend or NumpyBackend()):
        merged[i] = tensor
    state = State(tuple(merged))
    state.require_finite()
    return state


def require_mergeable(plan: Plan) -> None:
    """Return if states of a plan can be merged.

    Raises:
        RejectedProgram: says why not.
    """
    if plan.target == "cluster":
        raise RejectedProgram(
            f"{plan.model}: the groups that one party finds are not those of another",
            "train it on all rows",
        )


def find_totals(plan: Plan, step: Checked) -> list[tuple[int, int, int]]:
    """Return the totals of a state: places of the near value and of what is missing, and register.

    The register is the one of the step that holds the new total. A pair of tensors that is only
    named like a total is none.
    """
    place = {spec.name: i for i, spec in enumerate(plan.state)}
    found = []
    for near, spec in enumerate(plan.state):
        rest = place.get(f"{spec.name}.rest", near)
        register = _stored_from(step, near)
        is_total = rest != near and spec.shape == plan.state[rest].shape
        if is_total and step.types[register] == finite(*spec.shape):
            found.append((near, rest, register))
    return found


def _mean(tensors: Sequence[Array], rows: Sequence[int]) -> Array:
    total = np.zeros(tensors[0].shape)
    for tensor, weight in zip(tensors, rows, strict=True):
        total += tensor.astype(np.float64) * float(weight)
    mean = np.empty(tensors[0].shape, "<f4")
    round_state(total / float(sum(rows)), mean)
    return mean


def _stored_from(checked: Checked, place: int) -> int:
    """Return the register whose value becomes the tensor at `place` of the next state."""
    result = checked.program.outputs[place]
    stores = (s for s in checked.steps if result in s.outputs and s.op.name == "store")
    return next((step.inputs[0] for step in stores), result)


def _follow(
    plan: Plan, checked: Checked, totals: dict[int, Array], backend: Backend
) -> list[tuple[int, Array]]:
    """Return the tensors of the state that follow from totals alone, with their places."""
    found = []
    for i, result in enumerate(checked.program.outputs[: len(plan.state)]):
        if (program := _cut(checked, result, tuple(totals))) is None:
            continue
        tensor = allocate(checked.types[result])
        backend.bind(program, list(totals.values()), [tensor])()
        found.append((i, tensor))
    return found


def _cut(checked: Checked, result: int, known: tuple[int, ...]) -> Program | None:
    """Return the program from the registers `known` to `result`, None if it reads other inputs."""
    made = {r: i for i, step in enumerate(checked.steps) for r in step.outputs}
    wanted, seen = [result], dict.fromkeys(known, False)
    nodes: dict[int, None] = {}
    while wanted:
        register = wanted.pop()
        if register in known:
            seen[register] = True
        elif register not in made:
            return None  # x, y or an old state
        elif register not in seen:
            seen[register] = True
            nodes[made[register]] = None
            wanted.extend(checked.steps[made[register]].inputs)
    if not any(seen[register] for register in known):
        return None  # a constant, or an old state that stays
    number = {register: i for i, register in enumerate(known)}
    kept = []
    for index in sorted(nodes):
        step, node = checked.steps[index], checked.program.nodes[index]
        kept.append(Node(node.op, tuple(number[r] for r in step.inputs), node.attributes))
        for register in step.outputs:
            number[register] = len(number)
    return Program(tuple(checked.types[r] for r in known), tuple(kept), (number[result],))
