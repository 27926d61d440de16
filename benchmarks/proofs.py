"""What a fraud proof costs, and where a random vector is cheaper than a product.

    PYTHONPATH=. python benchmarks/proofs.py [--repeats N]

First: checking a product after Freivalds against repeating it, each after the same digests of the
operands. Times are medians of CPU time over all threads. Then: tracing a
chunk against training it, and the size of search and proof.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from training import NETS, ROWS, SEED, machine

from mlchain import codec
from mlchain.crypto import SecretKey
from mlchain.ml_runtime import Dataset, Task, make_plan
from mlchain.ml_runtime.grid import peak, quantise
from mlchain.ml_runtime.oracle.arithmetic import TWINS, Operands
from mlchain.ml_runtime.proof import (
    Accused,
    Accuser,
    ChunkTrace,
    FraudProof,
    Move,
    Tracer,
    freivalds,
    hash_bytes,
    sign_claim,
    verify_fraud_proof,
)
from mlchain.ml_runtime.tensor import digest_as_stored, grid

SIZES = [(128, 784, 256), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
         (2048, 2048, 2048), (4096, 4096, 4096), (64, 4096, 4096)]  # fmt: skip
ORACLE_TERMS = 1 << 25
"""Larger products take the oracle minutes."""
CHUNK = 128


def make_grid(seed: int, rows: int, columns: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, columns))
    out = np.empty_like(x)
    quantise(x, 16, peak(x), out)
    return out


def milliseconds(*calls: Callable[[], object], repeats: int) -> list[float]:
    """Return the median CPU time of each call, all of them in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for call, found in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            if repeat:
                found.append((time.process_time() - start) * 1e3)
    return [statistics.median(found) for found in times]


def products(repeats: int) -> None:
    print(f"{'product':>18} {'repeat ms':>10} {'vectors ms':>11} {'ratio':>7}", end="")
    print(f" {'digests ms':>11} {'oracle ms':>10} {'oracle / vectors':>17}")
    for n, k, m in SIZES:
        a, b = make_grid(1, n, k), make_grid(2, k, m)
        c = a @ b
        out = np.empty_like(c)
        multiply, check, digests = milliseconds(
            lambda a=a, b=b, out=out: np.matmul(a, b, out=out),
            lambda a=a, b=b, c=c: freivalds(a, 16, b, 16, c, SEED),
            lambda a=a, b=b, n=n, k=k, m=m: (
                digest_as_stored(grid(16, n, k), a),
                digest_as_stored(grid(16, k, m), b),
            ),
            repeats=max(3, repeats if n * k * m < 1 << 31 else 3),
        )
        slow = "-"
        if n * k * m <= ORACLE_TERMS * 2:
            operands = Operands(
                [a.reshape(-1).tolist(), b.reshape(-1).tolist()], [a.shape, b.shape], (0, 0), (n, m)
            )
            (took,) = milliseconds(lambda o=operands: TWINS["matmul"](o), repeats=1)
            slow = f"{took:10.0f} {took / check:16.0f}x"
        size = f"{n} x {k} x {m}"
        print(f"{size:>18} {multiply:10.2f} {check:11.2f} {check / multiply:6.2f}x", end="")
        print(f" {digests:11.2f} {slow:>10}")


@dataclass(frozen=True)
class Dispute:
    """One wrong op in the middle of a chunk: traced, searched, proven and verified."""

    trained: float
    traced: float
    judged: float
    moves: list[Move]
    proof: FraudProof
    entries: int
    """Of the trace of one step."""

    @property
    def sent(self) -> int:
        """Bytes of hashes in the messages of the search."""
        return sum(32 * (len(move.siblings) + len(move.nodes)) for move in self.moves)


def dispute(name: str, repeats: int) -> Dispute:
    """Let a worker lie about one op of a chunk of net `name`, and settle it."""
    sizes, batch = NETS[name]
    r = np.random.default_rng(0)
    x, y = r.random((ROWS, sizes[0])), r.integers(0, sizes[-1], ROWS)
    plan = make_plan(
        "mlp", features=sizes[0], classes=sizes[-1], hidden=sizes[1:-1], batch=batch, rate="0.001"
    )
    data = Dataset.from_arrays(x, y, classes=sizes[-1])
    tracer = Tracer(Task(plan.encode(), CHUNK, CHUNK, ROWS, 0), data, SEED)
    start, key = tracer.trainer.initial_state(), SecretKey(SEED)
    traces: list[ChunkTrace] = []
    trained, traced = milliseconds(
        lambda: tracer.trainer.run_chunk(0, start),
        lambda: traces.append(tracer.trace(0, start)) or traces[-1].claim,
        repeats=repeats,
    )
    entries = [list(step) for step in traces[-1].entries]
    for step in range(CHUNK // 2, CHUNK):
        entries[step] = [bytes(31) + b"\1"] * len(entries[step])
    lie = ChunkTrace(traces[-1].layout, traces[-1].job, 0, traces[-1].start, tuple(entries))
    first = next(i for i, rule in enumerate(lie.layout.rules) if rule.kind == "op" and rule.op > 4)
    lie.entries[CHUNK // 2][:first] = traces[-1].entries[CHUNK // 2][:first]
    accuser = Accuser(tracer, start, sign_claim(lie.claim, key))
    accused, moves = Accused(lie, accuser.mine.claim), []

    def answer(move: Move) -> Move | None:
        moves.extend([move, accused.answer(move)])
        return moves[-1]

    proof = accuser.prove(answer)
    data_bytes = codec.encode(proof)
    (judged,) = milliseconds(lambda: verify_fraud_proof(data_bytes), repeats=repeats)
    return Dispute(trained, traced, judged, moves, proof, lie.layout.count)


def chunk(name: str, repeats: int) -> None:
    """Print what a dispute over a chunk of net `name` takes."""
    d = dispute(name, repeats)
    print(f"{name:18} {d.trained:9.1f} {d.traced:8.1f} {d.traced / d.trained:6.2f}x", end="")
    print(f" {len(d.moves):9} {d.sent:9,} {hash_bytes(d.proof):9,}", end="")
    print(f" {len(codec.encode(d.proof)):10,} {d.judged:9.2f}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What a fraud proof costs.")
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    print(machine())
    products(repeats)
    print(f"\n{'chunk of ' + str(CHUNK):18} {'train ms':>9} {'trace ms':>8} {'ratio':>7}", end="")
    print(f" {'messages':>9} {'hashes B':>9} {'proof: B':>9} {'file B':>10} {'verify ms':>9}")
    for name in NETS:
        chunk(name, min(repeats, 3))


if __name__ == "__main__":
    main()
