"""Who attested a chunk of its slice that a quorum then finds wrong answers for it, too.

Re-running is exact, and leaves and states are fixed by their digests. So whoever re-ran the chunk
saw what the quorum sees: it said "equal" without looking, or against what it saw. Without this rule
the attestations would go with the segment when the fraud is found, and helping a forger would cost
nothing. What is lost is burned: a coalition that is found out could else claim its own chunk, and
have half of it back.
"""

from __future__ import annotations

from mlchain.vm.context import BlockContext
from mlchain.vm.families.jobs import Job, Segment, attesters_of
from mlchain.vm.families.members import slash_validator


def slash_false_attesters(
    block: BlockContext, job_id: bytes, job: Job, index: int, segment: Segment, chunk: int
) -> None:
    """Slash and remove whoever attested a slice of `segment` that holds the wrong `chunk`.

    Chunks count from the start of the job. To be called once a quorum has re-run the chunk.
    """
    for validator in attesters_of(job, index, segment, chunk):
        slash_validator(
            block, validator, "false-attestation", b"", job_id, index, chunk,
            amount=block.params.slash_lazy,
        )  # fmt: skip
