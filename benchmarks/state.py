"""What the state costs, beside the price that limits a node anyway: one signature check.

python benchmarks/state.py [keys ...]        default 10000 100000
"""

from __future__ import annotations

import gc
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from mlchain import codec, crypto
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ledger.merkle import SparseTree, verify_proof

BLOCK_KEYS = 1000
"""Changed keys in a block: nine in ten known, one new."""


def main() -> None:
    """Print one table per size of the state."""
    sizes = [int(word) for word in sys.argv[1:]] or [10_000, 100_000]
    print(f"{platform.node()}, {platform.machine()}, Python {platform.python_version()}")
    verify_us = measure_verify()
    for keys in sizes:
        print(f"\n{keys:,} keys, blocks of {BLOCK_KEYS:,} changes")
        for name, value, unit in (*measure_tree(keys), *measure_disk(keys)):
            print(f"  {name:<42}{value:>10.1f} {unit}")
        print(f"  {'the limit beside it: one Ed25519 check':<42}{verify_us:>10.1f} us")


def changes(rng: random.Random, known: list[bytes]) -> dict[bytes, bytes]:
    """Return what a block of transfers does to the state."""
    old = rng.sample(known, BLOCK_KEYS * 9 // 10)
    new = [rng.randbytes(40) for _ in range(BLOCK_KEYS - len(old))]
    return {key: rng.randbytes(60) for key in old + new}


def cpu_us(call: Callable[[], object]) -> float:
    """Return the CPU microseconds of one call."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e6


def measure_tree(keys: int) -> list[tuple[str, float, str]]:
    rng = random.Random(1)
    values = {rng.randbytes(40): rng.randbytes(60) for _ in range(keys)}
    known = list(values)
    gc.collect()
    trees: list[SparseTree] = []
    build = cpu_us(lambda: trees.append(SparseTree().update(values)))
    gc.collect()
    gc.freeze()  # as a node does: the collector need not walk the state again and again
    updates = []
    for _ in range(9):
        step = changes(rng, known)
        updates.append(cpu_us(lambda step=step: trees.append(trees[-1].update(step))))
    gc.unfreeze()
    tree = trees[0]
    sample = rng.sample(known, 300)
    proofs = [tree.prove(key) for key in sample]
    bytes_ = statistics.mean(len(codec.encode(proof)) for proof in proofs)
    check = cpu_us(
        lambda: [
            verify_proof(tree.root, key, values[key], proof)
            for key, proof in zip(sample, proofs, strict=True)
        ]
    )
    return [
        ("rebuild at start, a key", build / keys, "us CPU"),
        ("update, a changed key", statistics.median(updates) / BLOCK_KEYS, "us CPU"),
        ("proof", bytes_, "bytes"),
        ("proof check", check / len(sample), "us CPU"),
    ]


def measure_disk(keys: int) -> list[tuple[str, float, str]]:
    rng = random.Random(2)
    with TemporaryDirectory() as folder:
        kv = LevelKeyValue(Path(folder) / "db")
        values = {rng.randbytes(40): rng.randbytes(60) for _ in range(keys)}
        known = list(values)
        kv.write(values)
        writes = []
        for _ in range(20):
            step = changes(rng, known)
            start = time.perf_counter()
            kv.write(step)
            writes.append((time.perf_counter() - start) * 1e3)
        sample = rng.sample(known, 2000)
        read = cpu_us(lambda: [kv.get(key) for key in sample])
        kv.close()
    return [
        ("append of a block, synced, median", statistics.median(writes), "ms"),
        ("append of a block, synced, slowest of 20", max(writes), "ms"),
        ("read of a value", read / len(sample), "us CPU"),
    ]


def measure_verify() -> float:
    key = crypto.SecretKey(bytes(32))
    message = bytes(200)
    signature = key.sign(message)
    count = 500
    return (
        cpu_us(lambda: [crypto.verify(key.public, message, signature) for _ in range(count)])
        / count
    )


if __name__ == "__main__":
    main()
