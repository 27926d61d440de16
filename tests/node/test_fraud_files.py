"""Every way to forge ends in a file that convinces whoever has the genesis and nothing else."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from msgspec.structs import replace
from node.harness import Cluster, key, run_cluster

from mlchain import codec
from mlchain.client import accusation as judging
from mlchain.client.accusation import Judgement, judge_accusation
from mlchain.consensus.work.commitment import SegmentCommit
from mlchain.crypto import digest
from mlchain.errors import MlchainError, NotFound
from mlchain.ledger.genesis import Genesis
from mlchain.ml_runtime import NumpyBackend
from mlchain.ml_runtime.machine import Run, Trace
from mlchain.ml_runtime.program import Program, check
from mlchain.ml_runtime.proof import Outcome, hash_bytes
from mlchain.ml_runtime.proof.layout import op_program
from mlchain.ml_runtime.tensor import Array, allocate
from mlchain.ml_runtime.tensor import digest as tensor_digest
from mlchain.node.compute_child import Worker as Computing
from mlchain.node.compute_process import Handle
from mlchain.node.compute_wire import (
    AnswerClaim,
    Chunk,
    Evaluate,
    InitialState,
    Load,
    Replay,
    RunChunks,
    Trapped,
)
from mlchain.node.node import Node
from mlchain.node.trace_wire import TRACE_PROTOCOL
from mlchain.vm.accusation import MAX_ACCUSATION_BYTES, Accusation
from mlchain.vm.families.jobs import JOBS, fixed_seed

pytestmark = pytest.mark.slow  # whole clusters; client/test_accusation.py has the quick tests

Corrupt = Callable[[Node], None]


# ---- those who forge --------------------------------------------------------------------------


class Negating:
    """A backend that gets one op of every step's program wrong, always: it turns the sign."""

    name = "negating"

    def __init__(self, op: int) -> None:
        self.op = op

    def bind(
        self,
        program: Program,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        trace: Trace | None = None,
    ) -> Run:
        checked, numpy = check(program), NumpyBackend()

        def run() -> None:
            registers = list(inputs)
            for i, step in enumerate(checked.steps):
                outs = [allocate(checked.types[r]) for r in step.outputs]
                reads = [registers[r] for r in sorted(dict.fromkeys(step.inputs))]
                numpy.bind(op_program(checked, i), reads, outs)()
                if i == self.op and len(checked.steps) > 20:
                    np.negative(outs[0], outs[0])
                registers += outs
                if trace is not None:
                    kinds = [checked.types[r] for r in step.outputs]
                    trace.extend(map(tensor_digest, kinds, outs))
            for register, array in zip(program.outputs, outputs, strict=True):
                np.copyto(array, registers[register])

        return run


class WrongCompute:
    """`Compute` in this process, by a backend that is wrong: trained and traced alike."""

    def __init__(self, op: int) -> None:
        self.computing = Computing(lambda: Negating(op))

    async def load(self, task: bytes, dataset: bytes, seed: bytes) -> Handle:
        identity = digest("test-load", task, seed)
        (loaded,) = self.computing.answer(Load(identity, task, dataset, seed))
        return Handle(identity, task, dataset, seed, loaded.chunks)

    async def _one(self, request: Any) -> Any:
        (reply,) = self.computing.answer(request)
        return reply

    async def initial_state(self, handle: Handle) -> tuple[bytes, bytes]:
        reply = await self._one(InitialState(handle.identity))
        return reply.state, reply.digest

    @asynccontextmanager
    async def run_chunks(
        self, handle: Handle, first: int, count: int, state: bytes
    ) -> AsyncIterator[AsyncIterator[Chunk | Trapped]]:
        async def each() -> AsyncIterator[Chunk | Trapped]:
            for reply in self.computing.answer(RunChunks(handle.identity, first, count, state)):
                yield reply

        yield each()

    async def replay(self, handle: Handle, index: int, state: bytes, key: bytes = b"") -> Any:
        return await self._one(Replay(handle.identity, index, state, key))

    async def evaluate(self, handle: Handle, state: bytes) -> Any:
        return (await self._one(Evaluate(handle.identity, state))).metrics

    async def answer_claim(self, handle: Handle, *rest: Any) -> Any:
        return await self._one(AnswerClaim(handle.identity, *rest))


def computes_wrongly(node: Node) -> None:
    assert node.worker is not None and node.defence is not None
    node.worker.compute = node.defence.compute = WrongCompute(op=4)  # type: ignore[assignment]


def says_nothing(node: Node) -> None:
    async def refuse(peer: bytes, payload: bytes) -> bytes:
        raise NotFound("no comment")

    node.transport.serve(TRACE_PROTOCOL, refuse)
    skips(node)


def skips(node: Node) -> None:
    assert node.worker is not None and node.defence is not None
    node.worker.skips, node.defence.admits = lambda chunk: chunk % 3 == 1, False


def commits(change: Callable[[Node, SegmentCommit], SegmentCommit]) -> Corrupt:
    """Train honestly, and commit to something else."""

    def corrupt(node: Node) -> None:
        assert node.worker is not None and node.defence is not None
        honest, node.defence.admits = node.worker._commit, False

        async def lie(*place: Any) -> SegmentCommit:
            return change(node, await honest(*place))

        node.worker._commit = lie  # type: ignore[method-assign]

    return corrupt


def other_start(node: Node, commit: SegmentCommit) -> SegmentCommit:
    return replace(commit, start=digest("test-start")) if commit.segment == 0 else commit


def other_end(node: Node, commit: SegmentCommit) -> SegmentCommit:
    """The state before the last chunk, as if it were the one after."""
    assert node.worker is not None
    place = commit.job, commit.segment, commit.attempt
    before = node.worker.spool.read(place, commit.count - 1)
    leaves = node.content.get(commit.leaves_content)
    content = node.content.put(before)
    return replace(commit, end=leaves[-64:-32], end_content=content)


def other_score(node: Node, commit: SegmentCommit) -> SegmentCommit:
    if commit.metrics is None:
        return commit
    return replace(commit, metrics=replace(commit.metrics, correct=commit.metrics.total))


# ---- what comes of it -------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    data: bytes
    genesis: Genesis
    dataset: bytes

    def judge(self, data: bytes = b"", with_data: bool = False) -> Judgement:
        accusation = codec.decode(Accusation, data or self.data, MAX_ACCUSATION_BYTES)
        found = self.dataset if with_data else None
        return judge_accusation(accusation, self.genesis, lambda content: found)


async def first_file(cluster: Cluster, job: bytes) -> bytes:
    with trio.fail_after(900):
        while True:
            for name, node in cluster.nodes.items():
                if name.startswith("validator"):
                    for case in node.cases.names(job):
                        data = node.cases.read(case)
                        assert data is not None
                        return data
            await trio.sleep(0.05)


def convict(folder: Path, corrupt: Corrupt, steps: int = 40) -> Case:
    async def main() -> Case:
        async with run_cluster(folder, validators=4, workers=1) as cluster:
            corrupt(cluster.nodes["worker-0"])
            job = await cluster.submit_digits(steps=steps, chunk=4, segment=10, seed=fixed_seed(5))
            data = await first_file(cluster, job)
            node = cluster.nodes["validator-0"]
            record = JOBS.get(node.chain.state(), job)
            assert record is not None
            return Case(data, cluster.genesis, node.content.get(record.dataset))

    return trio.run(main)


CASES: dict[str, tuple[Corrupt, str]] = {
    "a wrong operation": (computes_wrongly, "operation"),
    "skipped chunks": (skips, "answer"),
    "skipped chunks, and silence": (says_nothing, "chunk"),
    "another first state": (commits(other_start), "start"),
    "another end": (commits(other_end), "end"),
    "another score": (commits(other_score), "score"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @cache
    def make(name: str) -> Case:
        return convict(tmp_path_factory.mktemp("fraud"), CASES[name][0])

    return make


each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_a_forgery_comes_out_as_a_file_that_anybody_audits_offline(name, made):
    case, ground = made(name), CASES[name][1]
    needs_data = ground in ("chunk", "score")
    if needs_data:
        with pytest.raises(NotFound, match="has to be"):
            case.judge()
    found = case.judge(with_data=needs_data)
    assert (found.outcome, found.ground) == (Outcome.FRAUD, ground)
    assert found.worker == key("worker-0").public


def is_refused(case: Case, data: bytes, with_data: bool) -> bool:
    try:
        return case.judge(data, with_data).outcome is not Outcome.FRAUD
    except MlchainError:
        return True


@each_case
def test_any_bit_flip_of_it_is_refused(name, made, monkeypatch):
    monkeypatch.setattr(judging, "check_registry", lambda genesis: None)  # takes a second each time
    case, draw = made(name), random.Random(7)
    with_data = CASES[name][1] in ("chunk", "score")
    places = [*range(40), *(draw.randrange(len(case.data)) for _ in range(60))]
    for place in places:
        flipped = bytearray(case.data)
        flipped[place] ^= 1 << draw.randrange(8)
        assert is_refused(case, bytes(flipped), with_data), place


def test_the_dispute_took_four_messages_and_little_to_carry(made):
    case = made("a wrong operation")
    ground = codec.decode(Accusation, case.data, MAX_ACCUSATION_BYTES).ground
    assert hash_bytes(ground.proof) < 8 << 10


def test_a_file_of_another_chain_proves_nothing(made):
    case = made("a wrong operation")
    other = replace(case.genesis, chain_id="test-other")
    with pytest.raises(MlchainError, match="is of chain"):
        judge_accusation(codec.decode(Accusation, case.data, MAX_ACCUSATION_BYTES), other)


def test_an_answer_given_for_another_place_convicts_nobody(made):
    """Without the place in what is signed, an answer about a like job could be carried over."""
    case = made("a wrong operation")
    accusation = codec.decode(Accusation, case.data, MAX_ACCUSATION_BYTES)
    ground = accusation.ground
    signature = key("worker-0").sign(digest("test-elsewhere"))
    forged = replace(accusation, ground=replace(ground, signature=signature))
    with pytest.raises(MlchainError, match="signature"):
        judge_accusation(forged, case.genesis)
