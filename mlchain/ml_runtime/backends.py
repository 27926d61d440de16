"""Numeric backends by name, each admitted by its results alone.

`get_backend` hands out a backend only after it computed every pinned case of the self-test in this
process, on this processor, with the library versions installed here. There is no list of trusted
versions: who gives other bits is refused, whoever it is. The vectors (`conformance`) are the longer
examination, which `mlchain doctor --runtime` runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mlchain.errors import ConfigError, MlchainError
from mlchain.ml_runtime.machine import Backend, NumpyBackend
from mlchain.ml_runtime.selftest import self_test

DEFAULT = "numpy"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a backend is made: the optional extra it needs ("" for none), and what it is."""

    make: Callable[[], Backend]
    extra: str
    about: str


def _numba() -> Backend:
    from mlchain.ml_runtime.backend_numba import NumbaBackend

    return NumbaBackend()


def _torch() -> Backend:
    from mlchain.ml_runtime.backend_torch import TorchProducts

    return TorchProducts()


def _torch_on(device: str) -> Backend:
    from mlchain.ml_runtime.backend_torch import TorchBackend

    return TorchBackend(device)


BACKENDS: dict[str, Kind] = {
    DEFAULT: Kind(NumpyBackend, "", "normative: BLAS, one ufunc call per rounding"),
    "numba": Kind(_numba, "numba", "the same with compiled loops"),
    "torch": Kind(_torch, "torch", "the same with torch's products, on the CPU"),
    "torch:cuda": Kind(partial(_torch_on, "cuda"), "torch", "whole programs on a GPU"),
    "torch:cpu": Kind(partial(_torch_on, "cpu"), "torch", "the GPU's kernels, tried on the CPU"),
}
"""Every backend that a node can be told to use."""

_admitted: set[str] = set()


def get_backend(name: str = DEFAULT) -> Backend:
    """Return a new backend of this name, which passed the self-test in this process.

    Raises:
        ConfigError: no such backend, its library is missing or does not work here, or it computes
            something else than every other node.
    """
    backend = make_backend(name)
    if name not in _admitted:
        try:
            self_test(backend)
        except MlchainError as error:
            raise ConfigError(
                f"backend {name}: {error.message}", f'backend = "{DEFAULT}" works everywhere'
            ) from error
        except Exception as error:  # of a library that is not ours, in whatever way it fails
            raise ConfigError(
                f"backend {name}: {_first_line(error)}", f'backend = "{DEFAULT}" works everywhere'
            ) from error
        _admitted.add(name)
    return backend


def make_backend(name: str) -> Backend:
    """Return a new backend that has not been tested; for examining it. Errors as `get_backend`."""
    kind = BACKENDS.get(name)
    if kind is None:
        raise ConfigError(f"backend: no {name!r}", "one of " + ", ".join(BACKENDS))
    try:
        return kind.make()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"backend {name}: {error.name} is not installed", f"pip install 'mlchain[{kind.extra}]'"
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # a library that does not load or finds no device
        raise ConfigError(
            f"backend {name}: {_first_line(error)}", "mlchain doctor --runtime"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
