"""The exact runtime on a GPU: the same bits as on the CPU, and how fast.

    PYTHONPATH=. python benchmarks/gpu.py [--device cuda] [--seconds 200] [--json FILE]

Runs the self-test and every conformance vector on the torch backend, trains nets for some steps and
compares the digest of the state after every step with the numpy backend's on the CPU, then times
both, with torch in float32 on the same device beside. Prints a table and one JSON document; ends
with 1 if anything differed. Needs torch, numpy and the base of mlchain alone. `--device cpu` tries
the script without a GPU, with small nets.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlchain.errors import MlchainError
from mlchain.ml_runtime import Dataset, NumpyBackend, State, Task, Trainer, make_plan
from mlchain.ml_runtime.backend_torch import TorchBackend
from mlchain.ml_runtime.examination import examine
from mlchain.ml_runtime.models import MODELS

SEED, ROWS, CLASSES = b"\x01" * 32, 4096, 10
COMPARED_STEPS, MAX_TIMED_STEPS, TIMED_SECONDS = 5, 300, 3.0


@dataclass
class Net:
    """A net to train: model, batch, features of a row, options of the model."""

    name: str
    model: str
    batch: int
    features: int
    options: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0


NETS = [
    Net("784-256-10, 128 rows", "mlp", 128, 784, {"hidden": (256,)}),
    Net("784-1024-1024-10, 512 rows", "mlp", 512, 784, {"hidden": (1024, 1024)}),
    Net("784-4096x3-10, 2048 rows", "mlp", 2048, 784, {"hidden": (4096, 4096, 4096)}),
    Net("cnn 32-64, 28 x 28, 256 rows", "cnn", 256, 784, {"channels": (32, 64), "hidden": (128,)}),
    Net(
        "transformer 4 x 256, 64 places, 64 rows", "transformer", 64, 64,
        {"vocabulary": 1000, "width": 256, "heads": 4, "layers": 4}, tokens=1000,
    ),
]  # fmt: skip
SMALL = [
    Net("64-32-10, 32 rows", "mlp", 32, 64, {"hidden": (32,)}),
    Net("cnn 4, 8 x 8, 16 rows", "cnn", 16, 64, {"channels": (4,)}),
    Net(
        "transformer 1 x 16, 8 places, 8 rows", "transformer", 8, 8,
        {"vocabulary": 20, "width": 16, "heads": 2, "layers": 1}, tokens=20,
    ),
]  # fmt: skip


def check_vectors(backend: TorchBackend) -> dict[str, Any]:
    """Return how many cases of the long examination are equal, and what differs in each other."""
    start = time.perf_counter()
    verdicts = list(examine(backend))
    differs = {v.case: v.reason for v in verdicts if not v.is_equal}
    seconds = time.perf_counter() - start
    return {"cases": len(verdicts), "differs": differs, "ok": not differs, "seconds": seconds}


def make_trainer(net: Net, backend: Any) -> Trainer:
    """Return a trainer of one endless chunk on made-up rows."""
    r = np.random.default_rng(0)
    labels = r.integers(0, CLASSES, ROWS)
    if net.tokens:
        x = r.integers(0, net.tokens, (ROWS, net.features))
        data = Dataset.from_arrays(x, labels, classes=CLASSES, tokens=True)  # type: ignore[call-arg]
    else:
        data = Dataset.from_arrays(r.random((ROWS, net.features)), labels, classes=CLASSES)
    plan = make_plan(
        net.model, features=net.features, classes=CLASSES, batch=net.batch, optimiser="adam",
        rate=0.001, **net.options,
    )  # fmt: skip
    return Trainer(Task(plan.encode(), 1 << 30, 1 << 30, ROWS, 0), data, SEED, backend)


def steps_of(trainer: Trainer) -> Iterator[float]:
    """Train from the initial state, yielding the loss of every step."""
    trainer._loop.load(trainer.initial_state().tensors)
    for step in range(1 << 30):
        trainer._rows[...] = trainer._order.batch(step)
        yield trainer._loop.step()


def chain(trainer: Trainer, steps: int, until: float) -> list[str]:
    """Return the state digests of the first steps, or of as many as fit the time."""
    digests: list[str] = []
    for _ in steps_of(trainer):
        digests.append(State(tuple(trainer._loop.state())).digest().hex())
        if len(digests) == steps or time.perf_counter() > until:
            break
    return digests


def rate_of(step: Callable[[], object], device: str) -> float:
    """Return steps a second."""
    for _ in range(2):
        step()
    _wait(device)
    start, count = time.perf_counter(), 0
    while count < MAX_TIMED_STEPS and (count < 2 or time.perf_counter() - start < TIMED_SECONDS):
        step()
        count += 1
    _wait(device)
    return count / (time.perf_counter() - start)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def float32_stepper(net: Net, device: str) -> Callable[[], object] | None:
    """Return a step of the same net in torch float32, rows on the device; None if not written."""
    module = peer(net)
    if module is None:
        return None
    r = np.random.default_rng(0)
    kind = torch.long if net.tokens else torch.float32
    shape = (ROWS, net.features)
    x = r.integers(0, net.tokens, shape) if net.tokens else r.random(shape)
    inputs = torch.tensor(x, dtype=kind, device=device)
    targets = torch.tensor(r.integers(0, CLASSES, ROWS), device=device)
    module = module.to(device)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.001)

    def step() -> None:
        rows = torch.randint(0, ROWS, (net.batch,), device=device)
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(module(inputs[rows]), targets[rows]).backward()
        optimiser.step()

    return step


def peer(net: Net) -> torch.nn.Module | None:
    """Return the net as an experienced user of torch writes it."""
    nn, layers = torch.nn, []
    if net.model == "mlp":
        sizes = [net.features, *net.options["hidden"], CLASSES]
        for i, o in pairwise(sizes):
            layers += [nn.Linear(i, o), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
    if net.model == "cnn":
        side, width = int(net.features**0.5), 1
        layers = [nn.Unflatten(1, (1, side, side))]
        for channels in net.options["channels"]:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            width, side = channels, side // 2
        layers.append(nn.Flatten())
        width *= side * side
        for hidden in net.options.get("hidden", ()):
            layers += [nn.Linear(width, hidden), nn.ReLU()]
            width = hidden
        return nn.Sequential(*layers, nn.Linear(width, CLASSES))
    if net.model == "transformer":
        return TransformerPeer(net)
    return None


class TransformerPeer(torch.nn.Module):
    """Embeddings, causal blocks with norms first, the last place's class."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        nn, o = torch.nn, net.options
        self.tokens = nn.Embedding(o["vocabulary"], o["width"])
        self.places = nn.Parameter(torch.zeros(net.features, o["width"]))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                o["width"],
                o["heads"],
                4 * o["width"],
                0.0,
                "gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(o["layers"])
        )
        self.norm, self.out = nn.LayerNorm(o["width"]), nn.Linear(o["width"], CLASSES)
        mask = nn.Transformer.generate_square_subsequent_mask(net.features)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tokens(x) + self.places
        for block in self.blocks:
            x = block(x, src_mask=self.mask, is_causal=True)
        return self.out(self.norm(x)[:, -1])


def measure(net: Net, device: str, until: float) -> dict[str, Any]:
    """Compare a net's chain of digests with the CPU's, then time device, CPU and float32."""
    on_device = make_trainer(net, TorchBackend(device))
    on_host = make_trainer(net, NumpyBackend())
    share = time.perf_counter() + (until - time.perf_counter()) / 3
    expected = chain(on_host, COMPARED_STEPS, share)
    got = chain(on_device, len(expected), until)
    equal = sum(a == b for a, b in zip(expected, got, strict=True))
    report: dict[str, Any] = {
        "net": net.name, "state_mb": on_host.cost.state_bytes / 1e6, "compared": len(expected),
        "equal": equal, "ok": equal == len(expected),
        "recorded": getattr(on_device._loop, "is_recorded", False), "last_digest": got[-1],
    }  # fmt: skip
    running = steps_of(on_device)
    report["device steps/s"] = rate_of(lambda: next(running), device)
    host = steps_of(on_host)
    report["cpu steps/s"] = rate_of(lambda: next(host), "cpu")
    step = float32_stepper(net, device)
    if step is not None:
        report["float32 steps/s"] = rate_of(step, device)
    return report


def products(device: str, size: int) -> dict[str, Any]:
    """Time square products: float64, float32 and int8, in 10^12 multiply-adds x 2 a second."""
    r = np.random.default_rng(0)
    grid = torch.tensor(r.integers(-(2**15), 2**15, (size, size)), device=device)
    wide, single = grid.to(torch.float64), grid.to(torch.float32)
    narrow = (grid >> 8).to(torch.int8)
    work = 2 * size**3 / 1e12
    report: dict[str, Any] = {"size": size}
    for name, call in {
        "float64": lambda: torch.mm(wide, wide),
        "float32": lambda: torch.mm(single, single),
        "int8": lambda: torch._int_mm(narrow, narrow),
    }.items():
        try:
            report[f"{name} tera/s"] = rate_of(call, device) * work
        except Exception as error:
            report[f"{name} tera/s"] = str(error)[:100]
    return report


def machine(device: str) -> dict[str, Any]:
    """Return what this ran on."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    return {
        "device": name, "torch": torch.__version__, "cuda": torch.version.cuda,
        "numpy": np.__version__, "python": sys.version.split()[0], "cores": os.cpu_count(),
    }  # fmt: skip


def main() -> int:
    """Run everything that fits the time; return the exit code."""
    parser = argparse.ArgumentParser(description="The exact runtime on a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=200.0, help="no new part starts after it")
    parser.add_argument("--json", type=Path, help="write the report here, too")
    options = parser.parse_args()
    device, until = options.device, time.perf_counter() + options.seconds
    small = not device.startswith("cuda")
    report: dict[str, Any] = {"machine": machine(device)}
    print(json.dumps(report["machine"]), flush=True)
    backend = TorchBackend(device)
    report["vectors"] = check_vectors(backend)
    print(f"vectors: {json.dumps(report['vectors'])}", flush=True)
    report["nets"] = []
    heads = ("device steps/s", "cpu steps/s", "float32 steps/s")
    print(f"{'net':40} {'equal':>7} {'device/s':>9} {'cpu/s':>9} {'float32/s':>9} {'x cpu':>7}")
    for net in SMALL if small else NETS:
        if net.model not in MODELS or time.perf_counter() > until:
            continue
        try:
            row = measure(net, device, until)
        except (MlchainError, RuntimeError, TypeError) as error:
            row = {"net": net.name, "ok": False, "error": f"{type(error).__name__}: {error}"[:500]}
            print(row, flush=True)
        else:
            rates = [row.get(head, float("nan")) for head in heads]
            print(
                f"{net.name:40} {row['equal']:>3}/{row['compared']:<3}"
                f" {rates[0]:9.1f} {rates[1]:9.2f} {rates[2]:9.1f} {rates[0] / rates[1]:6.1f}x",
                flush=True,
            )
        report["nets"].append(row)
    report["products"] = []
    for size in (256,) if small else (2048, 4096, 8192):
        if time.perf_counter() < until:
            report["products"].append(products(device, size))
            print(report["products"][-1], flush=True)
    report["ok"] = report["vectors"]["ok"] and all(row["ok"] for row in report["nets"])
    text = json.dumps(report)
    if options.json:
        options.json.write_text(text)
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
