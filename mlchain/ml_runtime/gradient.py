"""Reverse-mode differentiation, program to program: training is metered and verified like anything.

Walk the nodes of a builder backwards; each op says, as further ops, what its output's gradient
means for its inputs. Source: Linnainmaa (1970); shape after autodidact (program transformation,
not a tape of closures).
"""

from __future__ import annotations

from collections.abc import Sequence

from mlchain.errors import RejectedProgram
from mlchain.ml_runtime.builder import Builder
from mlchain.ml_runtime.op import OPS


def gradients(b: Builder, loss: int, wrt: Sequence[int]) -> list[int]:
    """Emit the gradients of the scalar `loss` and return their registers, one per `wrt`.

    Gradients that no `wrt` needs are emitted too and dropped by `Builder.program`.

    Raises:
        RejectedProgram: an op on the way has no gradient, or a register does not matter.
    """
    assert b.type(loss).shape == (), "a loss is one number"
    adjoint = {loss: b.emit("constant", value=1.0)}
    for node in reversed(tuple(b.nodes)):
        if not node.outputs or node.outputs[0] not in adjoint:
            continue
        for register, g in OPS[node.op].gradient(b, node, adjoint[node.outputs[0]]):
            if register in adjoint:
                g = b.emit("add", adjoint[register], g)
            adjoint[register] = g
    for register in wrt:
        if register not in adjoint:
            raise RejectedProgram(f"register {register}: the loss does not depend on it")
    return [adjoint[register] for register in wrt]
