"""What a step of a convolutional net, a transformer and a vision transformer costs beside torch.

    OPENBLAS_NUM_THREADS=1 python benchmarks/nets.py [--repeats N] [--ops]

Rivals take turns in one process; each ratio is the median over turns. Torch computes the same net
in binary32 on as many threads, with its own layers and fused attention, as people write it; the
twins of accuracy.py, which repeat the models op by op, would be a slower rival. `--ops` adds where
the time of an exact step goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.training import exact_stepper, machine, ratio, time_in_turns
from mlchain.ml_runtime import Dataset, NumpyBackend, Task, Trainer, make_plan
from mlchain.ml_runtime.machine import Run
from mlchain.ml_runtime.op import Call
from mlchain.ml_runtime.plan import check_plan
from mlchain.ml_runtime.program import Step as Node

SEED = b"\x07" * 32
ROWS, CLASSES = 512, 10
Step = Callable[[], object]

NETS: dict[str, dict[str, Any]] = {
    "cnn": {"features": 784, "batch": 32, "channels": (8, 16)},
    "transformer": {
        "features": 32, "batch": 32, "vocabulary": 64, "width": 64, "heads": 4, "layers": 2
    },
    "vit": {"features": 784, "batch": 32, "patch": 7, "width": 64, "heads": 4, "layers": 2},
}  # fmt: skip


class Profiled(NumpyBackend):
    """The numpy backend, with the time of every kind of op added up."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)

    def bind_op(self, step: Node, call: Call) -> Run:
        """Bind an op so that its time is taken."""
        run, name = super().bind_op(step, call), step.op.name

        def timed() -> None:
            start = time.perf_counter()
            run()
            self.seconds[name] += time.perf_counter() - start
            self.calls[name] += 1

        return timed


def rows_of(name: str, net: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return random rows as the net takes them, and labels."""
    r = np.random.default_rng(0)
    if name == "transformer":
        return r.integers(0, net["vocabulary"], (ROWS, net["features"])), r.integers(0, 10, ROWS)
    return r.random((ROWS, net["features"])), r.integers(0, CLASSES, ROWS)


def make_trainer(name: str, backend: NumpyBackend | None = None) -> Trainer:
    """Return a trainer of one endless chunk, its state loaded."""
    net = NETS[name]
    x, y = rows_of(name, net)
    plan = make_plan(name, classes=CLASSES, **net)
    task = Task(plan.encode(), 1 << 30, 1 << 30, ROWS, 0)
    data = Dataset.from_arrays(x, y, classes=CLASSES, tokens=name == "transformer")
    trainer = Trainer(task, data, SEED, backend)
    trainer._loop.load(trainer.initial_state().tensors)
    return trainer


def torch_stepper(name: str) -> Step | None:
    """Return a step of the same net in torch float32, None where torch is not installed."""
    try:
        import torch
        from torch import nn
        from torch.nn import functional
    except ImportError:
        return None
    torch.set_num_threads(int(os.environ.get("OPENBLAS_NUM_THREADS", os.cpu_count() or 1)))
    net = NETS[name]
    width, heads = net.get("width", 0), net.get("heads", 1)

    class Block(nn.Module):
        def __init__(self, causal: bool) -> None:
            super().__init__()
            self.causal = causal
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.inner = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))
            self.mix, self.wide = nn.Linear(width, width), nn.Linear(width, 4 * width)
            self.narrow = nn.Linear(4 * width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, places, _ = x.shape
            u = self.norm1(x)
            q, k, v = (p(u).reshape(n, places, heads, -1).transpose(1, 2) for p in self.inner)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
            x = x + self.mix(mixed.transpose(1, 2).reshape(n, places, width))
            wide = functional.gelu(self.wide(self.norm2(x)), approximate="tanh")
            return x + self.narrow(wide)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = net.get("patch", 0)
            places = (28 // self.patch) ** 2 if self.patch else net["features"]
            self.start = (
                nn.Linear(self.patch**2, width)
                if self.patch
                else nn.Embedding(net["vocabulary"], width)
            )
            self.places = nn.Parameter(torch.zeros(places, width))
            self.blocks = nn.Sequential(*(Block(not self.patch) for _ in range(net["layers"])))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.patch:
                images = x.reshape(-1, 1, 28, 28)
                x = functional.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
            h = self.norm(self.blocks(self.start(x) + self.places))
            return self.head(h.mean(1) if self.patch else h[:, -1])

    def convolutional() -> nn.Module:
        layers: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
        for i, o in zip((1, *net["channels"]), net["channels"], strict=False):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(49 * net["channels"][-1], CLASSES))

    model = convolutional() if name == "cnn" else Transformer()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.001)
    x, y = (torch.from_numpy(a) for a in rows_of(name, net))
    x = x if name == "transformer" else x.float()
    order = np.random.default_rng(1)

    def step() -> None:
        rows = torch.from_numpy(order.integers(0, ROWS, net["batch"]))
        optimiser.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimiser.step()
        assert np.isfinite(loss.item())

    return step


def main() -> None:
    """Measure every net and print one row each."""
    parser = argparse.ArgumentParser(description="What exactness costs nets.")
    parser.add_argument("--repeats", type=int, default=60, help="steps of each rival")
    parser.add_argument("--ops", action="store_true", help="where the time goes")
    parser.add_argument("--nets", default=",".join(NETS), help="which, divided by commas")
    arguments = parser.parse_args()
    print(machine())
    print(f"{'net':12} {'exact ms':>9} {'torch32 ms':>11} {'/ torch32':>10} {'ns / gas':>9}")
    for name in arguments.nets.split(","):
        trainer = make_trainer(name)
        steps: dict[str, Step] = {"exact": exact_stepper(trainer)}
        rival = torch_stepper(name)
        if rival is not None:
            steps["torch32"] = rival
        times = time_in_turns(steps, arguments.repeats)
        exact = statistics.median(times["exact"])
        other = f"{statistics.median(times['torch32']):.3f}" if rival else "-"
        gas = check_plan(trainer.plan).gas_per_step
        over = ratio(times, "exact", "torch32")
        print(f"{name:12} {exact:9.3f} {other:>11} {over:>10} {exact * 1e6 / gas:9.2f}")
        if arguments.ops:
            backend = Profiled()
            step = exact_stepper(make_trainer(name, backend))
            for _ in range(arguments.repeats):
                step()
            for op, seconds in sorted(backend.seconds.items(), key=lambda pair: -pair[1])[:16]:
                count, each = backend.calls[op], seconds / arguments.repeats * 1e3
                print(f"    {op:24} {count // arguments.repeats:3} times {each:8.3f} ms")


if __name__ == "__main__":
    main()
