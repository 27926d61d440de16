"""The processor's floating-point mode, put back to what IEEE-754 says.

A library that was built for speed may switch subnormal numbers off for the thread that loads it.
The runtime's probe refuses to compute then; a process of ours that only computes can put the mode
right. C's `fesetenv` does that on every processor, for the calling thread and those it starts.
"""

from __future__ import annotations

import ctypes

_DEFAULT_ENVIRONMENT = ctypes.c_void_p(-1)  # FE_DFL_ENV of the C libraries of Linux


def restore_rounding() -> bool:
    """Round to nearest, keep subnormals, raise nothing; return whether the C library did it."""
    try:
        put_back = ctypes.CDLL(None).fesetenv  # the interpreter links C's mathematics
    except (AttributeError, OSError):
        return False
    return bool(put_back(_DEFAULT_ENVIRONMENT) == 0)
