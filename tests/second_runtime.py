"""A second runtime of MLRT-1, written from docs/numerics.md alone.

It imports nothing of mlchain. Where this file and the page differ, the page is incomplete: its
reader would fork the chain. Comments name the page's rules. Numbers are Python's (binary64),
tensors flat lists; it is slow and accepts only what is well-formed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import blake2s
from typing import Any

import msgspec
import second_choice
import second_layout
import second_nets
import second_ordered
import second_trees
from blake3 import blake3
from second_functions import (
    GELU_C,
    GELU_CD,
    GELU_D,
    LOG2E,
    erf,
    exp2,
    log,
)
from second_nets import Trapped, philox

Numbers = list[Any]


def decode(data: bytes) -> Any:
    return msgspec.msgpack.decode(data)


def real(word: int) -> float:
    return struct.unpack("<d", struct.pack("<q", word))[0]


def word(value: float) -> int:
    return struct.unpack("<q", struct.pack("<d", value))[0]


def digest(tag: str, *parts: bytes) -> bytes:
    data = bytes([len(tag)]) + tag.encode()
    return blake2s(data + b"".join(len(p).to_bytes(8, "little") + p for p in parts)).digest()


# ---- rules 2, 3 and 7: grids, exact sums, state -------------------------------------------------


def peak(x: Numbers) -> float:
    return math.nan if any(v != v for v in x) else max(map(abs, x))


def nearest_multiple(v: float, unit: float) -> float:
    return float(round(Fraction(v) / Fraction(unit)) * Fraction(unit))


def quantise(x: Numbers, bits: int) -> Numbers:
    largest = peak(x)
    if not largest < 2.0**500:
        raise Trapped
    if largest < 2.0**-400:
        return [0.0] * len(x)
    unit = 2.0 ** (math.frexp(largest)[1] - (bits - 1))
    return [nearest_multiple(v, unit) for v in x]


def saturate(x: Numbers, bits: int, exponent: int) -> Numbers:
    if not peak(x) < math.inf:
        raise Trapped
    unit = 2.0 ** (exponent - (bits - 1))
    limit = 2.0**exponent - unit
    return [nearest_multiple(min(max(v, -limit), limit), unit) for v in x]


def total(x: Sequence[float]) -> float:
    return float(sum(map(Fraction, x)))


def round_state(x: float) -> float:
    value = (x + 2.0**-60) - 2.0**-60
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def softmax_row(z: Numbers) -> Numbers:
    largest = math.nan if any(v != v for v in z) else max(z)
    e = [exp2(v - largest, LOG2E) for v in z]
    if any(v != v for v in e):
        return [math.nan] * len(z)
    denominator = total([nearest_multiple(v, 2.0**-40) for v in e])
    return [v / denominator for v in e]


# ---- rules 4, 5 and 7: ops, from values, shapes and attributes to outputs -----------------------


def parts(x: Numbers, size: int) -> list[Numbers]:
    return [x[i : i + size] for i in range(0, len(x), size)]


def matmul(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    out: Numbers = []
    stacks = [parts(v, math.prod(s[-2:])) for v, s in zip(x, shapes, strict=True)]
    for a, b in zip(*stacks, strict=True):
        rows, columns = parts(a, shapes[0][-1]), list(zip(*parts(b, shapes[1][-1]), strict=True))
        if attrs[0]:
            rows = [list(column) for column in zip(*rows, strict=True)]
        if attrs[1]:
            columns = list(zip(*columns, strict=True))
        pairs = [[zip(r, c, strict=True) for c in columns] for r in rows]
        out += [float(sum(Fraction(p) * Fraction(q) for p, q in t)) for line in pairs for t in line]
    return [out]


def gelu(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    s = [1 / (exp2((((v * v) * GELU_C) * v) + v, -(GELU_D * LOG2E)) + 1) for v in x[0]]
    return [[v * w for v, w in zip(x[0], s, strict=True)], s]


def causal_softmax(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    out: Numbers = []
    width = shapes[0][-1]
    for i, row in enumerate(parts(x[0], width)):
        p = softmax_row(row[: i % width + 1])
        out += p + [math.nan if p[0] != p[0] else 0.0] * (width - len(p))
    return [out]


def residual(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    (p, y, g), columns = x, shapes[0][1]
    rows = (divmod(i, columns) for i in range(len(p)))
    return [[(v - (1.0 if c == y[i] else 0.0)) * g[i] for v, (i, c) in zip(p, rows, strict=True)]]


def product(factors: list[Numbers]) -> float:
    """The factor a scheduled update reads last, or 1."""
    return factors[0][0] if factors else 1.0


def sgd(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    rate, decay = map(real, attrs)
    rate, pairs = rate * product(x[2:]), zip(*x[:2], strict=True)
    return [[round_state(p - (g + p * decay if decay else g) * rate) for p, g in pairs]]


def momentum(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    rate, mu, decay = map(real, attrs)
    rate, rows = rate * product(x[3:]), []
    for p, v, g in zip(*x[:3], strict=True):
        v2 = (v * mu) + (g + p * decay if decay else g)
        rows.append((round_state(p - (v2 * rate)), round_state(v2)))
    return [list(column) for column in zip(*rows, strict=True)]


def sqrt(v: float) -> float:
    return math.sqrt(v) if v >= 0 else math.nan


def adamw(x: list[Numbers], shapes: list[list[int]], attrs: list[int]) -> list[Numbers]:
    return adam(x, shapes, attrs, True)


def adam(
    x: list[Numbers], shapes: list[list[int]], attrs: list[int], apart: bool = False
) -> list[Numbers]:
    rate, beta1, beta2, epsilon, decay = map(real, attrs)
    rate = rate * product(x[5:])
    w1, w2 = x[4]
    if not (0 <= w1 < 1 and 0 <= w2 < 1):
        raise Trapped
    step, c, r1, r2 = rate / (1 - w1), 1 / (1 - w2), 1 - beta1, 1 - beta2
    rows = []
    for p, m, v, g in zip(*x[:4], strict=True):
        g = g + p * decay if decay and not apart else g
        v2 = (v * beta2) + ((g * g) * r2)
        m2 = (m * beta1) + (g * r1)
        p = p - (p * (rate * decay)) if apart else p
        p2 = p - ((m2 / (sqrt(v2 * c) + epsilon)) * step)
        rows.append((round_state(p2), round_state(m2), round_state(v2)))
    return [list(column) for column in zip(*rows, strict=True)]


def each(f: Callable[..., float]) -> Callable[..., list[Numbers]]:
    """An op of one result that works element by element."""
    return lambda x, shapes, attrs: [[f(*values) for values in zip(*x, strict=True)]]


by_rows = parts


def broadcast(f: Callable[[float, float], float]) -> Callable[..., list[Numbers]]:
    """y has the shape of x or of its last axes."""
    return lambda x, s, a: [[f(v, x[1][i % len(x[1])]) for i, v in enumerate(x[0])]]


OPS: dict[str, Callable[[list[Numbers], list[list[int]], list[int]], list[Numbers]]] = {
    "add": broadcast(lambda v, w: v + w),
    "adam": adam,
    "adamw": adamw,
    "scheduled_adam": adam,
    "scheduled_adamw": adamw,
    "scheduled_momentum": momentum,
    "scheduled_sgd": sgd,
    "adam_powers": lambda x, s, a: [
        [round_state(v * real(b)) for v, b in zip(x[0], a, strict=True)]
    ],
    "constant": lambda x, s, a: [[real(a[0])]],
    "log_loss": lambda x, s, a: [
        [-log(row[i]) for row, i in zip(by_rows(x[0], s[0][1]), x[1], strict=True)]
    ],
    "logistic_loss": each(
        lambda v, t: ((v if v != v else max(v, 0.0)) - v * t) + log(1 + exp2(-abs(v), LOG2E))
    ),
    "matmul": matmul,
    "momentum": momentum,
    "multiply": broadcast(lambda v, w: v * w),
    "quantise": lambda x, s, a: [quantise(x[0], a[0])],
    "quantise_rows": lambda x, s, a: [
        [v for row in by_rows(x[0], s[0][-1]) for v in quantise(row, a[0])]
    ],
    "relu": each(lambda v: v if v != v else max(v, 0.0)),
    "relu_gradient": each(lambda g, y: g * (1.0 if y > 0 else 0.0)),
    "saturate": lambda x, s, a: [saturate(x[0], a[0], a[1])],
    "scale": lambda x, s, a: [[v * real(a[0]) for v in x[0]]],
    "sgd": sgd,
    "sigmoid": each(lambda v: 1 / (exp2(v, -LOG2E) + 1)),
    "softmax": lambda x, s, a: [[p for row in by_rows(x[0], s[0][-1]) for p in softmax_row(row)]],
    "causal_softmax": causal_softmax,
    "erf": each(erf),
    "exp": each(lambda v: exp2(v, LOG2E)),
    "gelu": gelu,
    "gelu_gradient": each(
        lambda g, x, s: g * (((((x * x) * GELU_CD) + GELU_D) * x * (1 - s) + 1) * s)
    ),
    "log": each(log),
    "softmax_residual": residual,
    "spread": lambda x, s, a: [x[0] * len(x[1])],
    "store": each(round_state),
    "subtract": broadcast(lambda v, w: v - w),
    "sum_all": lambda x, s, a: [[total(x[0])]],
    "sum_rows": lambda x, s, a: [[total(c) for c in zip(*by_rows(x[0], s[0][1]), strict=True)]],
    "tanh": each(lambda v: 1 - (2 / (exp2(v, 2 * LOG2E) + 1))),
    "widen": lambda x, s, a: [x[0]],
}


Kind = tuple[str, int, list[int]]
"""Letter, bound and dimensions of a type."""


def result_kinds(op: str, seen: list[Kind], attrs: list[int]) -> list[Kind]:
    """Rule 12: the types of the results; F of the first shape where nothing else is said."""
    if op in KINDS:
        return KINDS[op](seen, attrs)
    shape = seen[0][2]
    if op in ("quantise", "saturate"):
        return [("G", attrs[0], shape)]
    if op == "quantise_rows":
        return [("R", attrs[0], shape)]
    if op in UPDATES:
        return [("S", 0, shape)] * UPDATES[op]
    return [("F", 0, shape)]


UPDATES = {"sgd": 1, "momentum": 2, "adam": 3, "adamw": 3, "adam_powers": 1, "store": 1}
UPDATES |= {f"scheduled_{name}": n for name, n in UPDATES.items()}
KINDS: dict[str, Callable[[list[Kind], list[int]], list[Kind]]] = {
    "constant": lambda k, a: [("F", 0, [])],
    "log_loss": lambda k, a: [("F", 0, k[0][2][:1])],
    "matmul": lambda k, a: [
        ("F", 0, [*k[0][2][:-2], k[0][2][-1 if a[0] else -2], k[1][2][-2 if a[1] else -1]])
    ],
    "spread": lambda k, a: [("F", 0, k[1][2])],
    "sum_all": lambda k, a: [("F", 0, [])],
    "sum_rows": lambda k, a: [("F", 0, k[0][2][1:])],
}
for family in (second_choice, second_layout, second_nets, second_ordered, second_trees):
    OPS |= family.OPS
    KINDS |= family.KINDS


def run(program: Any, inputs: list[Numbers], trace: list[str] | None = None) -> list[Numbers]:
    """Rule 12: registers count up. `trace` is given the digest of every output of every op."""
    kinds, nodes, results = program
    values, kinds = list(inputs), list(kinds)
    for op, reads, attrs in nodes:
        seen = [kinds[r] for r in reads]
        outs = OPS[op]([values[r] for r in reads], [shape for _, _, shape in seen], attrs)
        values += outs
        kinds += result_kinds(op, seen, attrs)
        if trace is not None:
            filled = zip(kinds[-len(outs) :], outs, strict=True)
            trace += [tensor_digest(*kind, numbers).hex() for kind, numbers in filled]
    return [values[r] for r in results]


ELEMENT = {"F": "d", "G": "d", "R": "d", "S": "f", "I": "q"}


def tensor_digest(letter: str, bound: int, shape: list[int], numbers: Numbers) -> bytes:
    """Rule 10."""
    domain = f"mlchain/tensor/{letter}{f'({bound})' if bound else ''}{shape}".encode()
    plain = [math.nan if v != v else v + 0 if letter == "I" else v + 0.0 for v in numbers]
    elements = struct.pack(f"<{len(plain)}{ELEMENT[letter]}", *plain)
    return blake3(bytes([len(domain)]) + domain + elements).digest()


# ---- rule 9: randomness -------------------------------------------------------------------------


def words(seed: bytes, purpose: str, index: int, count: int) -> list[int]:
    raw = digest("mlchain/stream", seed, purpose.encode(), index.to_bytes(8, "little"))
    key = struct.unpack("<2Q", raw[:16])
    blocks = (philox((n, 0, 0, 0), key) for n in range(-(-count // 4)))
    return [w for block in blocks for w in block][:count]


# ---- rules 10, 11 and 13: a training ------------------------------------------------------------


class Training:
    """One task on one dataset, from their bytes."""

    def __init__(self, task: bytes, dataset: bytes, seed: bytes) -> None:
        plan, self.steps, self.chunk, self.train_rows, self.test_rows = decode(task)
        (_, self.target, self.features, self.outputs, self.batch, self.specs, self.step,
         self.predict) = decode(plan)  # fmt: skip
        self.seed = seed
        head = 4 + int.from_bytes(dataset[:4], "little")
        _, self.rows, _, _ = decode(dataset[4:head])
        end = head + 2 * self.rows * self.features
        kind, self.columns = ("d", self.outputs) if self.target == "value" else ("q", 1)
        self.x = struct.unpack(f"<{self.rows * self.features}h", dataset[head:end])
        self.y = struct.unpack(f"<{self.rows * self.columns}{kind}", dataset[end:])
        self._epochs: dict[int, list[int]] = {}

    def inputs(self, rows: Sequence[int]) -> Numbers:
        f = self.features
        return [v * 2.0**-15 for i in rows for v in self.x[i * f : (i + 1) * f]]

    def targets(self, rows: Sequence[int]) -> Numbers:
        c = self.columns
        return [v for i in rows for v in self.y[i * c : (i + 1) * c]]

    def row_at(self, place: int) -> int:
        epoch, offset = divmod(place, self.train_rows)
        if epoch not in self._epochs:
            drawn = words(self.seed, "order", epoch, self.train_rows)
            self._epochs[epoch] = sorted(range(self.train_rows), key=drawn.__getitem__)
        return self._epochs[epoch][offset]

    def first_state(self) -> list[Numbers]:
        state = []
        for index, (_, shape, init, limit) in enumerate(self.specs):
            count = math.prod(shape)
            numbers = [1.0 if init == "ones" else 0.0] * count
            if init == "uniform":
                drawn = [(w >> 11) * 2.0**-53 for w in words(self.seed, "init", index, count)]
                numbers = [round_state(((u * 2) - 1) * real(limit)) for u in drawn]
            state.append(numbers)
        return state

    def after_step(self, step: int, state: list[Numbers]) -> list[Numbers]:
        rows = [self.row_at(p) for p in range(step * self.batch, (step + 1) * self.batch)]
        y = list(range(self.batch)) if self.target == "cluster" else self.targets(rows)
        *after, loss = run(self.step, [self.inputs(rows), y, *state])
        is_last = (step + 1) % self.chunk == 0 or step + 1 == self.steps
        committed = [v for tensor in after for v in tensor] if is_last else []
        if not all(map(math.isfinite, (*loss, *committed))):
            raise Trapped
        return after

    def state_digest(self, state: list[Numbers]) -> str:
        pairs = zip(self.specs, state, strict=True)
        level = [tensor_digest("S", 0, spec[1], numbers) for spec, numbers in pairs]
        while len(level) > 1:
            odd = level[len(level) & ~1 :]
            pairs = zip(level[::2], level[1::2], strict=False)
            level = [digest("mlchain/state-node", a, b) for a, b in pairs] + odd
        return digest("mlchain/state", len(self.specs).to_bytes(8, "little"), *level).hex()

    def train(self) -> tuple[list[str], int | None, list[Numbers]]:
        """The state digests before chunk 0 and after each, the step that trapped, the end."""
        state = self.first_state()
        digests = [self.state_digest(state)]
        for step in range(self.steps):
            try:
                state = self.after_step(step, state)
            except Trapped:
                return digests, step, state
            if (step + 1) % self.chunk == 0 or step + 1 == self.steps:
                digests.append(self.state_digest(state))
        return digests, None, state

    def score(self, state: list[Numbers]) -> bytes:
        """The encoded metrics of a state."""
        kinds, nodes, results = self.predict
        parameters = state[: len(kinds) - 1]
        depends, found, register = {0}, [], len(kinds)
        for index, (op, reads, _) in enumerate(nodes):  # every op of a prediction has one result
            if depends.intersection(reads):
                depends.add(register)
                found += [(index, reads[0])] if op == "quantise" else []
            register += 1
        seen = dict.fromkeys((r for _, r in found), 0.0)
        for batch in range(-(-min(512, self.train_rows) // self.batch)):
            rows = [(batch * self.batch + i) % self.train_rows for i in range(self.batch)]
            values = run((kinds, nodes, list(seen)), [self.inputs(rows), *parameters])
            for r, numbers in zip(seen, values, strict=True):
                seen[r] = max(seen[r], peak(numbers))
        fixed = [list(node) for node in nodes]
        for index, r in found:
            exponent = max(math.frexp(seen[r])[1] + 1, -400) if seen[r] else 0
            fixed[index] = ["saturate", nodes[index][1], [nodes[index][2][0], exponent]]
        tests = range(self.rows - self.test_rows, self.rows)
        scores: Numbers = []
        for at in range(0, self.test_rows, self.batch):
            rows = tests[at : at + self.batch]
            x = self.inputs(rows)
            x += [0.0] * (self.features * self.batch - len(x))
            found_scores = run((kinds, fixed, results), [x, *parameters])[0]
            scores += found_scores[: len(rows) * self.outputs]
        y = self.targets(tests)
        if self.target == "class":
            best = [row.index(max(row)) for row in by_rows(scores, self.outputs)]
            correct = sum(b == label for b, label in zip(best, y, strict=True))
            return msgspec.msgpack.encode(("accuracy", correct, self.test_rows, 0))
        name, parts = "mean squared error", []
        if self.target == "cluster":
            name, parts = "mean squared distance", [-max(r) for r in by_rows(scores, self.outputs)]
        else:
            parts = [(s - v) * (s - v) for s, v in zip(scores, y, strict=True)]
        error = total(quantise(parts, 32)) / len(parts)
        return msgspec.msgpack.encode((name, 0, self.test_rows, word(error)))
