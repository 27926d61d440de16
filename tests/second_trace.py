"""The part of `second_runtime` for claims about traces, from docs/fraud-proof.md alone."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from msgspec.msgpack import encode
from second_nets import Trapped
from second_runtime import Numbers, Training, digest, result_kinds, run, tensor_digest


def tree(node: str, seal: str, leaves: Sequence[bytes]) -> bytes:
    level = list(leaves)
    while len(level) > 1:
        odd = level[len(level) & ~1 :]
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [digest(node, a, b) for a, b in pairs] + odd
    return digest(seal, len(leaves).to_bytes(8, "little"), level[0])


def job_id(task: bytes, training: Training) -> bytes:
    f, c = training.features, training.columns
    target = "d" if training.target == "value" else "q"
    rows = []
    for i in range(training.rows):
        x = struct.pack(f"<{f}h", *training.x[i * f : (i + 1) * f])
        y = struct.pack(f"<{c}{target}", *training.y[i * c : (i + 1) * c])
        rows.append(digest("mlchain/row", x, y))
    root = tree("mlchain/row-node", "mlchain/rows", rows)
    # ⟨task, …⟩ holds the task as it is, so its encoding stands in the middle of the array's
    rest = encode(root) + encode(training.rows) + encode(training.seed)
    return digest("mlchain/traced-job", b"\x94" + task + rest)


def ops_of_entries(training: Training) -> list[int]:
    """The op of every entry of a step: -1 before the first, their number after the last."""
    kinds, nodes, _ = training.step
    ops, kinds = [-1] * len(kinds), list(kinds)
    for number, (op, reads, attrs) in enumerate(nodes):
        made = result_kinds(op, [kinds[r] for r in reads], attrs)
        kinds += made
        ops += [number] * len(made)
    tensors = len(training.specs)
    return ops + [len(nodes)] * (1 + tensors + (tensors - 1) + 1)


def step_entries(
    training: Training, step: int, state: list[Numbers], is_last: bool
) -> tuple[list[bytes], list[Numbers]]:
    """The entries up to where the step traps, and the state after it."""
    kinds, _, results = training.step
    rows = [training.row_at(step * training.batch + i) for i in range(training.batch)]
    places = list(range(training.batch))
    y = places if training.target == "cluster" else training.targets(rows)
    inputs = [training.inputs(rows), y, *state]
    entries = [tensor_digest(*kind, v) for kind, v in zip(kinds, inputs, strict=True)]
    trace: list[str] = []
    try:
        *after, loss = run(training.step, inputs, trace)
    except Trapped:
        return entries + [bytes.fromhex(text) for text in trace], []
    entries += [bytes.fromhex(text) for text in trace]
    if not math.isfinite(loss[0]):
        return entries, []
    level = [entries[r] for r in results[:-1]]
    entries.append(entries[results[-1]])
    for value, tensor in zip(level, after, strict=True):
        if is_last and not all(map(math.isfinite, tensor)):
            return entries, []
        entries.append(value)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        made = [digest("mlchain/state-node", a, b) for a, b in pairs]
        entries += made
        level = made + level[len(level) & ~1 :]
    entries.append(digest("mlchain/state", len(after).to_bytes(8, "little"), level[0]))
    return entries, after


def claim(task: bytes, training: Training, chunk: int, state: list[Numbers]) -> bytes:
    """The encoded claim on a chunk that begins in `state`."""
    ops, roots, trap, end = ops_of_entries(training), [], 0, b""
    start = bytes.fromhex(training.state_digest(state))
    first = chunk * training.chunk
    last = min(first + training.chunk, training.steps) - 1
    for step in range(first, last + 1):
        entries: list[bytes] = []
        if not trap:
            entries, state = step_entries(training, step, state, step == last)
            trap = 0 if len(entries) == len(ops) else step + 1
        values = entries + [b""] * (len(ops) - len(entries))
        end = values[-1]
        leaves = [
            digest("mlchain/trace-entry", encode((step, op, place)), value)
            for place, (op, value) in enumerate(zip(ops, values, strict=True))
        ]
        roots.append(tree("mlchain/trace-node", "mlchain/trace-step", leaves))
    trace = tree("mlchain/trace-pair", "mlchain/trace", roots)
    return encode((job_id(task, training), chunk, start, end, trap, len(roots), trace))
