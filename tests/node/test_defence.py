"""A worker whose memory failed finds it out and admits it; one that did nothing wrong does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from node.harness import BOND, PARAMS, Cluster, key, run_cluster

from mlchain.consensus.work.commitment import commit_id
from mlchain.node.node import Node
from mlchain.vm.families.jobs import JOBS, SEGMENTS, SegmentState, fixed_seed
from mlchain.vm.families.members import WORKERS
from mlchain.vm.families.segments import MakeClaim

pytestmark = pytest.mark.slow

FAULTY = 3
"""The chunk in which the worker's memory fails."""


def blind(node: Node) -> None:
    """A validator that looks at nothing: whatever comes, comes from the worker itself."""

    async def nothing(*what: object) -> None:
        return None

    assert node.auditor is not None
    node.auditor._audit = node.auditor._vote = nothing  # type: ignore[method-assign]


def note_looks(node: Node) -> Callable[[], bool]:
    """Return what tells whether the worker has done with what it does about an accusation."""
    defence, done = node.defence, []
    assert defence is not None
    right = defence._is_right

    async def is_right(case: object) -> bool:
        found = await right(case)  # type: ignore[arg-type]
        done.append(found)
        return found

    defence._is_right = is_right  # type: ignore[method-assign]
    return lambda: bool(done or (defence._looked and not defence.admits))


def watch(
    folder: Path, prepare: Callable[[Node], None], accuse: int | None = None
) -> tuple[Cluster, bytes]:
    """Run until the worker's first segment fell, or, if it does not, for some blocks."""

    async def main() -> tuple[Cluster, bytes]:
        async with run_cluster(folder, validators=4, workers=1) as cluster:
            for name, node in cluster.nodes.items():
                if name.startswith("validator"):
                    blind(node)
            worker, judge = cluster.nodes["worker-0"], cluster.nodes["validator-0"]
            assert worker.worker is not None and judge.auditor is not None
            prepare(worker)
            looked = note_looks(worker)
            job = await cluster.submit_digits(steps=40, chunk=4, segment=10, seed=fixed_seed(5))
            seen = 0
            with trio.fail_after(900):
                while not cluster.faults() and seen < 100:
                    await trio.sleep(0.05)
                    state = judge.chain.state()
                    segment = SEGMENTS.get(state, job, 0) if JOBS.get(state, job) else None
                    if segment is None or segment.commit is None or segment.attempt:
                        continue
                    seen += looked()
                    if accuse is not None and segment.state == SegmentState.COMMITTED:
                        commit = commit_id(segment.commit)
                        claim = MakeClaim(job, 0, commit, accuse, 0, bytes(32))
                        judge.auditor.outbox.send(claim)
            return cluster, job

    return trio.run(main)


def fails_once(node: Node) -> None:
    assert node.worker is not None
    node.worker.skips = lambda chunk: chunk == FAULTY  # its result is the state before


def test_an_accused_worker_looks_again_and_admits(tmp_path: Path) -> None:
    cluster, _ = watch(tmp_path, fails_once, accuse=FAULTY)
    assert [(f.kind, f.chunk) for f in cluster.faults()] == [("admitted", FAULTY)]
    record = WORKERS.get(cluster.nodes["validator-0"].chain.state(), key("worker-0").public)
    assert record is not None
    assert record.bond == BOND - PARAMS.fee_admission and not record.jailed_height


def test_with_the_option_it_looks_at_its_own_work_unasked(tmp_path: Path) -> None:
    def prepare(node: Node) -> None:
        fails_once(node)
        assert node.defence is not None
        node.defence.pick = lambda count: FAULTY

    cluster, _ = watch(tmp_path, prepare)
    assert [(f.kind, f.chunk) for f in cluster.faults()] == [("admitted", FAULTY)]


def test_who_did_nothing_wrong_admits_nothing(tmp_path: Path) -> None:
    cluster, _ = watch(tmp_path, lambda node: None, accuse=FAULTY)
    assert not cluster.faults()


def test_control_a_worker_that_does_not_look_again_waits_to_be_punished(tmp_path: Path) -> None:
    def prepare(node: Node) -> None:
        fails_once(node)
        assert node.defence is not None
        node.defence.admits = False

    cluster, _ = watch(tmp_path, prepare, accuse=FAULTY)
    assert not cluster.faults()
