"""A reference job in miniature: every machine that may join a chain gets this very state.

It passes through the ops that training uses (products, softmax, logarithm, Adam), so a library
that rounds differently shows here, before it votes.
"""

from __future__ import annotations

REFERENCE_DIGEST = "b71c798d982622c713e7b1ac256556aa5b3e73797357d22ac20c3b38ef1f0eeb"
"""Digest of the state after the reference job, on every machine."""

_ROWS, _FEATURES, _CLASSES = 96, 12, 3


def compute_digest() -> str:
    """Train the reference job and return its state's digest in hex. Takes a fraction of a second.

    Raises:
        Trap, RejectedProgram: this machine does not even run it.
    """
    from mlchain.ml_runtime import Dataset, Task, make_plan, run

    # Whole numbers over a power of two: exact in every format, so the input cannot differ.
    x = [[(i * 37 + j * 101 + i * j) % 64 / 64 for j in range(_FEATURES)] for i in range(_ROWS)]
    y = [sum(1 for value in row if value > 0.5) % _CLASSES for row in x]
    dataset = Dataset.from_arrays(x, y, classes=_CLASSES)
    plan = make_plan(
        "mlp", features=_FEATURES, classes=_CLASSES, optimiser="adam", batch=16, hidden=(24,)
    )
    task = Task(plan.encode(), 60, 20, _ROWS, 0)
    return run(task, dataset, bytes(range(32))).digest().hex()
