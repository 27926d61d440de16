"""Everything mlchain raises on purpose, in one tree. The branch says whose fault it is.

    MlchainError
    ├── CodecError            somebody's bytes: malformed, oversized, not canonical
    ├── InvalidSignature      somebody's signature
    ├── InvalidTransaction    the sender's transaction
    │   ├── OutOfGas
    │   ├── UnknownModel
    │   └── InvalidRows
    ├── InvalidBlock          the proposer's block
    ├── InvalidEvidence       the reporter's evidence
    ├── RejectedProgram       the submitter's program: unknown op, bad shape, bound or gas exceeded
    ├── Trap                  a step left the exact range: an agreed result, not a failure of ours
    ├── DoubleSign            our own signer was asked to contradict itself
    ├── GenesisError          the operator's genesis file
    ├── UpgradeNeeded         the operator's installation: the members agreed on other rules
    ├── ConfigError           the operator's configuration, key file or job file
    ├── StoreCorrupted        the operator's disk
    ├── NotFound              no such block, job, content or key
    │   └── Pruned            a block that was here and was removed: another node may keep it
    ├── Unreachable           no node answers
    ├── Rejected              the chain refused a transaction
    ├── Timeout               the wait ended first; what was waited for goes on
    ├── VerificationFailed    re-run differs, hash differs, proof is wrong
    └── Locked                a key needs a password and none was given

Anything else that escapes is our bug. `hint` says what to do next; commands print it.
"""

from __future__ import annotations


class MlchainError(Exception):
    """Base of all expected errors."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def ascii_message(self) -> str:
        """The message for records that all nodes hash, at most 512 characters, on any Python.

        Which characters `repr` escapes differs by version.
        """
        return self.message.encode("ascii", "backslashreplace").decode()[:512]


class CodecError(MlchainError):
    """Bytes that are malformed, too large or not in canonical form."""


class InvalidSignature(MlchainError):
    """A signature that does not verify under the named key."""


class InvalidTransaction(MlchainError):
    """A transaction that cannot be executed as its sender asks."""


class OutOfGas(InvalidTransaction):
    """A transaction that needs more gas than it brought."""


class UnknownModel(InvalidTransaction):
    """A request about a model that is not registered, or that no quorum of validators holds."""


class InvalidRows(InvalidTransaction):
    """Rows to be predicted that are not what the model reads."""


class InvalidBlock(MlchainError):
    """A block that breaks a rule; its proposer should not have made it."""


class InvalidEvidence(MlchainError):
    """Evidence that does not prove what it claims."""


class RejectedProgram(MlchainError):
    """A tensor program refused before it ran."""


class Trap(MlchainError):
    """A tensor program left the exact range, on every machine alike.

    `step` is the training step at which it did, -1 outside training.
    """

    def __init__(self, message: str, hint: str = "", step: int = -1) -> None:
        super().__init__(message, hint)
        self.step = step


class DoubleSign(MlchainError):
    """Our signer was asked for a second, different signature for one height, round and step."""


class GenesisError(MlchainError):
    """A genesis file that cannot start a chain."""


class UpgradeNeeded(MlchainError):
    """The chain follows rules that this installation does not have."""


class ConfigError(MlchainError):
    """A configuration, key or job file that cannot be used."""


class StoreCorrupted(MlchainError):
    """The database or a log does not hold what was written to it."""


class NotFound(MlchainError):
    """No such block, job, content or key."""


class Pruned(NotFound):
    """A block that this node has removed to save space; an archive node keeps it."""


class Unreachable(MlchainError):
    """No node answers."""


class Rejected(MlchainError):
    """The chain refused the transaction."""


class Timeout(MlchainError):
    """The wait ended first; what was waited for goes on."""


class VerificationFailed(MlchainError):
    """A re-run, a hash or a proof does not match."""


class Locked(MlchainError):
    """A key needs a password and none was given."""
