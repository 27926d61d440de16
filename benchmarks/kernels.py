"""Honest work, re-executed over BLAS kernels and thread counts: does anybody accuse anybody?

Used by detection.py. The worker trains in a process of its own, then every setting re-executes the
same chunks in another, as BLAS chooses its kernel when it is loaded. Each reports how many end
states and how many custody digests differ from the worker's. The control is a net in plain float32
in the same processes.

    python benchmarks/kernels.py FILE CHUNKS    a child: writes FILE if there is none, else compares
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "ml_runtime")]

THREADS = ("1", "2")
PROCESSES = 2
ROWS, FEATURES, CLASSES, BATCH, HIDDEN = 300, 257, 10, 40, (32,)
"""Small, but its first product is large enough for BLAS to share it among threads."""
WIDTH = 64
"""Bytes of a chunk in FILE: the digest of its end, and its custody digest."""
CONTROL_STEPS = 8


def settings() -> list[dict[str, str]]:
    """Every kernel that this processor's flags allow, with every number of threads."""
    from test_determinism import KERNELS

    flags = Path("/proc/cpuinfo").read_text().split()
    names = [name for name, flag in KERNELS.items() if not flag or flag in flags]
    named = [{"OPENBLAS_CORETYPE": name} if name else {} for name in names]
    return [{**name, "OPENBLAS_NUM_THREADS": threads} for name in named for threads in THREADS]


def child(file: Path, chunks: int) -> dict[str, Any]:
    """Train `chunks` chunks; compare with `file`, or write it."""
    import numpy as np
    from determinism_worker import kernel, plain

    from mlchain.crypto import digest
    from mlchain.ml_runtime import Dataset, Task, Trainer, make_plan

    random = np.random.Generator(np.random.Philox(1))
    x = random.integers(-1000, 1000, (ROWS, FEATURES)) / 1024
    data = Dataset.from_arrays(x, np.arange(ROWS) * 7 % CLASSES, classes=CLASSES)
    plan = make_plan(
        "mlp", features=FEATURES, classes=CLASSES, optimiser="sgd", batch=BATCH, hidden=HIDDEN
    )
    trainer = Trainer(Task(plan.encode(), chunks, 1, ROWS, 0), data, bytes(32))
    state, made = trainer.initial_state(), bytearray()
    for chunk in range(chunks):
        key = digest("test-custody", chunk.to_bytes(4, "little"))
        state, custody = trainer.replay(chunk, state, key)
        made += state.digest() + custody
    if not file.exists():
        file.write_bytes(made)
    served = file.read_bytes()
    assert len(served) >= len(made)
    cells = range(0, len(made), WIDTH)
    return {
        "chunks": chunks,
        "states": sum(made[i : i + 32] != served[i : i + 32] for i in cells),
        "custody": sum(made[i + 32 : i + WIDTH] != served[i + 32 : i + WIDTH] for i in cells),
        "kernel": kernel(),
        "control": plain(CONTROL_STEPS, np.float32)[-1],
    }


def survey(total: int) -> list[dict[str, Any]]:
    """Re-execute at least `total` chunks over all settings.

    Two threads on a busy machine wait for each other more than they compute, so they get a
    hundredth of the chunks each and the others the rest.
    """
    chosen = settings()
    few = -(-total // 100)
    shared = [setting["OPENBLAS_NUM_THREADS"] != "1" for setting in chosen]
    many = -(-(total - few * sum(shared)) // shared.count(False))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "OMP"))}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "served")

        def run(setting: dict[str, str], chunks: int) -> dict[str, Any]:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", __file__, file, str(chunks)],
                env={**clean, **setting, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{setting}: {done.stderr[-2000:]}")
            report: dict[str, Any] = json.loads(done.stdout)
            return report

        run({"OPENBLAS_NUM_THREADS": "1"}, many)
        with ThreadPoolExecutor(PROCESSES) as pool:
            counts = [few if is_shared else many for is_shared in shared]
            return list(pool.map(run, chosen, counts))


if __name__ == "__main__":
    print(json.dumps(child(Path(sys.argv[1]), int(sys.argv[2]))))
