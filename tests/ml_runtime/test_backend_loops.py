"""What the compiled loops of the numba backend are made of: no contraction, no other library."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

backend_numba = pytest.importorskip("mlchain.ml_runtime.backend_numba")

SOURCE = Path(backend_numba.__file__).read_text()
PARTS = re.findall(r"@_inline\ndef (\w+)", SOURCE)
"""What loops are made of: compiled with each of them, unless that one comes from the cache."""
LOOPS = {
    name: value
    for name, value in vars(backend_numba).items()
    if hasattr(value, "inspect_asm") and name not in PARTS
}
FUSED = re.compile(r"\bv?fn?m(add|sub|la|ls)\w*\b")
CALLS = re.compile(r"\bcall[ql]?\s+[^\n]*\b(exp|log|pow|tanh|svml)\w*", re.IGNORECASE)


def compiled(loop) -> str:
    """The machine code of a loop, compiled anew: one from the cache shows none."""
    import numba

    fresh = numba.njit(
        list(loop.nopython_signatures), fastmath=loop.targetoptions["fastmath"],
        error_model="numpy",
    )(loop.py_func)  # fmt: skip
    return "\n".join(fresh.inspect_asm().values())


@pytest.mark.parametrize("name", ["_adam", "_momentum", "_softmax"])
def test_no_product_and_sum_are_contracted(name):
    code = compiled(LOOPS[name])
    assert not FUSED.search(code)
    assert not CALLS.search(code)


def test_a_loop_that_may_contract_does_where_the_processor_can():
    """Control: the same search finds the fused instructions of a loop with `fastmath`."""
    import numba

    @numba.njit([numba.float64[::1](numba.float64[::1])], fastmath=True)
    def loop(x):
        out = x.copy()
        for i in range(x.size):
            out[i] = x[i] * x[i] + 1.5
        return out

    flags = Path("/proc/cpuinfo").read_text() if platform.machine() == "x86_64" else "fma"
    if "fma" not in flags:
        pytest.skip("this processor has no fused multiply-add")
    assert FUSED.search("\n".join(loop.inspect_asm().values()))


def test_loops_are_compiled_when_the_module_is_imported_and_never_later():
    assert len(LOOPS) >= 10 and PARTS
    assert all(loop.nopython_signatures for loop in LOOPS.values())
    assert all(not loop._can_compile for loop in LOOPS.values())
