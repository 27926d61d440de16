"""Splitting a program over shards: what runs on their rows, what runs once, what they exchange.

Inputs that are no state and have the rows of the first, x and y, are split by rows. What
is computed from rows alone stays with the shard. Where the whole batch meets, shards exchange

    peaks   the largest magnitude of a tensor that is to be rounded, so that all use one grid,
    sums    their part of a sum, integers on that grid.

The rest, the update of the state above all, runs once, where the sums arrive. So a step becomes

    segment 0, exchange 0, segment 1, exchange 1, …   on every shard
    `once`                                            after the last exchange

Everything that is ready at one point shares one exchange. There are as many as the longest chain
of tensors each of which needs the one before it reduced; fewer is not possible.

Why the bits are those of the unsplit step: rounding onto a grid depends on the other rows through
their largest magnitude only, and a maximum is exact. A partial sum adds some of the terms whose
sum the check proved to fit 53 bits (MLRT-1 rule 3), so it fits, too, and so does every sum of
partial sums: no order of adding rounds anything. Everything else reads one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mlchain.errors import ConfigError, RejectedProgram
from mlchain.ml_runtime.program import Checked, Node, Program, Step
from mlchain.ml_runtime.tensor import Type


@dataclass(frozen=True, slots=True)
class Exchange:
    """What shards reduce at one point: one vector of binary64 up, the first of it down again.

    The vector holds the peak of each register of `peaks`, then the elements of each of `sums`.
    Shards read on the first `returned` of the sums; the others are needed where they arrive only.
    """

    peaks: tuple[int, ...]
    sums: tuple[int, ...]
    returned: int
    size: int
    """Numbers that each shard offers."""
    size_down: int
    """Numbers that each shard gets back."""


@dataclass(frozen=True, slots=True)
class Split:
    """A program over `shards` parts of its `rows`. There is one segment more than exchanges."""

    checked: Checked
    shards: int
    rows: int
    parts: frozenset[int]
    """Registers of which a shard has its rows only."""
    inputs: tuple[int, ...]
    """Inputs that the shards read."""
    segments: tuple[tuple[Step, ...], ...]
    exchanges: tuple[Exchange, ...]
    gathered: tuple[int, ...]
    """Results that are split: their parts follow one another in the order of the shards."""
    once: Program
    """What runs once. Its results are those of the program that are not split, in order."""
    once_inputs: tuple[int, ...]
    """The registers that `once` reads: inputs of the program, and sums."""

    def bounds(self, shard: int) -> tuple[int, int]:
        """Return the first row of a shard, and the first that is the next one's."""
        base, rest = divmod(self.rows, self.shards)
        start = shard * base + min(shard, rest)
        return start, start + base + (shard < rest)

    def type(self, register: int, shard: int) -> Type:
        """Return the type that a register has on a shard."""
        kind = self.checked.types[register]
        start, stop = self.bounds(shard)
        return _part(kind, Fraction(stop - start, self.rows)) if register in self.parts else kind

    def local(self, shard: int) -> Checked:
        """Return what a shard runs, its steps in order, as something that can be placed in memory.

        As results count the sums and whatever is gathered: they do not share memory.
        """
        sums = (r for exchange in self.exchanges for r in exchange.sums)
        types = tuple(self.type(r, shard) for r in range(len(self.checked.types)))
        steps = tuple(_of_share(s, types) for segment in self.segments for s in segment)
        inputs = self.checked.program.inputs
        return Checked(Program(inputs, (), (*sums, *self.gathered)), steps, types, 0)

    @property
    def answers(self) -> bool:
        """Whether shards go on after the last exchange."""
        return bool(self.gathered or self.segments[-1])


def _of_share(step: Step, types: tuple[Type, ...]) -> Step:
    attrs = step.op.share_attributes(step.attrs, tuple(types[r] for r in step.outputs))
    return Step(step.op, step.inputs, step.outputs, tuple(attrs))


def split(checked: Checked, shards: int, step_by_step: bool = False) -> Split:
    """Return how to run a checked program over `shards` parts of its rows.

    With `step_by_step` every op has a segment of its own on every shard, to be looked at.

    Raises:
        ConfigError: more shards than rows.
        RejectedProgram: names the op that mixes rows.
    """
    rows, with_rows = _find_rows(checked)
    if not 1 <= shards <= rows:
        raise ConfigError(f"shards: {shards} for a batch of {rows} rows")
    rules, parts = _rules(checked, with_rows, {rows // shards, -(-rows // shards)}, rows)
    needed = {r for r in checked.program.outputs if r in parts}
    on_shards: list[Step] = []
    for step in reversed(checked.steps):
        if rules[step.outputs[0]] or step_by_step or needed.intersection(step.outputs):
            needed.update(step.inputs)
            on_shards.append(step)
    on_shards.reverse()
    segments, exchanges = _schedule(checked, on_shards, rules, parts, step_by_step)
    sums = {r for r, rule in rules.items() if rule == "sum"}
    done = {r for s in on_shards for r in s.outputs}
    once, once_inputs = _once(checked, sums, parts, done)
    return Split(
        checked,
        shards,
        rows,
        parts,
        tuple(r for r in range(len(checked.program.inputs)) if r in needed),
        segments,
        exchanges,
        tuple(r for r in dict.fromkeys(checked.program.outputs) if r in parts),
        once,
        once_inputs,
    )


def _find_rows(checked: Checked) -> tuple[int, set[int]]:
    """Return the number of rows of the first input, and the inputs that have them."""
    first, *_ = (*checked.program.inputs, None)
    if first is None or first.kind == "S" or not first.shape:
        raise RejectedProgram("inputs: the first has no rows, so nothing can be split by them")
    rows = first.shape[0]
    kinds = enumerate(checked.program.inputs)
    return rows, {i for i, t in kinds if t.kind != "S" and t.shape and t.shape[0] == rows}


def _rules(
    checked: Checked, with_rows: set[int], sizes: set[int], rows: int
) -> tuple[dict[int, str], frozenset[int]]:
    """Return the rule of every register ("" for what is not split), and which have parts."""
    parts = set(with_rows)
    rules: dict[int, str] = {}
    for i, step in enumerate(checked.steps):
        flags = [r in parts for r in step.inputs]
        rule = ""
        if any(flags):
            try:
                ins = tuple(checked.types[r] for r in step.inputs)
                rule = step.op.sharding(flags, step.attrs, ins)
                for size in sorted(sizes):
                    _check_part(checked, step, flags, rule, Fraction(size, rows))
            except RejectedProgram as error:
                reason = f"op {i} ({step.op.name}): {error.message}"
                raise RejectedProgram(reason, "train it in one piece") from error
        rules.update(dict.fromkeys(step.outputs, rule))
        if rule in ("rows", "peak"):
            parts.update(step.outputs)
    return rules, frozenset(parts)


def _check_part(
    checked: Checked, step: Step, flags: list[bool], rule: str, share: Fraction
) -> None:
    """Reject an op that does not make of a share of the rows what its rule says."""
    ins = [checked.types[r] for r in step.inputs]
    outs = [checked.types[r] for r in step.outputs]
    local = tuple(_part(t, share) if f else t for t, f in zip(ins, flags, strict=True))
    wanted = tuple(outs if rule == "sum" else (_part(t, share) for t in outs))
    try:
        found = step.op.infer(local, step.op.share_attributes(step.attrs, wanted))
    except RejectedProgram as error:
        raise RejectedProgram(f"cannot be split by rows: {error.message}") from error
    if found != wanted:
        raise RejectedProgram("cannot be split by rows: a share of them gives another shape")


def _part(kind: Type, share: Fraction) -> Type:
    """Return the type of a share of the rows."""
    if not kind.shape or kind.shape[0] % share.denominator:
        raise RejectedProgram(f"cannot be split by rows: {kind} has no whole share of them")
    rows = kind.shape[0] // share.denominator * share.numerator
    return Type(kind.kind, kind.bound, (rows, *kind.shape[1:]))


def _schedule(
    checked: Checked,
    steps: list[Step],
    rules: dict[int, str],
    parts: frozenset[int],
    step_by_step: bool,
) -> tuple[tuple[tuple[Step, ...], ...], tuple[Exchange, ...]]:
    """Put every step into the first segment in which all it reads is known."""
    known: dict[int, int] = {}  # the segment from which on a register can be read, if not 0
    segments: list[list[Step]] = [[]]
    peaks: dict[int, dict[int, None]] = {}
    sums: dict[int, list[int]] = {}
    for step in steps:
        rule = rules[step.outputs[0]]
        at = max((known.get(r, 0) for r in _values(step)), default=0) + (rule == "peak")
        if step_by_step:
            at = len(segments)
        if rule == "peak":
            peaks.setdefault(at - 1, {})[step.inputs[0]] = None
        if rule == "sum":
            sums.setdefault(at, []).extend(step.outputs)
        known.update(dict.fromkeys(step.outputs, at + (rule == "sum")))
        while len(segments) <= at:
            segments.append([])
        segments[at].append(step)
    last = max((*peaks, *sums), default=-1)
    if step_by_step:
        last = len(segments) - 1
    while len(segments) <= last + 1:
        segments.append([])
    read = {r for step in steps for r in _values(step)}
    exchanges = []
    for i in range(last + 1):
        ordered = sorted(sums.get(i, []), key=lambda r: r not in read)
        sizes = [checked.types[r].elements for r in ordered]
        returned, count = sum(r in read for r in ordered), len(peaks.get(i, {}))
        down = count + sum(sizes[:returned])
        exchanges.append(
            Exchange(tuple(peaks.get(i, {})), tuple(ordered), returned, count + sum(sizes), down)
        )
    return tuple(map(tuple, segments)), tuple(exchanges)


def _values(step: Step) -> list[int]:
    """Return the registers whose elements a step reads."""
    return [r for i, r in enumerate(step.inputs) if i not in step.op.shape_only]


def _once(
    checked: Checked, sums: set[int], parts: frozenset[int], done: set[int]
) -> tuple[Program, tuple[int, ...]]:
    """Return the program of what shards do not run and of what that reads, down to the sums."""
    program = checked.program
    outputs = [r for r in program.outputs if r not in parts]
    elsewhere = parts | sums
    needed = set(outputs)
    kept: list[int] = []
    for i in reversed(range(len(checked.steps))):
        step = checked.steps[i]
        if elsewhere.intersection(step.outputs):
            continue
        if needed.intersection(step.outputs) or not done.issuperset(step.outputs):
            needed.update(step.inputs)
            kept.append(i)
    kept.reverse()
    fills = {r for i in kept for r in checked.steps[i].outputs}
    reads = tuple(sorted(needed - fills))
    number = {r: i for i, r in enumerate(reads)}
    nodes = []
    for i in kept:
        node = program.nodes[i]
        nodes.append(Node(node.op, tuple(number[r] for r in node.inputs), node.attributes))
        for r in checked.steps[i].outputs:
            number[r] = len(number)
    kinds = tuple(checked.types[r] for r in reads)
    return Program(kinds, tuple(nodes), tuple(number[r] for r in outputs)), reads
