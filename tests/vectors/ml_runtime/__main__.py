"""Write the vectors of the exact runtime, as the oracle computes them: inputs and digests that any
machine, library or language has to reproduce.

    PYTHONPATH=. python -m tests.vectors.ml_runtime

A change of these files is a change of the specification. `pinned` goes into selftest.py by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlchain import codec
from mlchain.errors import Trap
from mlchain.ml_runtime import Dataset, Oracle, Task, Trainer, selftest
from mlchain.ml_runtime.functions import TABLE_DIGEST
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.random import make_key, philox
from tests.ml_runtime.ml_factory import SEED, make_dataset, make_program, make_task, observe

HERE = Path(__file__).parent


def programs() -> list[dict[str, Any]]:
    """Random programs: the digest of every op's output, and the trap if one ends the run.

    The first seeds are taken that together use every op three times and trap three times.
    """
    cases: list[dict[str, Any]] = []
    missing = dict.fromkeys([*OPS, "trap"], 3)
    for seed in range(10_000):
        program, inputs = make_program(seed)
        trace, trap = observe(program, inputs, Oracle())
        seen = {node.op for node in program.nodes} | ({"trap"} if trap else set())
        if not any(missing[name] for name in seen):
            continue
        for name in sorted(seen):
            missing[name] = max(0, missing[name] - 1)
        cases.append(
            {
                "seed": seed,
                "program": codec.encode(program).hex(),
                "inputs": [array.tobytes().hex() for array in inputs],
                "digests": [digest.hex() for digest in trace],
                "trap": trap,
            }
        )
        if not any(missing.values()):
            break
    return cases


def train(name: str, dataset: Dataset, task: Task) -> dict[str, Any]:
    """A whole training: the digest of every chunk's state, the metric, or the trap's step."""
    trainer = Trainer(task, dataset, SEED, Oracle())
    state = trainer.initial_state()
    digests, trap, metrics = [state.digest().hex()], None, ""
    try:
        for index in range(task.chunks):
            state = trainer.run_chunk(index, state)
            digests.append(state.digest().hex())
        metrics = codec.encode(trainer.evaluate(state)).hex()
    except Trap as error:
        trap = error.step
    return {
        "name": name,
        "task": codec.encode(task).hex(),
        "dataset": dataset.encode().hex(),
        "seed": SEED.hex(),
        "digests": digests,
        "metrics": metrics,
        "trap_step": trap,
    }


def trainings() -> list[dict[str, Any]]:
    """Every model, optimiser and activation, a batch across epochs, and a job that overflows."""
    classes, values = make_dataset(), make_dataset(outputs=2, classes=0)
    two = make_dataset(classes=2)
    cases: list[tuple[str, Dataset, dict[str, Any]]] = [
        ("linear sgd", values, {"model": "linear", "optimiser": "sgd", "rate": "0.05"}),
        ("softmax momentum", classes, {"model": "softmax", "optimiser": "momentum"}),
        ("mlp adam", classes, {"hidden": (6, 5), "rate": "0.01", "weight_decay": "0.01"}),
        ("mlp adam two classes", two, {"hidden": (2,), "batch": 32}),
        ("mlp tanh values", values, {"hidden": (5,), "activation": "tanh"}),
        ("mlp sigmoid", classes, {"hidden": (5,), "activation": "sigmoid", "optimiser": "sgd"}),
        ("overflow", values, {"model": "linear", "optimiser": "sgd", "rate": "1e60"}),
    ]
    return [train(n, d, make_task(d, **{"model": "mlp", **options})) for n, d, options in cases]


def words() -> list[dict[str, Any]]:
    """Blocks of Philox4x64-10, and the key of a named stream."""
    keys = [(0, 0), (2**64 - 1, 2**64 - 1), make_key(SEED, "order", 3)]
    counters = [(0, 0, 0, 0), (1, 0, 0, 0), (2**64 - 1,) * 4]
    return [
        {"key": list(k), "counter": list(c), "words": list(philox(c, k))}
        for k in keys
        for c in counters
    ]


def main() -> None:
    """Write every file beside this one and print the digests of the self test."""
    files = {"programs": programs(), "trainings": trainings(), "philox": words()}
    files["tables"] = [{"digest": TABLE_DIGEST}]
    for name, cases in files.items():
        (HERE / f"{name}.json").write_text(json.dumps(cases, indent=1) + "\n")
        print(f"{name}: {len(cases)} cases")
    for name, compute in selftest.CASES.items():
        print(f'    "{name}": "{compute(Oracle()).hex()}",')


if __name__ == "__main__":
    main()
