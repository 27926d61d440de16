"""Custody digests: keyed over bulk data that re-running a chunk leaves behind, and nothing else.

States at the ends of chunks are served to whoever asks, so a digest of them shows nothing. The raw
sums inside a step do: they are on no disk, do not follow from the states around the chunk, and have
the same bits on every backend. The key draws which are taken, so that nobody can keep them for
others, or hand on less than all of them, without knowing it:

    steps   the last of the chunk, and each other one with probability 1/8
    tiles   of every accumulator of such a step an eighth of its elements, in one piece

The digest is BLAKE3, keyed, over the tiles in order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlchain.crypto import digest, keyed_hasher
from mlchain.ml_runtime.machine import Backend, Loop, Run
from mlchain.ml_runtime.program import Checked, Program, check
from mlchain.ml_runtime.tensor import Array, Type, allocate, normalised

TILE = 8
"""One in so many steps, and of these one in so many elements."""
WHOLE = 64
"""Accumulators of at most so many elements are taken whole."""


def accumulators(checked: Checked) -> tuple[int, ...]:
    """Return the registers that hold raw sums; all that is real, in a program without sums."""
    filled = [
        (register, step.op.accumulates and checked.types[register].elements > 1)
        for step in checked.steps
        for register in step.outputs
        if checked.types[register].kind == "F" and register not in checked.program.outputs
    ]
    return tuple(r for r, is_sum in filled if is_sum) or tuple(r for r, _ in filled)


def exposed_bytes(checked: Checked) -> int:
    """Return the memory that the accumulators of one step take beside the arena."""
    return sum(checked.types[r].bytes for r in accumulators(checked))


class Exposed:
    """A step program that leaves its accumulators in view; `x`, `y` are the batch, as bound."""

    def __init__(self, backend: Backend, program: Program, x: Array, y: Array) -> None:
        checked = check(program)
        self.registers = accumulators(checked)
        self.types = tuple(checked.types[r] for r in self.registers)
        self.values = [allocate(kind) for kind in self.types]
        self._old = [allocate(kind) for kind in program.inputs[2:]]
        self._new = [np.zeros_like(array) for array in self._old]
        self._loss = np.zeros(())
        wanted = Program(program.inputs, program.nodes, (*program.outputs, *self.registers))
        outputs = [*self._new, self._loss, *self.values]
        self._run: Run = backend.bind(wanted, [x, y, *self._old], outputs)

    def step(self, loop: Loop) -> float:
        """Run the step that is due in place of `loop`, which goes on after it; return the loss.

        Raises:
            Trap: a value left the exact range.
        """
        for array, tensor in zip(self._old, loop.state(), strict=True):
            np.copyto(array, tensor)
        self._run()
        loop.load(self._new)
        return float(self._loss)


class Tap:
    """What of one chunk's accumulators goes into its digest under `key` (32 bytes)."""

    def __init__(self, key: bytes, chunk: int, last: int) -> None:
        self._key, self._last = key, last
        self._hasher = keyed_hasher(key)
        self._hasher.update(_word(chunk))

    def wants(self, step: int) -> bool:
        """Tell whether the accumulators of a step are taken."""
        if step == self._last:
            return True
        return digest("mlchain/custody-step", self._key, _word(step))[0] < 256 // TILE

    def absorb(
        self, step: int, registers: Sequence[int], types: Sequence[Type], values: Sequence[Array]
    ) -> None:
        """Take the tiles of a step."""
        drawn = digest("mlchain/custody-tile", self._key, _word(step))
        for register, kind, value in zip(registers, types, values, strict=True):
            flat = value.reshape(-1)
            if flat.size > WHOLE:
                at = (drawn[register % len(drawn)] + register) % TILE
                flat = flat[at * flat.size // TILE : (at + 1) * flat.size // TILE]
            tile = np.ascontiguousarray(normalised(kind, flat), "<f8")
            self._hasher.update(_word(step) + _word(register))
            self._hasher.update(tile.view(np.uint8).data)

    def digest(self) -> bytes:
        """Return the custody digest of what was taken."""
        return self._hasher.digest()


def _word(number: int) -> bytes:
    return number.to_bytes(8, "little")
