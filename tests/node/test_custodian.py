"""What a validator does about digests: keeps its own, makes lost ones again, asks for others'."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from node.harness import Cluster, key, make_genesis, run_cluster

from mlchain import codec
from mlchain.consensus.work.custody import Opening, verify_opening
from mlchain.errors import MlchainError, NotFound
from mlchain.node import custodian as custodian_module
from mlchain.node.custodian import Custodian, OpeningRequest
from mlchain.vm.families.custody import get_attestment
from mlchain.vm.families.jobs import SEGMENTS, fixed_seed

MAKER = "validator-1"


def custodian_of(cluster: Cluster) -> Custodian:
    auditor = cluster.nodes[MAKER].auditor
    assert auditor is not None and auditor.custodian is not None
    return auditor.custodian


async def attested(cluster: Cluster) -> bytes:
    """Run a job until its first segment is attested by the maker; return the job's id."""
    job = await cluster.submit_digits(steps=40, chunk=4, segment=10, seed=fixed_seed(5))
    state = cluster.nodes[MAKER].chain.state
    while True:
        segment = SEGMENTS.get(state(), job, 0)
        if segment and key(MAKER).public in [a.validator for a in segment.attestations]:
            return job
        await trio.sleep(0.02)


def test_digests_are_secret_until_due_and_lost_ones_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with run_cluster(tmp_path, 4, 1, genesis=make_genesis(4, 1)) as cluster:
            with trio.fail_after(120):
                job, custodian = await attested(cluster), custodian_of(cluster)
                state = cluster.nodes[MAKER].chain.state()
                about = get_attestment(state, job, 0, key(MAKER).public)
                chunk = about.auditable[0]
                request = codec.encode(OpeningRequest(job, 0, chunk))
                with pytest.raises(NotFound, match="not public yet"):
                    await custodian.serve(b"", request)
                monkeypatch.setattr(custodian_module, "audit_begin", lambda segment, params: 0)
                kept = codec.decode(Opening, await custodian.serve(b"", request))
                verify_opening(about.attested.result_root, about.chunks, chunk, kept)
                custodian.book.keep([])  # as after the loss of the disk
                assert codec.decode(Opening, await custodian.serve(b"", request)) == kept
                with pytest.raises(MlchainError):
                    await custodian.serve(b"", codec.encode(OpeningRequest(job, 0, 999)))

    trio.run(main)
