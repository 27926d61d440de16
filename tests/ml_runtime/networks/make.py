"""Write the fixtures of test_onnx_networks.py: small networks as PyTorch exports them.

    python tests/ml_runtime/networks/make.py        needs torch, onnx and onnxscript

For every network NAME.onnx and, in expected.npz, NAME.x (rows) and NAME.y (float32 outputs).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
ROWS = 24


class Encoder(nn.Module):
    """A vision transformer of one block: 8 x 8 pixels, a token for every line."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.into = nn.Linear(8, width)
        self.place = nn.Parameter(torch.randn(9, width) * 0.1)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.block = nn.TransformerEncoderLayer(
            width, heads, 24, dropout=0.0, activation="gelu", batch_first=True
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Any) -> Any:
        x = self.into(x.reshape(-1, 8, 8))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.out(self.norm(self.block(x))[:, 0])


class Decoder(nn.Module):
    """A causal block over six tokens of a vocabulary of eleven."""

    def __init__(self, width: int = 16, heads: int = 2, length: int = 6, words: int = 11) -> None:
        super().__init__()
        self.heads, self.table = heads, nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.1)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)
        self.out = nn.Linear(width, words)
        self.register_buffer("later", torch.triu(torch.ones(length, length), 1).bool())

    def forward(self, words: Any) -> Any:
        x = self.table(words) + self.place
        rows, length, width = x.shape
        size = width // self.heads
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (p.reshape(rows, length, self.heads, size).transpose(1, 2) for p in parts)
        scores = (q @ k.transpose(-1, -2) / size**0.5).masked_fill(self.later, float("-inf"))
        x = x + self.mix((scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, width))
        return self.out(x + self.down(functional.gelu(self.up(self.norms[1](x)))))


def networks() -> dict[str, tuple[nn.Module, list[int], int]]:
    """Return the networks, the shape of a row, and the opset to export to."""
    mlp = nn.Sequential(
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 10)
    )
    cnn = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    with torch.no_grad():  # a batch norm that has seen something
        cnn(torch.randn(64, 64))
    pools = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=1, groups=2),
        nn.GELU(approximate="tanh"),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
        nn.Conv2d(4, 5, 2, dilation=2),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )
    return {
        "mlp": (mlp, [64], 17),
        "cnn": (cnn, [64], 17),
        "pools": (pools, [2, 9, 9], 20),
        "encoder": (Encoder(), [64], 17),
        "encoder_old": (Encoder(), [64], 14),  # layer norm and gelu in parts
        "decoder": (Decoder(), [6], 20),
    }


def main() -> None:
    """Write all files."""
    torch.manual_seed(1)
    expected: dict[str, Any] = {}
    for name, (network, shape, opset) in networks().items():
        network.eval()
        words = name == "decoder"
        x = torch.randint(0, 11, (ROWS, *shape)) if words else torch.randn(ROWS, *shape)
        torch.onnx.export(
            network,
            (x[:2],),
            str(HERE / f"{name}.onnx"),
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        )
        with torch.no_grad():
            expected |= {f"{name}.x": x.numpy(), f"{name}.y": network(x).numpy()}
    np.savez_compressed(HERE / "expected.npz", **expected)
    x = torch.randint(0, 11, (2, 6))
    torch.onnx.export(  # the same network as the newer exporter writes it
        decoder := networks()["decoder"][0].eval(),
        (x,),
        str(HERE / "decoder_new.onnx"),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    x = torch.randint(0, 11, (ROWS, 6))
    with torch.no_grad():
        expected |= {"decoder_new.x": x.numpy(), "decoder_new.y": decoder(x).numpy()}
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
