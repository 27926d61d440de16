"""What must hold in every run, whatever the network and the adversary do."""

from __future__ import annotations

from mlchain.consensus.evidence import verify_evidence
from mlchain.consensus.messages import BlockProposal, Message
from mlchain.errors import MlchainError
from mlchain.ledger.commit import Commit, Vote, verify_commit
from mlchain.ledger.validators import ValidatorSet
from mlchain.sim.adversary import CHAIN_ID
from mlchain.sim.application import is_signed


class Violation(Exception):
    """A promise of the protocol was broken; the seed replays how."""


class Checkers:
    """Watches what correct validators do."""

    def __init__(self, validators: ValidatorSet, faulty: tuple[bytes, ...]) -> None:
        self._validators = validators
        self._faulty = faulty
        self._decided: dict[int, bytes] = {}
        self._signed: dict[tuple[bytes, int, int, int], bytes] = {}
        self.convicted: dict[bytes, int] = {}
        """Offenders proven guilty, with the first height of an offence."""

    def on_decide(self, height: int, block_id: bytes, commit: Commit, is_valid: bool) -> None:
        """Agreement and validity: one valid block per height, with a certificate that convinces.

        Raises:
            Violation: not so.
        """
        agreed = self._decided.setdefault(height, block_id)
        if agreed != block_id:
            raise Violation(
                f"agreement: height {height} is {agreed.hex()[:8]} and {block_id.hex()[:8]}"
            )
        if not is_valid:
            raise Violation(f"validity: height {height} decided a block that is not valid")
        self.on_certificate(height, block_id, commit)

    def on_certificate(self, height: int, block_id: bytes, commit: Commit) -> None:
        """Certificates verify.

        Raises:
            Violation: not so.
        """
        try:
            verify_commit(commit, CHAIN_ID, self._validators, height, block_id, is_signed)
        except MlchainError as error:
            raise Violation(f"certificate of height {height}: {error.message}") from error

    def on_signed(self, key: bytes, message: Message) -> None:
        """No correct validator signs two things for one height, round and step.

        Raises:
            Violation: not so.
        """
        if not isinstance(message, Vote | BlockProposal):
            return
        signed = message.proposal if isinstance(message, BlockProposal) else message
        kind = signed.kind if isinstance(signed, Vote) else 0
        place = (key, signed.height, signed.round, kind)
        text = signed.sign_bytes(CHAIN_ID)
        if self._signed.setdefault(place, text) != text:
            raise Violation(f"double signature by a correct validator at {place[1:]}")

    def on_evidence(self, evidence: bytes) -> None:
        """Evidence convinces everybody, and convicts only the guilty.

        Raises:
            Violation: not so.
        """
        try:
            offence = verify_evidence(evidence, CHAIN_ID, self._validators, is_signed)
        except MlchainError as error:
            raise Violation(f"evidence does not verify: {error.message}") from error
        if offence.offender not in self._faulty:
            raise Violation(f"evidence against a correct validator at height {offence.height}")
        self.convicted.setdefault(offence.offender, offence.height)

    def on_end(self, heights: list[int], wanted: int, must_convict: tuple[bytes, ...]) -> None:
        """Liveness: the calm network went on; and who must be caught was.

        Raises:
            Violation: not so.
        """
        if min(heights) < wanted:
            raise Violation(f"liveness: decided {heights} of {wanted} heights long after the calm")
        if missed := [key for key in must_convict if key not in self.convicted]:
            raise Violation(f"evidence: {len(missed)} equivocator(s) not found")
