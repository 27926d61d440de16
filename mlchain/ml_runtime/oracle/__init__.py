"""The oracle: a second, slow implementation of every op, to hold the fast ones against.

It shares no arithmetic with the numpy backend. Sums and products are rational arithmetic on
Python integers; elementwise ops are single operations on Python floats; square roots, rounding
onto grids and into binary32 are integer arithmetic. A tensor is a flat list of numbers.

Each file here is the twin of a file of `ops`: `@twin(name)` marks the twin of one op.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from mlchain.ml_runtime.oracle.machine import Oracle

for _info in sorted(iter_modules(__path__), key=lambda info: info.name):
    import_module(f"{__name__}.{_info.name}")

__all__ = ["Oracle"]
