"""Running programs: the backend protocol, and the numpy backend over a preallocated arena.

A backend binds a program to arrays once and gives back a function to call for every step; the
arrays are read and filled in place. Nothing is allocated per step but a few row-sized vectors,
since fresh pages cost more than the arithmetic.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from mlchain.errors import Trap
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.grid import peak
from mlchain.ml_runtime.op import Call
from mlchain.ml_runtime.program import Checked, Program, Step, check
from mlchain.ml_runtime.tensor import Array, Type, allocate, digest, storage

ALIGNMENT = 64

Trace = list[bytes]
Run = Callable[[], None]


class Loop(Protocol):
    """A step program (x, y, state -> next state, loss) that runs again and again."""

    def load(self, state: Sequence[Array]) -> None:
        """Begin at this state."""

    def step(self) -> float:
        """Run one step on the rows that are due; return the loss.

        Raises:
            Trap: a value left the exact range; the state is then of no use.
        """

    def state(self) -> Sequence[Array]:
        """Return the state, in arrays that do not outlive the next step."""


class Backend(Protocol):
    """Something that runs programs; all backends give the same bits.

    `bind` returns a function that fills `outputs` from `inputs` at every call, and raises Trap
    where values leave the exact range. Arrays have the storage form of `tensor.allocate`, and
    outputs overlap no inputs. With a `trace`, the digest of every op's outputs is appended to it.
    """

    name: str

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program to the arrays it reads and fills."""


class HostLoop:
    """The loop of a backend that works on the host's memory: two banks of state take turns.

    `bind` returns what runs a step from the first arrays, a state, into the second, the next state
    and the loss. `state` are arrays for the loop to keep.
    """

    def __init__(
        self, bind: Callable[[Sequence[Array], Sequence[Array]], Run], state: Sequence[Array]
    ) -> None:
        self._loss = np.zeros(())
        self._banks = [list(state), [np.zeros_like(array) for array in state]]
        self._runs = [
            bind(old, [*new, self._loss]) for old, new in (self._banks, self._banks[::-1])
        ]
        self._side = 0

    def load(self, state: Sequence[Array]) -> None:
        """Begin at this state."""
        self._side = 0
        for array, tensor in zip(self._banks[0], state, strict=True):
            np.copyto(array, tensor)

    def step(self) -> float:
        """Run one step; see Loop."""
        self._runs[self._side]()
        self._side = 1 - self._side
        return float(self._loss)

    def state(self) -> Sequence[Array]:
        """Return the state; see Loop."""
        return self._banks[self._side]


def plan_arena(checked: Checked) -> tuple[dict[int, int], int]:
    """Place every intermediate tensor; return byte offsets by register, and the arena's size.

    First fit by lifetime: an op's output may take the place of what dies there, or of its first
    input if the op works in place. Registers that are results of the program live elsewhere.
    Integers only: the size is known before anything is allocated.
    """
    last = {r: i for i, step in enumerate(checked.steps) for r in step.inputs}
    results = frozenset(checked.program.outputs)
    offsets: dict[int, int] = {}
    live: list[tuple[int, int]] = []  # (offset, end), ascending, disjoint
    top = 0
    for i, step in enumerate(checked.steps):
        dying = [r for r in dict.fromkeys(step.inputs) if last[r] == i and r in offsets]
        for r in step.outputs:
            if r in results:
                continue
            size = _aligned(checked.types[r].bytes)
            heirs = [d for d in dying if checked.types[d].bytes == checked.types[r].bytes]
            if step.op.in_place and heirs:
                offsets[r] = offsets[heirs[0]]
                dying.remove(heirs[0])
            else:
                offsets[r] = _first_gap(live, size)
                insort(live, (offsets[r], offsets[r] + size))
                top = max(top, offsets[r] + size)
            if r not in last:  # read by nobody
                dying.append(r)
        for r in dying:
            live.remove((offsets[r], offsets[r] + _aligned(checked.types[r].bytes)))
    return offsets, top


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _first_gap(live: list[tuple[int, int]], size: int) -> int:
    offset = 0
    for begin, end in live:
        if begin - offset >= size:
            break
        offset = end
    return offset


class Arena:
    """Memory for the intermediate tensors of one program at a time, kept from run to run."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def place(self, checked: Checked, arrays: dict[int, Array]) -> None:
        """Add an array for every register of `checked` that `plan_arena` places."""
        offsets, size = plan_arena(checked)
        if self._bytes.size < size + ALIGNMENT:
            self._bytes = np.empty(size + ALIGNMENT, np.uint8)
        base = -self._bytes.ctypes.data % ALIGNMENT
        for register, offset in offsets.items():
            kind = checked.types[register]
            raw = self._bytes[base + offset : base + offset + kind.bytes]
            arrays[register] = raw.view(storage(kind)).reshape(kind.shape)


class NumpyBackend:
    """The normative fast path: BLAS for exact products, one ufunc call per rounding.

    One instance keeps one workspace for all programs it binds; it is not for two threads.
    """

    name = "numpy"

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._arena = Arena()

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program; see Backend."""
        checked = check(program)
        arrays = dict(enumerate(inputs))
        for register, array in zip(program.outputs, outputs, strict=True):
            arrays.setdefault(register, array)
        self._arena.place(checked, arrays)
        calls: list[Run] = []
        for step in checked.steps:
            outs, ins = ([arrays[r] for r in each] for each in (step.outputs, step.inputs))
            calls.append(self.bind_op(step, Call(outs, ins, step.attrs, self._scratch)))
            if trace is not None:
                kinds = [checked.types[r] for r in step.outputs]
                calls.append(partial(_trace, trace, kinds, [arrays[r] for r in step.outputs]))
        for register, array in zip(program.outputs, outputs, strict=True):
            if arrays[register] is not array:  # a result twice, or an input as a result
                calls.append(partial(np.copyto, array, arrays[register]))
        return partial(run_all, calls)

    def bind_op(self, step: Step, call: Call) -> Run:
        """Return what runs one op on its arrays; what a faster backend replaces."""
        return partial(step.op.forward, call)


def bind_step(step: Step, arrays: Mapping[int, Array], scratch: Scratch, before: int = 0) -> Run:
    """Return the forward pass of one op on its arrays; `before` is for shards, see `Call`."""
    outs, ins = ([arrays[r] for r in registers] for registers in (step.outputs, step.inputs))
    return partial(step.op.forward, Call(outs, ins, step.attrs, scratch, before))


def run_all(calls: Sequence[Run]) -> None:
    """Make the calls in order; what leaves binary64 is found where it matters, not warned of."""
    with np.errstate(all="ignore"):
        for call in calls:
            call()


def _trace(trace: Trace, kinds: list[Type], arrays: list[Array]) -> None:
    trace.extend(digest(k, a) for k, a in zip(kinds, arrays, strict=True))


def execute(
    program: Program, inputs: Sequence[Array], backend: Backend, trace: Trace | None = None
) -> list[Array]:
    """Run a program once and return its results in new arrays.

    Raises:
        RejectedProgram: the program does not pass the check.
        Trap: a value left the exact range.
    """
    types = check(program).types
    outputs = [allocate(types[r]) for r in program.outputs]
    backend.bind(program, inputs, outputs, trace)()
    require_finite(outputs)
    return outputs


def require_finite(arrays: Sequence[Array]) -> None:
    """Trap unless every element of every array is finite."""
    for array in arrays:
        if not math.isfinite(peak(array)):
            raise Trap("output: a value is not finite")
