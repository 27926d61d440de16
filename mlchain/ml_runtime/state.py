"""The state between steps: parameters and whatever the optimiser keeps, all exactly binary32."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlchain.errors import CodecError, Trap
from mlchain.ml_runtime import tree
from mlchain.ml_runtime.grid import peak, round_state
from mlchain.ml_runtime.op import bits_to_real
from mlchain.ml_runtime.plan import Plan
from mlchain.ml_runtime.random import make_key, uniform
from mlchain.ml_runtime.tensor import (
    Array,
    allocate,
    digest_state,
    header,
    storage,
    stored,
)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Tensors in the order of `Plan.state`. The arrays are not to be changed."""

    tensors: tuple[Array, ...]

    def encode(self) -> bytes:
        """Return header and little-endian elements of every tensor, one after the other."""
        return b"".join(header(stored(*t.shape)) + t.tobytes() for t in self.tensors)

    @staticmethod
    def decode(data: bytes, plan: Plan) -> State:
        """Return the state of `plan` whose canonical bytes are `data`.

        Raises:
            CodecError: another size, another shape, or an element that is not a state's: not
                finite, or -0, or a magnitude that state rounding would flush.
        """
        kinds = [stored(*spec.shape) for spec in plan.state]
        size = sum(len(header(k)) + k.bytes for k in kinds)
        if len(data) != size:
            raise CodecError(f"state: {len(data)} bytes, not {size}")
        tensors, at = [], 0
        for spec, kind in zip(plan.state, kinds, strict=True):
            head = header(kind)
            if data[at : at + len(head)] != head:
                raise CodecError(f"state {spec.name}: header does not match the plan")
            at += len(head)
            raw = np.frombuffer(data, storage(kind), kind.elements, at)
            at += kind.bytes
            if not is_state(raw):
                raise CodecError(f"state {spec.name}: an element is no finite rounded state")
            tensors.append(raw.reshape(kind.shape))
        return State(tuple(tensors))

    def digest(self) -> bytes:
        """Return the Merkle root over the digests of the tensors."""
        return tree.root(tree.STATE, self.tensor_digests())

    def tensor_digests(self) -> list[bytes]:
        """Return the digests of the tensors, the leaves under the digest of the state."""
        return [digest_state(t) for t in self.tensors]

    def require_finite(self) -> None:
        """Trap unless every element is finite; called where a state is committed."""
        for tensor in self.tensors:
            if not math.isfinite(peak(tensor)):
                raise Trap("state: an element is not finite in binary32")


def is_state(raw: Array) -> bool:
    """Whether rounding these elements as state gives them back, bit for bit."""
    if not math.isfinite(peak(raw)):
        return False
    again = np.empty_like(raw)
    round_state(raw.astype(np.float64), again)
    return again.tobytes() == raw.tobytes()


def initial_state(plan: Plan, seed: bytes) -> State:
    """Return the state before step 0; tensor i draws from stream ("init", i) of `seed`."""
    return State(tuple(initial_tensor(plan, seed, i) for i in range(len(plan.state))))


def initial_tensor(plan: Plan, seed: bytes, index: int) -> Array:
    """Return one tensor of the state before step 0."""
    spec = plan.state[index]
    kind = stored(*spec.shape)
    tensor = allocate(kind)
    if spec.init == "ones":
        tensor.fill(1.0)
    elif spec.init == "uniform":
        draws = uniform(make_key(seed, "init", index), kind.elements).reshape(spec.shape)
        round_state((draws * 2.0 - 1.0) * bits_to_real(spec.limit), tensor)
    return tensor
