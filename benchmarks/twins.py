"""Float32 twins in torch of the models of the package, from the same first state.

A twin takes the tensors of a state by their names and computes what the model's file says, with
torch's own kernels and gradients; nothing of the exact runtime is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isqrt, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

from mlchain.ml_runtime.plan import Plan
from mlchain.ml_runtime.state import State

Options = Mapping[str, object]


class Twin(torch.nn.Module):
    """A model of `models/` by its name, with the options it was made with."""

    def __init__(self, plan: Plan, state: State, options: Options) -> None:
        super().__init__()
        names = [spec.name for spec in plan.state[: len(plan.predict.inputs) - 1]]
        tensors = zip(names, state.tensors[: len(names)], strict=True)
        self.p = torch.nn.ParameterDict(
            {n.replace(".", "/"): torch.nn.Parameter(torch.tensor(np.array(t))) for n, t in tensors}
        )
        self.options = options
        self._compute: Callable[[Tensor], Tensor] = getattr(self, plan.model)

    def forward(self, x: Tensor) -> Tensor:
        return self._compute(x)

    def _get(self, name: str) -> Tensor:
        return self.p[name.replace(".", "/")]

    def _dense(self, x: Tensor, name: str) -> Tensor:
        return x @ self._get(f"{name}.weights") + self._get(f"{name}.bias")

    def linear(self, x: Tensor) -> Tensor:
        return self._dense(x, "out")

    softmax = linear

    def mlp(self, x: Tensor) -> Tensor:
        activation = getattr(torch, str(self.options.get("activation", "relu")))
        hidden: Sequence[int] = self.options.get("hidden", (64,))  # type: ignore[assignment]
        for i in range(1, len(hidden) + 1):
            x = activation(self._dense(x, f"hidden{i}"))
        return self._dense(x, "out")

    def cnn(self, x: Tensor) -> Tensor:
        side = isqrt(x.shape[1])
        x = x.reshape(-1, 1, side, side)
        channels: Sequence[int] = self.options.get("channels", (8, 16))  # type: ignore[assignment]
        for i in range(1, len(channels) + 1):
            weights = self._get(f"conv{i}.weights").reshape(3, 3, x.shape[1], -1)
            bias = self._get(f"conv{i}.bias")
            x = torch.relu(f.conv2d(x, weights.permute(3, 2, 0, 1), bias, padding=1))
            x = f.max_pool2d(x, 2)
        return self._dense(x.permute(0, 2, 3, 1).reshape(len(x), -1), "out")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return f.layer_norm(
            x, x.shape[-1:], self._get(f"{name}.gain"), self._get(f"{name}.bias"), 1e-5
        )

    def _block(self, x: Tensor, causal: bool, name: str) -> Tensor:
        batch, places, width = x.shape
        heads = int(self.options.get("heads", 4))  # type: ignore[call-overload]
        inner = self._norm(x, f"{name}.norm1")

        def split(which: str) -> Tensor:
            part = inner @ self._get(f"{name}.{which}")
            return part.reshape(batch, places, heads, -1).transpose(1, 2)

        query, key, value = map(split, ("query", "key", "value"))
        scores = query @ key.transpose(2, 3) / sqrt(width // heads)
        if causal:
            later = torch.ones(places, places, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        mixed = (scores.softmax(3) @ value).transpose(1, 2).reshape(batch, places, width)
        x = x + self._dense(mixed, f"{name}.mix")
        wide = f.gelu(
            self._dense(self._norm(x, f"{name}.norm2"), f"{name}.wide"), approximate="tanh"
        )
        return x + self._dense(wide, f"{name}.narrow")

    def _blocks(self, x: Tensor, causal: bool) -> Tensor:
        for i in range(1, int(self.options.get("layers", 2)) + 1):  # type: ignore[call-overload]
            x = self._block(x, causal, f"block{i}")
        return self._norm(x, "norm")

    def transformer(self, x: Tensor) -> Tensor:
        tokens = (x * 2.0**15).round().long()
        x = self._blocks(self._get("tokens")[tokens] + self._get("places"), True)
        return self._dense(
            x[:, -1] if self.options.get("pool", "last") == "last" else x.mean(1), "out"
        )

    def vit(self, x: Tensor) -> Tensor:
        side, patch = isqrt(x.shape[1]), int(self.options.get("patch", 4))  # type: ignore[call-overload]
        x = x.reshape(-1, side // patch, patch, side // patch, patch).transpose(2, 3)
        x = self._dense(x.reshape(len(x), -1, patch * patch), "patches") + self._get("places")
        return self._dense(self._blocks(x, False).mean(1), "out")


def torch_stepper(
    twin: Twin, x: np.ndarray, y: np.ndarray, rate: float, rows: Callable[[], np.ndarray]
) -> Callable[[], float]:
    """Return one step of Adam on a twin as a call; `rows` says on which rows of float32 x."""
    optimiser = torch.optim.Adam(twin.parameters(), lr=rate)
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    lost = f.cross_entropy if targets.dtype == torch.int64 else f.mse_loss

    def step() -> float:
        chosen = torch.from_numpy(rows())
        optimiser.zero_grad()
        loss = lost(twin(inputs[chosen]), targets[chosen])
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step
