"""What checking costs and what it finds, measured beside the formulas and the targets.

    PYTHONPATH=. python benchmarks/detection.py [--quick] [--json] [--only PART]

It takes ten minutes, `--quick` under two.

A worker forges 1 % of the chunks of a job of T' chunks; f of n validators collude and see nothing.
Training, forgeries, commits, tickets and slices are real, with sizes from the function that the
chain calls. Every chunk is re-executed once, from the state that the worker serves, and what came
out is remembered by chunk and start: re-executing is a function of them. Jobs differ in the height
of their commit, so in the tickets that draw their slices. Times are CPU times of this process.

Exit code 1 if a target is missed. Controls are rows whose target is to break.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from math import comb
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in the processes of a node
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import kernels
from custody import duties_until_found
from factories import make_dataset, make_key
from grinding import (
    CHAIN,
    JOB,
    TRIES,
    WORKER,
    Counted,
    faults,
    forged_chunks,
    from_the_certificate,
    from_the_commit,
    grind,
    public_miss,
    size_of,
    tickets,
)
from proofs import dispute
from training import machine

from mlchain.consensus.work.commitment import segment_root
from mlchain.consensus.work.custody import is_audited
from mlchain.consensus.work.sampling import draw_slice, miss_probability
from mlchain.crypto import digest
from mlchain.ml_runtime import State, Task, Trainer, make_plan
from mlchain.ml_runtime.proof.search import stages

VALIDATORS = (4, 7, 10)
AUDIT_PERMILLE = 50
CHUNK = 128
"""Steps of the chunks whose CPU time is measured, and of the one that is disputed."""
DISPUTED = "digits, toy"
NO_TARGET = "-"


class Scale(NamedTuple):
    """How much of everything one run does."""

    lineages: dict[int, int]
    """Of jobs with so many chunks: how many workers forge, each its own chunks."""
    jobs: int
    audited_jobs: int
    replays: int
    accused: int
    discoveries: int
    tries: int
    blocks: dict[int, int]


FULL = Scale({30_000: 1, 100_000: 1}, 5000, 200, 40, 100_000, 400, TRIES, {10: 500, 16: 100})
QUICK = Scale({30_000: 1}, 2000, 20, 8, 3000, 200, TRIES >> 3, {10: 60, 16: 10})


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    quantity: str
    measured: float
    predicted: float
    target: str
    is_met: bool
    unit: str = "%"

    @property
    def ratio(self) -> str:
        return f"{self.measured / self.predicted:.3f}" if self.predicted else "-"

    def show(self, value: float) -> str:
        return f"{value:.3%}" if self.unit == "%" else f"{value:,.4g} {self.unit}".strip()

    def __str__(self) -> str:
        cells = [self.show(self.measured), self.show(self.predicted), self.target, self.ratio]
        verdict = "-" if self.target == NO_TARGET else "met" if self.is_met else "MISSED"
        return " | ".join(["", self.quantity, *cells, verdict, ""])


# ---- forgers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a forger commits to, and the chunks whose re-execution gave something else."""

    chunks: int
    root: bytes
    wrong: frozenset[int]
    forged: int


def make_trainer(chunks: int, steps: int) -> Trainer:
    plan = make_plan("softmax", features=4, classes=3, optimiser="sgd", batch=8, rate="0.5")
    return Trainer(
        Task(plan.encode(), chunks * steps, steps, 45, 15), make_dataset(), digest("test-order")
    )


def forge(chunks: int, lineage: int) -> Work:
    """Train, repeating the state instead of computing it in 1 % of the chunks, and re-execute."""
    worker, checker = make_trainer(chunks, 1), make_trainer(chunks, 1)
    forged = forged_chunks(lineage, chunks, chunks // 100)
    state = worker.initial_state()
    leaves, wrong = [], set()
    for chunk in range(chunks):
        served = state.encode()
        if chunk not in forged:
            state = worker.run_chunk(chunk, state)
        leaves.append(state.digest())
        found = checker.run_chunk(chunk, State.decode(served, checker.plan)).digest()
        if found != leaves[-1]:
            wrong.add(chunk)
    root = segment_root(CHAIN, JOB, lineage, 0, WORKER, 0, tuple(leaves))
    assert wrong == forged, "what is forged differs, and nothing else does"
    return Work(chunks, root, frozenset(wrong), len(forged))


def finders(work: Work, validators: int, height: int) -> int:
    """How many of the 2f+1 honest validators draw a wrong chunk, each with its real ticket."""
    size = size_of(validators, work.chunks)
    return sum(
        not work.wrong.isdisjoint(draw_slice(tickets(v)[height], work.root, work.chunks, size))
        for v in range(faults(validators), validators)
    )


def detection(works: list[Work], validators: int, jobs: int) -> tuple[Counted, Counted]:
    """How often anybody honest finds the forgery; how often it would pass without the veto."""
    honest, f = validators - faults(validators), faults(validators)
    found = [finders(works[job % len(works)], validators, job + 1) for job in range(jobs)]
    chunks, forged = works[0].chunks, works[0].forged
    miss = miss_probability(chunks, size_of(validators, chunks), forged)
    passed = sum(
        (comb(honest, k) * miss**k * (1 - miss) ** (honest - k) for k in range(f + 1, honest + 1)),
        Fraction(0),
    )
    return (
        Counted(sum(count > 0 for count in found), jobs, float(1 - miss**honest)),
        Counted(sum(honest - count > f for count in found), jobs, float(passed)),
    )


def rerun(work: Work, validators: int, jobs: int) -> float:
    """Chunks that all validators together re-run in slices and audits, as a share of the work."""
    size, done = size_of(validators, work.chunks), 0
    keys = [make_key(f"validator-{v}") for v in range(validators)]
    secrets = [key.derive("audits") for key in keys]
    for job in range(jobs):
        commit = digest("test-commit", work.root, job.to_bytes(4, "little"))
        for v in range(validators):
            drawn = draw_slice(tickets(v)[job + 1], work.root, work.chunks, size)
            others = [secret for other, secret in enumerate(secrets) if other != v]
            done += len(drawn) + sum(
                is_audited(s, keys[v].public, commit, chunk, len(others), AUDIT_PERMILLE)
                for s in others
                for chunk in drawn
            )
    return done / (jobs * work.chunks)


# ---- cost of a chunk ----------------------------------------------------------------------------


def dearness(steps: int, replays: int) -> float:
    """CPU time of checking a chunk of so many tiny steps, over that of training it.

    Checking is: decode the start and compare its digest, replay with a custody digest, compare the
    end. What committing costs the worker is left out, which is to the checkers' disadvantage.
    """
    worker, checker = make_trainer(replays + 1, steps), make_trainer(replays + 1, steps)
    state, ratios = worker.initial_state(), []
    for chunk in range(replays + 1):
        served, before = state.encode(), state.digest()
        began = time.process_time()
        state = worker.run_chunk(chunk, state)
        trained = time.process_time()
        leaf = state.digest()
        checks = time.process_time()
        start = State.decode(served, checker.plan)
        assert start.digest() == before
        end, _ = checker.replay(chunk, start, digest("test-key", bytes([chunk & 255])))
        assert end.digest() == leaf
        ratios.append((time.process_time() - checks) / (trained - began))
    return statistics.median(ratios[1:])


# ---- the table ----------------------------------------------------------------------------------


def cost_lines(scale: Scale) -> Iterator[Line]:
    """Costs and detection, for every length of job and number of validators."""
    dear, tiny = dearness(CHUNK, scale.replays), dearness(1, 20 * scale.replays)
    for chunks, lineages in scale.lineages.items():
        works = [forge(chunks, lineage) for lineage in range(lineages)]
        for n in VALIDATORS:
            where = f"T' = {chunks:,}, n = {n}, f = {faults(n)}, slices of {size_of(n, chunks)}"
            formula = n * size_of(n, chunks) / chunks * (1 + AUDIT_PERMILLE / 1000)
            share = rerun(works[0], n, scale.audited_jobs)
            yield Line(f"{where}: slices and audits, of the chunks", share, formula,
                       "<= 4 %", share <= 0.04)  # fmt: skip
            yield Line(f"same, CPU time with digests, chunks of {CHUNK} tiny steps", share * dear,
                       formula, "<= 4 %", share * dear <= 0.04)  # fmt: skip
            yield Line("same, chunks of one tiny step: the dearest there are", share * tiny,
                       formula, NO_TARGET, True)  # fmt: skip
            found, passed = detection(works, n, scale.jobs)
            yield Line(f"a 1 % faker is found, {scale.jobs:,} jobs", found.rate, found.predicted,
                       ">= 99.9 %, 3 sigma",
                       found.is_near and found.predicted >= 0.999)  # fmt: skip
            yield Line("control: it passes without the veto", passed.rate, passed.predicted,
                       "breaks, 3 sigma",
                       passed.is_near and passed.rate > 0.001)  # fmt: skip


def honesty_lines(scale: Scale) -> Iterator[Line]:
    """False accusations over kernels and threads."""
    reports = kernels.survey(scale.accused)
    names = {report["kernel"].split(" ")[0] for report in reports}
    chunks = sum(report["chunks"] for report in reports)
    false = sum(report["states"] for report in reports)
    custody = sum(report["custody"] for report in reports)
    over = f"{chunks:,} chunks over {len(reports)} settings, kernels {' '.join(sorted(names))}"
    yield Line(f"false accusations of workers, {over}", false, 0, "0", not false, "")
    yield Line("false accusations of validators, same chunks", custody, 0, "0", not custody, "")
    plain = len({report["control"] for report in reports})
    yield Line("control: results of plain float32 in these processes", plain, 1, "breaks: > 1",
               plain > 1, "")  # fmt: skip


def lazy_lines(scale: Scale) -> Iterator[Line]:
    """Lazy validators."""
    found = statistics.mean(duties_until_found(AUDIT_PERMILLE, scale.discoveries))
    formula = 1 / (1 - (1 - AUDIT_PERMILLE / 3000) ** 3)
    yield Line(f"duties until a lazy validator is found, mean of {scale.discoveries}", found,
               formula, "<= 26", found <= 26, "")  # fmt: skip


def grinding_lines(scale: Scale) -> Iterator[Line]:
    """Grinding, and its controls."""
    one, every = grind(scale.tries)
    moved, noise = abs(one.rate / one.predicted - 1), 3 * one.sigma / one.predicted
    within = max(0.05, noise)
    yield Line(f"{scale.tries:,} commits ground: one honest slice is evaded", one.rate,
               one.predicted, f"moved <= {within:.0%}", moved <= within)  # fmt: skip
    yield Line(f"same: all 2f+1 slices are ({every.hits} of {every.trials:,})", every.rate,
               every.predicted, "3 sigma", every.is_near)  # fmt: skip
    at, chance = from_the_commit(scale.tries)
    yield Line(f"control: seed from the commit's root, evaded by try {at:,}", chance.rate,
               chance.predicted, "breaks", at > 0)  # fmt: skip
    for n, blocks in scale.blocks.items():
        chosen = from_the_certificate(n, blocks)
        yield Line(f"control: seed from a quorum that the proposer chooses, n = {n}", chosen.rate,
                   chosen.predicted, f"breaks: > 10 x {public_miss(n):.2%}, 3 sigma",
                   chosen.is_near and chosen.rate > 10 * public_miss(n))  # fmt: skip


def dispute_lines(scale: Scale) -> Iterator[Line]:
    """A dispute down to one op."""
    settled = dispute(DISPUTED, 1)
    found = stages(CHUNK, settled.entries)
    hashes = 32 * sum(1 << (s.high - s.low) for s in found)
    hashes += 32 * sum(s.high - s.low for s in found[:-1])
    yield Line(f"messages of a dispute down to one op, k = {CHUNK}", len(settled.moves),
               len(found), "<= 4", len(settled.moves) <= 4, "")  # fmt: skip
    yield Line("bytes of hashes in them", settled.sent, hashes, "<= 8,000",
               settled.sent <= 8000, "")  # fmt: skip


PARTS: dict[str, Callable[[Scale], Iterator[Line]]] = {
    "dispute": dispute_lines,
    "lazy": lazy_lines,
    "grinding": grinding_lines,
    "honesty": honesty_lines,
    "cost": cost_lines,
}


def main() -> int:
    """Print the table; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer of everything, two minutes")
    parser.add_argument("--json", action="store_true", help="lines as JSON")
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    options = parser.parse_args()
    scale, say = QUICK if options.quick else FULL, partial(print, flush=True)
    lines: list[Line] = []
    if not options.json:
        say(f"{machine()}, load average {os.getloadavg()[0]:.1f}\n")
        say("| quantity | measured | formula | target | measured / formula | |")
        say("|---|---|---|---|---|---|")
    began = time.perf_counter()
    for part in [options.only] if options.only else PARTS:
        for line in PARTS[part](scale):
            lines.append(line)
            if not options.json:
                say(str(line).strip())
    if options.json:
        say(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        took = time.perf_counter() - began
        say(f"\n{took:.0f} s, load average {os.getloadavg()[0]:.1f}")
    return 0 if all(line.is_met for line in lines) else 1


if __name__ == "__main__":
    raise SystemExit(main())
