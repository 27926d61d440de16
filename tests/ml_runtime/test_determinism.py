"""One chain of states whatever BLAS kernel, number of threads, SIMD level, backend or split.

Each setting is a process of its own, as BLAS chooses its kernel when it is loaded. The controls are
the same kind of net in plain float32 and float64, in the same processes: their chains differ.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).parent / "determinism_worker.py"
ROOT = WORKER.parent.parent.parent
KERNELS = {  # of OpenBLAS, each with the flag of a processor that can run it
    "": "",
    "SkylakeX": "avx512f",
    "Haswell": "avx2",
    "Zen": "avx2",
    "Sandybridge": "avx",
    "Nehalem": "sse4_2",
    "Prescott": "pni",
}
MIN_KERNELS = 6
THREADS = ("1", "2")
NO_AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"
PROCESSES = 2

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the kernels named are those of x86"
)


def train(steps: int, names: str, setting: dict[str, str]) -> dict[str, Any]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "OMP", "NPY"))}
    out = subprocess.run(
        [sys.executable, "-W", "ignore", str(WORKER), str(steps), names],
        env={**clean, **setting, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, (setting, out.stderr[-2000:])
    return json.loads(out.stdout)


def train_all(steps: int, names: str, settings: list[dict[str, str]]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(lambda setting: train(steps, names, setting), settings))


def matrix(**more: str) -> list[dict[str, str]]:
    flags = Path("/proc/cpuinfo").read_text().split()
    runs = [kernel for kernel, flag in KERNELS.items() if not flag or flag in flags]
    assert len(runs) >= MIN_KERNELS, f"this processor runs only {runs}"
    named = [{"OPENBLAS_CORETYPE": kernel} if kernel else {} for kernel in runs]
    return [{**k, "OPENBLAS_NUM_THREADS": t, **more} for k in named for t in THREADS]


def without_simd() -> dict[str, str]:
    """Switch off every kind of instruction that numpy would choose when it starts."""
    from numpy._core import _multiarray_umath as core

    features = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(features)}


def require_one_chain(reports: list[dict[str, Any]]) -> None:
    """One exact chain for each net, over all processes, splits and backends."""
    for net in reports[0]["exact"]:
        chains = {tuple(chain) for report in reports for chain in report["exact"][net].values()}
        assert len(chains) == 1, net
    for control in ("float32", "float64"):
        plain = {tuple(report[control]) for report in reports}
        assert len(plain) > 1, f"the control: plain {control} has to differ, or nothing was shown"


def test_training_gives_one_chain_over_kernels_threads_splits_and_backends():
    reports = train_all(8, "1,2,5,numba", [*matrix(), without_simd()])
    assert len(reports) > MIN_KERNELS * len(THREADS)
    kernels = {report["kernel"] for report in reports}
    assert len(kernels) > 1 or not reports[0]["kernel"], "the settings did not reach BLAS"
    require_one_chain([*reports, train(8, "1,torch,torch:cpu", {"OMP_NUM_THREADS": "1"})])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_gives_one_chain_over_a_larger_matrix():
    settings = matrix() + matrix(NPY_DISABLE_CPU_FEATURES=NO_AVX512) + matrix(**without_simd())
    settings += [{"OPENBLAS_NUM_THREADS": t} for t in ("3", "8")]
    require_one_chain(train_all(40, "1,3,40,numba,torch", settings))
