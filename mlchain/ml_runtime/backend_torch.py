"""The torch backends: products by torch on a CPU, whole programs on a GPU.

`TorchProducts` is the numpy backend with torch's matrix products. `TorchBackend` runs every op as
kernels of its own on a device (`backend_torch_ops`). Tensors stay there between ops, and in a
`loop` dataset and state stay there between steps: numbers of rows go in, loss and traps come out.
On a GPU the kernels of a step are recorded once and replayed as a CUDA graph, which fuses nothing.

Needs the extra `mlchain[torch]`; use it by `backends.get_backend`, which tests it first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from mlchain.errors import ConfigError, Trap
from mlchain.ml_runtime.backend_torch_device import Device, Tensor
from mlchain.ml_runtime.backend_torch_ops import KERNELS
from mlchain.ml_runtime.data import FRACTION, Dataset
from mlchain.ml_runtime.functions import Scratch
from mlchain.ml_runtime.machine import NumpyBackend, Run, Trace
from mlchain.ml_runtime.op import Call
from mlchain.ml_runtime.program import Checked, Program, Step, check
from mlchain.ml_runtime.tensor import Array, Type, allocate, digest

VERSION: str = torch.__version__


class TorchProducts(NumpyBackend):
    """The numpy backend with products by torch's BLAS; a CPU's other kernels are not exact."""

    name = "torch"

    def bind_op(self, step: Step, call: Call) -> Run:
        """Return the product by torch, or the numpy forward."""
        if step.op.name != "matmul" or not all(a.flags.writeable for a in call.ins):
            return super().bind_op(step, call)
        (a, b), out = map(torch.from_numpy, call.ins), torch.from_numpy(call.outs[0])
        a, b = a.mT if call.attrs[0] else a, b.mT if call.attrs[1] else b
        return partial(torch.matmul, a, b, out=out)


class TorchBackend:
    """Whole programs on a device: "cuda", or "cpu" to try the same kernels without a GPU."""

    def __init__(self, device: str = "cuda") -> None:
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("torch finds no GPU", 'backend = "torch" runs on the CPU')
        self.name = f"torch:{device}"
        self._device = Device(device)
        self._scratch = Scratch()

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        """Bind a program; see `machine.Backend`."""
        checked = check(program)

        def run() -> None:
            self._device.checks.clear()
            results = self._evaluate(checked, [self._upload(a) for a in inputs], trace)
            self._raise_trap()
            for array, result in zip(outputs, results, strict=True):
                np.copyto(array, result.cpu().numpy())

        return run

    def loop(
        self, program: Program, dataset: Dataset, rows: Array, state: Sequence[Array]
    ) -> TorchLoop:
        """Return a step program as a loop; see `train.HoldsState`."""
        return TorchLoop(self, self._device, check(program), dataset, rows, state)

    def _upload(self, array: Array) -> Tensor:
        usable = array if array.flags.writeable and array.flags.aligned else array.copy()
        return torch.from_numpy(usable).to(self._device.name, copy=True)

    def _evaluate(
        self, checked: Checked, inputs: Sequence[Tensor], trace: Trace | None = None
    ) -> list[Tensor]:
        """Return the results of a program; what trapped is noted on the device."""
        registers: dict[int, Tensor] = dict(enumerate(inputs))
        last = {r: i for i, step in enumerate(checked.steps) for r in step.inputs}
        results = frozenset(checked.program.outputs)
        for i, step in enumerate(checked.steps):
            types = [checked.types[r] for r in step.outputs]
            ins = [registers[r] for r in step.inputs]
            kernel = KERNELS.get(step.op.name)
            if kernel is None:
                outs = self._on_host(step, ins, types)
            else:
                outs = list(kernel(self._device, ins, step.attrs, types))
            if trace is not None:
                self._raise_trap()
                trace.extend(digest(k, t.cpu().numpy()) for k, t in zip(types, outs, strict=True))
            registers.update(zip(step.outputs, outs, strict=True))
            for r in (*step.inputs, *step.outputs):
                if last.get(r, i) == i and r not in results:
                    registers.pop(r, None)
        return [registers[r] for r in checked.program.outputs]

    def _on_host(self, step: Step, ins: list[Tensor], types: list[Type]) -> list[Tensor]:
        """Run an op without a kernel by its numpy forward."""
        self._raise_trap()
        outs = [allocate(kind) for kind in types]
        arrays = [np.array(t.cpu().numpy(), order="C") for t in ins]
        with np.errstate(all="ignore"):
            step.op.forward(Call(outs, arrays, step.attrs, self._scratch))
        return [self._upload(out) for out in outs]

    def _raise_trap(self) -> None:
        """Raise the first trap noted so far; waits for the device."""
        checks = self._device.checks
        if checks:
            good = torch.stack([good for good, _ in checks]).tolist()
            raise_first([words for _, words in checks], good)
            checks.clear()


class TorchLoop:
    """A step program whose dataset and state stay on the device.

    It is recorded as a CUDA graph where every op has a kernel. Only numbers of rows go in.
    """

    def __init__(
        self,
        backend: TorchBackend,
        device: Device,
        checked: Checked,
        dataset: Dataset,
        rows: Array,
        state: Sequence[Array],
    ) -> None:
        self._backend, self._device, self._checked = backend, device, checked
        self._host_rows = torch.from_numpy(rows)
        self._rows, self._x, self._y = map(backend._upload, (rows, dataset.x, dataset.y))
        self._state = [backend._upload(a) for a in state]
        self._words: list[str] = []
        self._report: Tensor = None
        self.is_recorded = False
        self._run: Callable[[], Any] = self._compute
        if not device.is_cpu and all(step.op.name in KERNELS for step in checked.steps):
            self._run = self._record()

    def load(self, state: Sequence[Array]) -> None:
        """Put a state on the device."""
        for tensor, array in zip(self._state, state, strict=True):
            tensor.copy_(self._backend._upload(array))

    def step(self) -> float:
        """Run one step on the rows that are due; return the loss.

        Raises:
            Trap: a value left the exact range; the state is then of no use.
        """
        self._rows.copy_(self._host_rows)
        self._run()
        loss, *good = self._report.tolist()
        raise_first(self._words, good)
        return float(loss)

    def state(self) -> list[Array]:
        """Return a copy of the state."""
        return [tensor.cpu().numpy() for tensor in self._state]

    def _compute(self) -> None:
        """One step: the state is replaced, loss and checks are gathered in one tensor."""
        checks = self._device.checks
        checks.clear()
        x = self._x.index_select(0, self._rows).to(torch.float64) * 2.0**-FRACTION
        y = self._y.index_select(0, self._rows)
        *new, loss = self._backend._evaluate(self._checked, [x, y, *self._state])
        self._words = [words for _, words in checks]
        good = [each.to(torch.float64).reshape(1) for each, _ in checks]
        self._report = torch.cat([loss.reshape(1), *good])
        checks.clear()
        for old, tensor in zip(self._state, new, strict=True):
            old.copy_(tensor)

    def _record(self) -> Callable[[], Any]:
        """Record the kernels of a step, after a run that lets libraries set themselves up."""
        kept = [tensor.clone() for tensor in self._state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute()
        for tensor, before in zip(self._state, kept, strict=True):
            tensor.copy_(before)
        self.is_recorded = True
        replay: Callable[[], Any] = graph.replay
        return replay


def raise_first(words: Sequence[str], good: Sequence[float]) -> None:
    """Raise the trap of the first check that failed."""
    for said, fine in zip(words, good, strict=True):
        if not fine:
            raise Trap(said)
