"""Equivocation on chain: whom evidence convicts, and what follows."""

from __future__ import annotations

from mlchain.consensus.evidence import Offence, decode_evidence, verify_evidence
from mlchain.errors import InvalidBlock, InvalidEvidence, MlchainError
from mlchain.vm.context import BlockContext
from mlchain.vm.families.members import (
    VALIDATORS,
    bond_holder,
    slash_validator,
    validators_after,
)


def judge_evidence(block: BlockContext, evidence: bytes) -> Offence:
    """Return whom `evidence` convicts of what can be punished in `block`.

    The accused must have been a validator at the height of its deed, present or not today.

    Raises:
        InvalidEvidence, CodecError: it proves nothing, or nothing that can be punished still.
    """
    height = decode_evidence(evidence).first.height
    voters = validators_after(block.state, height - 1)
    offence = verify_evidence(evidence, block.chain_id, voters)
    if not 0 <= block.height - height <= block.params.unbonding_blocks:
        raise InvalidEvidence("it is from the future or too old")
    record = VALIDATORS.get(block.state, bond_holder(block.state, offence.offender))
    if record is None or record.jailed_height:
        raise InvalidEvidence("the accused is punished and gone already")
    return offence


def punish(block: BlockContext, evidence: bytes, seen: dict[bytes, None]) -> None:
    """Slash and remove whom `evidence` convicts; `seen` holds the offenders of this block.

    Raises:
        InvalidBlock: it should not be in a block.
    """
    try:
        offence = judge_evidence(block, evidence)
    except MlchainError as error:
        raise InvalidBlock(f"evidence: {error.message}") from error
    if offence.offender in seen:
        raise InvalidBlock("evidence is repeated")
    seen[offence.offender] = None
    slash_validator(block, offence.offender, "equivocation", block.proposer)
