"""What the driver asks of its host, and the times it is given.

The host's duties, which safety rests on:

1. After every call of the driver, execute what `drain` returns, strictly in that order and one
   list after another, until it returns nothing.
2. A `Persist` with `sync` is on the disk before the next effect begins.
3. Answer `SignMessage` at once with `driver.sign(effect.request, now_ms)`. It stands behind the
   `Persist` of what it signs: a crash between the two is repaired at the next start, whereas a
   signer that remembers a vote the log has lost would have to stay silent, and four validators
   with one faulty cannot spare a second.
4. Answer `BuildBlock` with `built` and `CheckBlock` with `checked`, at any later time.
5. After a `Decide`: store block and commit in one atomic batch, then call `start` for the next
   height. A decided block may come without a `CheckBlock` before it (catch-up): execute it then,
   and stop if its roots do not come out, for then a third of the validators is faulty.
6. Call `handle_timer` when the time of `next_timer` has come.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlchain.consensus.safety import SignRequest
from mlchain.ledger.commit import Commit


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds. Round r waits `base + r * step_ms`, at most `cap_ms`.

    Timeouts grow with the round so that, whatever the true delay of the network is, some round
    is long enough for everybody (the paper's partial synchrony).
    """

    propose_ms: int
    vote_ms: int
    step_ms: int
    cap_ms: int = 30_000
    gossip_ms: int = 500
    """Between two statuses, and between two requests for what is missing."""

    def delay_ms(self, base_ms: int, round_: int) -> int:
        """Return how long to wait in `round_`."""
        return min(base_ms + round_ * self.step_ms, self.cap_ms)


@dataclass(frozen=True, slots=True)
class Persist:
    """Append `record` to the write-ahead log; with `sync`, have all of it on disk first."""

    record: bytes
    sync: bool


@dataclass(frozen=True, slots=True)
class SignMessage:
    """Call `driver.sign(request, now_ms)`."""

    request: SignRequest


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to one peer."""

    peer: bytes
    message: bytes


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send `message` to every peer that takes part in agreement."""

    message: bytes


@dataclass(frozen=True, slots=True)
class BuildBlock:
    """Make a block for (height, round); answer with `built`."""

    height: int
    round: int


@dataclass(frozen=True, slots=True)
class CheckBlock:
    """Execute `block` on the state before `height`; answer with `checked`."""

    height: int
    block_id: bytes
    block: bytes


@dataclass(frozen=True, slots=True)
class Decide:
    """The height is decided: commit, then `start` the next."""

    height: int
    block_id: bytes
    block: bytes
    commit: Commit


@dataclass(frozen=True, slots=True)
class FetchBlocks:
    """Fetch blocks and commits from `from_height` on; feed them to `synced` one by one.

    `peer` says it has them. Repeated while we stay behind, over different peers; a host that is
    already fetching may ignore it.
    """

    peer: bytes
    from_height: int


@dataclass(frozen=True, slots=True)
class ReportEvidence:
    """Somebody signed two things; put `evidence` into a block."""

    evidence: bytes


Effect = (
    Persist
    | SignMessage
    | Send
    | Broadcast
    | BuildBlock
    | CheckBlock
    | Decide
    | FetchBlocks
    | ReportEvidence
)
