"""The driver: one validator's whole part in agreement, without clock, socket, disk or thread.

The host gives it messages, answers and the time; it gives back effects (see `effects.py` for the
host's duties). Between the two it lets messages in (`height.py`), applies the paper's rules
(`engine.py`), has votes signed, writes the log before anything leaves, and finds out who lacks
what (`gossip.py`). Node and simulator run this same class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mlchain import crypto
from mlchain.consensus.actions import (
    Action,
    Cast,
    Check,
    Decision,
    Propose,
    Schedule,
    Step,
    Verdict,
)
from mlchain.consensus.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    Decide,
    Effect,
    FetchBlocks,
    Send,
    Timeouts,
)
from mlchain.consensus.engine import Engine
from mlchain.consensus.gossip import (
    MAX_STRIKES,
    Early,
    Peer,
    Peers,
    lacking_blocks,
    make_status,
    missing_votes,
)
from mlchain.consensus.height import Height
from mlchain.consensus.inbox import Authenticator, identify_block
from mlchain.consensus.journal import Entry, by_height
from mlchain.consensus.last_commit import LastCommit
from mlchain.consensus.messages import (
    Decided,
    Message,
    Status,
    Want,
    decode_message,
    encode_message,
)
from mlchain.consensus.safety import SignRequest
from mlchain.errors import CodecError, DoubleSign, InvalidBlock, InvalidSignature
from mlchain.ledger.commit import NIL, Commit, Vote, VoteKind, make_commit
from mlchain.ledger.validators import ValidatorSet

ANOTHER_HEIGHT = "another height"
"""Why a message was of no use; others may look at what it shows."""


class Driver:
    """Runs agreement for one validator, or for an observer (`key` None)."""

    engine_type: type[Engine] = Engine
    height_type: type[Height] = Height
    inbox_type: type[Authenticator] = Authenticator
    decode: Callable[[bytes], Message] = staticmethod(decode_message)

    def __init__(
        self,
        chain_id: str,
        key: bytes | None,
        timeouts: Timeouts,
        sign: Callable[[SignRequest], bytes],
        extend_vote: Callable[[int, int, bytes], bytes],
        verify_extension: Callable[[int, bytes, bytes], bool],
        *,
        is_signed: Callable[[bytes, bytes, bytes], bool] = crypto.is_signed,
        identify: Callable[[bytes], bytes] = identify_block,
    ) -> None:
        """`sign` is `Signer.sign`; `extend_vote(height, round, block_id)` makes the extension of
        our precommit; the others are explained in `inbox.Authenticator`.
        """
        self._key = key
        self.timeouts = timeouts
        """Those of the next height that is started; the host may change them."""
        self._sign = sign
        self._extend_vote = extend_vote
        self._inbox = self.inbox_type(chain_id, is_signed, identify, verify_extension)
        self.peers = Peers()
        self._early = Early()
        self._current: Height | None = None
        self._last: LastCommit | None = None
        self._journal: dict[int, list[Entry]] = {}
        self._last_vote: Vote | None = None
        self._due: list[Action] = []
        self._timers: dict[tuple[int, int], int] = {}
        self._gossip_at: int | None = None
        self._ticks = 0
        self._ticks_behind = 0
        self._round_at_tick = -1
        self._effects: list[Effect] = []
        self.abstained = 0
        """Signatures our own signer refused; more than 0 after a log was lost."""

    # ---- what the host calls --------------------------------------------------------------

    @property
    def height(self) -> int:
        """The height being decided, or just decided; 0 before the first `start`."""
        return self._current.number if self._current else 0

    @property
    def round(self) -> int:
        """The current round; -1 while waiting for demand."""
        return self._current.engine.round if self._current else -1

    def recover(self, records: Iterable[bytes], last_vote: Vote | None = None) -> None:
        """Hand over what the write-ahead log holds, before the first `start`.

        `last_vote` is the signer's, kept elsewhere: others may lack it and wait for it, and where
        the log is lost nothing else knows of it.

        Raises:
            StoreCorrupted: the log was not written by this program.
        """
        self._journal = by_height(records)
        self._last_vote = last_vote

    @property
    def is_recovering(self) -> bool:
        """Whether the log holds what a height to come begins from: the chain came back lower."""
        return bool(self._journal)

    def start(
        self,
        height: int,
        validators: ValidatorSet,
        now_ms: int,
        last_commit: Commit | None = None,
    ) -> None:
        """Begin `height`, waiting for demand.

        Call it after boot, with the stored commit of the height before, and after each `Decide`
        once its block is stored.
        """
        engine = self.engine_type(height, validators, self._key, self.timeouts)
        self._current = current = self.height_type(engine, self._inbox, self._effects.append)
        self._timers, self._due = {}, []
        self._round_at_tick, self._ticks_behind = -1, 0
        self.peers.forgive()
        if self._last is None or self._last.height != height - 1:
            emit = self._effects.append
            self._last = LastCommit(last_commit, None, emit) if last_commit else None
        if self._gossip_at is None:
            self._gossip_at = now_ms + self.timeouts.gossip_ms
        # What a lock rests on is kept until its height comes: a database that was fetched anew
        # stands lower than the log, and whoever comes back unlocked could help to fork the chain.
        current.replay(self._journal.pop(height, ()))
        self._journal = {at: rows for at, rows in self._journal.items() if at > height}
        early = self._early.take(height)
        if self._last_vote is not None and self._last_vote.height == height:
            early.append(self._last_vote)
        for message in early:
            try:
                current.take(message, verified=True)
            except (CodecError, InvalidSignature, InvalidBlock):
                continue  # the members changed with this height
        self._advance(now_ms)

    def demand(self, now_ms: int) -> None:
        """Say that the host wants a block at this height. Idempotent."""
        if self._current:
            self._current.engine.demand()
            self._advance(now_ms)

    def receive(self, peer: bytes, data: bytes, now_ms: int) -> str | None:
        """Take a message from `peer`; return why it was of no use, or None.

        Never raises for what a peer sends. One that sends too much that is forged is not heard
        for the rest of the height.
        """
        known = self.peers.get(peer)
        if self._current is None or known is None or known.strikes >= MAX_STRIKES:
            return "not listening"
        try:
            reason = self._route(self._current, peer, known, self.decode(data), now_ms)
        except (CodecError, InvalidSignature, InvalidBlock) as error:
            known.strikes += 1
            return error.message
        if reason is None:
            self._advance(now_ms)
        return reason

    def sign(self, request: SignRequest, now_ms: int) -> None:
        """Answer to `SignMessage`: have it signed, and send it."""
        if self._current is None or self._key is None:
            return
        signature: bytes | None = None
        try:
            signature = self._sign(request)
        except DoubleSign:
            self.abstained += 1
        message = self._current.take_own(request, self._key, signature)
        if message is not None:
            self._effects.append(Broadcast(encode_message(message)))
        self._advance(now_ms)

    def built(
        self, height: int, round_: int, block: bytes | None, block_id: bytes, now_ms: int
    ) -> None:
        """Answer to `BuildBlock`; None: nothing to propose. Too late: ignored."""
        if self._current is None or block is None:
            return
        engine = self._current.engine
        asked = (engine.height, engine.round, Step.PROPOSE, False)
        if (height, round_, engine.step, engine.decided) == asked:
            engine.set_verdict(block_id, Verdict.VALID)
            self._propose(self._current, round_, block_id, -1, block)
            self._advance(now_ms)

    def checked(self, block_id: bytes, ok: bool, now_ms: int, *, wanted: bool = True) -> None:
        """Answer to `CheckBlock`. `ok`: the block is valid, which is the same on every node.

        `wanted` False: valid, but this node does not prevote it on its own account (the veto,
        protocol.md section 8); it follows a quorum that does.
        """
        if self._current and self._current.engine.has_asked(block_id):
            valid = Verdict.VALID if wanted else Verdict.UNWANTED
            self._current.engine.set_verdict(block_id, valid if ok else Verdict.INVALID)
            self._advance(now_ms)

    def synced(self, block: bytes, commit: Commit, now_ms: int) -> bool:
        """Take a fetched block with its certificate; tell whether it decided our height.

        Raises:
            InvalidBlock, InvalidSignature, CodecError: whoever served it is lying.
        """
        current = self._current
        if current is None or current.engine.decided or commit.height != current.number:
            return False
        self._inbox.check_commit(commit, current.validators)
        self._inbox.check_block(block, commit.block_id)
        self._decide(current, block, commit)
        return True

    def last_commit(self) -> Commit | None:
        """Return the certificate of the last decided height, with every precommit known by now."""
        return self._last.certificate() if self._last else None

    def next_timer(self) -> int | None:
        """Return when to call `handle_timer`, in the host's milliseconds."""
        soonest = self._gossip_at
        for at in self._timers.values():
            if soonest is None or at < soonest:
                soonest = at
        return soonest

    def handle_timer(self, now_ms: int) -> None:
        """Fire what is due."""
        if self._current is None:
            return
        for key in sorted(k for k, at in self._timers.items() if at <= now_ms):
            del self._timers[key]
            self._current.engine.timeout(Step(key[0]), key[1])
        if self._gossip_at is not None and self._gossip_at <= now_ms:
            self._gossip_at = now_ms + self.timeouts.gossip_ms
            self._gossip(self._current)
        self._advance(now_ms)

    def drain(self) -> list[Effect]:
        """Return, and forget, the effects to execute now, in this order."""
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    # ---- messages in ----------------------------------------------------------------------

    def _route(
        self, current: Height, sender: bytes, peer: Peer, message: Message, now_ms: int
    ) -> str | None:
        if isinstance(message, Status):
            return self._on_status(current, sender, peer, message, now_ms)
        if isinstance(message, Want):
            return self._on_want(current, sender, peer, message, now_ms)
        if isinstance(message, Decided):
            return self._on_decided(current, sender, message.commit)
        height = message.height if isinstance(message, Vote) else message.proposal.height
        if isinstance(message, Vote) and self._last and height == self._last.height:
            return self._last.add(message, self._inbox)
        if height == current.number + 1:
            return self._early.keep(message, current.validators, self._inbox)
        if height != current.number or current.engine.decided:
            return ANOTHER_HEIGHT
        return current.take(message)

    def _on_status(
        self, current: Height, sender: bytes, peer: Peer, status: Status, now_ms: int
    ) -> str | None:
        peer.height = status.height
        if now_ms < peer.status_answer_ms:
            return "answered a moment ago"
        peer.status_answer_ms = now_ms + self.timeouts.gossip_ms // 2
        if status.height == current.number:
            for vote in self._votes_lacking(current.engine, status):
                self._effects.append(Send(sender, encode_message(vote)))
        if self._last and status.height == self._last.height:
            message = encode_message(Decided(self._last.certificate()))
            self._effects.append(Send(sender, message))
        return None

    def _on_want(
        self, current: Height, sender: bytes, peer: Peer, want: Want, now_ms: int
    ) -> str | None:
        if now_ms < peer.block_answer_ms:
            return "answered a moment ago"
        if want.height != current.number:
            return ANOTHER_HEIGHT
        proposal = current.proposal(want.round, want.block_id)
        if proposal is None:
            return "no such proposal"
        peer.block_answer_ms = now_ms + self.timeouts.gossip_ms // 2
        self._effects.append(Send(sender, encode_message(proposal)))
        return None

    def _on_decided(self, current: Height, sender: bytes, commit: Commit) -> str | None:
        if commit.height != current.number or current.engine.decided:
            return ANOTHER_HEIGHT
        self._inbox.check_commit(commit, current.validators)
        block = current.block(commit.block_id)
        if block is None:
            self._effects.append(FetchBlocks(sender, current.number))
        else:
            self._decide(current, block, commit)
        return None

    # ---- the engine's actions -------------------------------------------------------------

    def _advance(self, now_ms: int) -> None:
        """Do what the engine asks for, one thing after the other: one may wait for a signature."""
        current = self._current
        assert current is not None
        while not current.is_signing:
            self._due = self._due or current.engine.advance()
            if not self._due:
                return
            self._execute(current, self._due.pop(0), now_ms)

    def _execute(self, current: Height, action: Action, now_ms: int) -> None:
        if isinstance(action, Schedule):
            self._timers[action.step, action.round] = now_ms + action.delay_ms
        elif isinstance(action, Cast):
            self._vote(current, action)
        elif isinstance(action, Check):
            block = current.block(action.block_id)
            if block is not None:
                self._effects.append(CheckBlock(current.number, action.block_id, block))
        elif isinstance(action, Propose):
            if action.block_id == NIL:
                self._effects.append(BuildBlock(current.number, action.round))
            elif (block := current.block(action.block_id)) is not None:
                self._propose(current, action.round, action.block_id, action.pol_round, block)
        elif isinstance(action, Decision):
            self._on_decision(current, action)

    def _on_decision(self, current: Height, decision: Decision) -> None:
        block = current.block(decision.block_id)
        assert block is not None, "the engine decides blocks at hand"
        votes = current.engine.votes.cast_for(VoteKind.PRECOMMIT, decision.round, decision.block_id)
        self._decide(current, block, make_commit(votes))

    def _decide(self, current: Height, block: bytes, commit: Commit) -> None:
        current.engine.decided = True
        self._timers, self._due = {}, []
        self._last = LastCommit(commit, current.validators, self._effects.append)
        self._effects.append(Decide(current.number, commit.block_id, block, commit))

    def _vote(self, current: Height, cast: Cast) -> None:
        extension = b""
        if self._key is None or self._key not in current.validators:
            return
        if cast.kind is VoteKind.PRECOMMIT and cast.block_id != NIL:
            extension = self._extend_vote(current.number, cast.round, cast.block_id)
        current.intend(
            SignRequest(cast.kind, current.number, cast.round, cast.block_id, -1, extension)
        )

    def _propose(
        self, current: Height, round_: int, block_id: bytes, pol_round: int, block: bytes
    ) -> None:
        if current.proposal(round_, NIL) is None and not current.is_signing:
            request = SignRequest(
                VoteKind.PROPOSAL, current.number, round_, block_id, pol_round, b""
            )
            current.intend(request, block)

    # ---- gossip ---------------------------------------------------------------------------

    def _votes_lacking(self, engine: Engine, status: Status) -> list[Vote]:
        """Return what to send to the author of `status`."""
        return missing_votes(engine, status)

    def _gossip(self, current: Height) -> None:
        """Say where we are, and ask one peer, another each time, for what we lack."""
        engine = current.engine
        self._ticks += 1
        current.forget_blocks()
        self._effects.append(Broadcast(encode_message(make_status(engine))))
        if engine.decided:
            return
        ahead = self.peers.ahead_of(current.number)
        self._ticks_behind = self._ticks_behind + 1 if ahead else 0
        if self._ticks_behind > 1:  # a commit certificate did not help in the meantime
            peer = ahead[self._ticks % len(ahead)]
            self._effects.append(FetchBlocks(peer, current.number))
        beside = self.peers.at(current.number)
        overdue = engine.round == self._round_at_tick
        for round_, block_id in lacking_blocks(engine, overdue) if beside else ():
            want = encode_message(Want(current.number, round_, block_id))
            self._effects.append(Send(beside[self._ticks % len(beside)], want))
        self._round_at_tick = engine.round
