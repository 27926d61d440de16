"""Write the vectors of the exact runtime, as the oracle computes them: inputs and digests that any
machine, library or language has to reproduce.

    PYTHONPATH=. python -m tests.vectors.ml_runtime

A change of these files is a change of the specification. `pinned` goes into selftest.py by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mlchain import codec
from mlchain.errors import Trap
from mlchain.ml_runtime import Dataset, Oracle, Task, Trainer, selftest
from mlchain.ml_runtime.functions import TABLE_DIGEST
from mlchain.ml_runtime.op import OPS
from mlchain.ml_runtime.program import Program
from mlchain.ml_runtime.random import make_key, philox

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent.parent / "ml_runtime"))

from ml_factory import SEED, make_dataset, make_program, make_task, observe  # noqa: E402


def programs() -> list[dict[str, Any]]:
    """Random programs: the digest of every op's output, and the trap if one ends the run.

    Cases of the file stay as they are, as what they say cannot change. Programs are added until
    together they use every op three times and trap three times.
    """
    cases: list[dict[str, Any]] = json.loads((HERE / "programs.json").read_text())
    missing = dict.fromkeys([*OPS, "trap"], 3)
    for case in cases:
        _count(missing, codec.decode(Program, bytes.fromhex(case["program"])), case["trap"])
    for seed in range(1_000_000, 1_010_000):
        wanted = [name for name, count in missing.items() if count]
        if not wanted:
            break
        program, inputs = make_program(seed, ops=[n for n in wanted if n in OPS][:8])
        trace, trap = observe(program, inputs, Oracle())
        if not _count(missing, program, trap):
            continue
        cases.append(
            {
                "seed": seed,
                "program": codec.encode(program).hex(),
                "inputs": [array.tobytes().hex() for array in inputs],
                "digests": [digest.hex() for digest in trace],
                "trap": trap,
            }
        )
    return cases


def _count(missing: dict[str, int], program: Program, trap: str) -> bool:
    """Count down what a case has that is missing; return if there was anything."""
    seen = {node.op for node in program.nodes} | ({"trap"} if trap else set())
    new = [name for name in seen if missing.get(name)]
    for name in new:
        missing[name] -= 1
    return bool(new)


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
        ("svm sgd", classes, {"model": "svm", "optimiser": "sgd"}),
        ("logistic adam", classes, {"model": "logistic"}),
        ("gaussian naive Bayes", classes, {"model": "gaussian_nb"}),
        ("ridge", values, {"model": "ridge", "alpha": "0.5"}),
        ("k-means", classes, {"model": "kmeans", "clusters": 3}),
        ("k-means in parts", classes, {"model": "kmeans", "clusters": 2, "mini_batch": True}),
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
