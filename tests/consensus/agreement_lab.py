"""One driver with real keys, a host that does its duties, and names instead of hashes.

Validators are a, b, c, d in key order, and s is a stranger. The height is 4, so a proposes in
round 0, b in round 1, and so on. Blocks are called X, Y, Z. A `Node` answers every input with
the effects the host executed, as lines:

    log intent prevote 0 X, synced      written before anything is signed
    sign prevote 0 X                    asked of the signer, and answered at once
    log prevote d 0 X                   noted, not synced
    all: prevote d 0 X                  sent to everybody
"""

from __future__ import annotations

from collections.abc import Iterable

from mlchain import crypto
from mlchain.consensus.actions import Step
from mlchain.consensus.driver import Driver
from mlchain.consensus.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    Decide,
    Effect,
    FetchBlocks,
    Persist,
    Send,
    SignMessage,
    Timeouts,
)
from mlchain.consensus.engine import Engine
from mlchain.consensus.evidence import verify_evidence
from mlchain.consensus.journal import Intent, decode_entry
from mlchain.consensus.messages import (
    BlockProposal,
    Decided,
    Message,
    Proposal,
    Status,
    Want,
    decode_message,
    encode_message,
)
from mlchain.consensus.safety import Signer, SignRequest
from mlchain.crypto import SecretKey
from mlchain.errors import CodecError
from mlchain.ledger.commit import NIL, Commit, Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.validators import Validator, ValidatorSet

CHAIN_ID = "test"
HEIGHT = 4
TIMEOUTS = Timeouts(propose_ms=1000, vote_ms=500, step_ms=100, cap_ms=5000, gossip_ms=200)
PROPOSAL, PREVOTE, PRECOMMIT = VoteKind

_SECRETS = sorted((SecretKey(bytes([i]) * 32) for i in range(4)), key=lambda key: key.public)
SECRETS = {**dict(zip("abcd", _SECRETS, strict=True)), "s": SecretKey(b"s" * 32)}
NAMES = {secret.public: name for name, secret in SECRETS.items()}
MEMBERS = ValidatorSet(tuple(Validator(SECRETS[name].public, 1) for name in "abcd"))
GOOD_EXTENSION = b"work"


def block_of(name: str, height: int = HEIGHT) -> bytes:
    return f"block {name} {height}".encode()


def identify(block: bytes) -> bytes:
    if not block.startswith(b"block "):
        raise CodecError("not a block")
    return crypto.digest("test/block", block)


def id_of(name: str, height: int = HEIGHT) -> bytes:
    return NIL if name == "nil" else identify(block_of(name, height))


_BLOCK_NAMES = {id_of(name, height): name for name in "WXYZ" for height in range(20)} | {NIL: "nil"}


def key_of(name: str) -> bytes:
    return SECRETS[name].public


def vote(
    name: str,
    kind: VoteKind,
    round_: int,
    block: str,
    *,
    height: int = HEIGHT,
    extension: bytes | None = None,
    chain_id: str = CHAIN_ID,
) -> Vote:
    """Return a vote signed by `name`."""
    extended = kind is PRECOMMIT and block != "nil"
    if extension is None:
        extension = GOOD_EXTENSION if extended else b""
    block_id = id_of(block, height)
    message = sign_bytes(chain_id, kind, height, round_, block_id, -1, extension)
    signature = SECRETS[name].sign(message)
    return Vote(kind, height, round_, block_id, key_of(name), extension, signature)


def votes(names: str, kind: VoteKind, round_: int, block: str, height: int = HEIGHT) -> list[Vote]:
    return [vote(name, kind, round_, block, height=height) for name in names]


def proposal(
    name: str,
    round_: int,
    block: str,
    pol_round: int = -1,
    polka: Iterable[Vote] = (),
    height: int = HEIGHT,
    chain_id: str = CHAIN_ID,
) -> BlockProposal:
    """Return a proposal signed by `name`."""
    block_id = id_of(block, height)
    message = sign_bytes(chain_id, PROPOSAL, height, round_, block_id, pol_round)
    signature = SECRETS[name].sign(message)
    head = Proposal(height, round_, block_id, pol_round, key_of(name), signature)
    return BlockProposal(head, tuple(polka), block_of(block, height))


def commit_of(names: str, block: str, round_: int = 0, height: int = HEIGHT) -> Commit:
    return make_commit(votes(names, PRECOMMIT, round_, block, height))


class Host:
    """What survives a crash of the process: the log and the last signature."""

    def __init__(self) -> None:
        self.synced: list[bytes] = []
        self.unsynced: list[bytes] = []
        self.last_sign: bytes | None = None

    def save(self, data: bytes) -> None:
        self.last_sign = data


class Node:
    """A driver, and a host that executes its effects in order."""

    def __init__(
        self,
        me: str | None = "d",
        host: Host | None = None,
        *,
        members: ValidatorSet = MEMBERS,
        height: int = HEIGHT,
        last_commit: Commit | None = None,
        extension: bytes = GOOD_EXTENSION,
        has_signer: bool = True,
        takes_any_extension: bool = False,
    ) -> None:
        self.host = host or Host()
        self.now = 0
        self.holds_signing = False
        self.effects: list[Effect] = []
        """All executed so far."""
        key = SECRETS[me or "s"]
        signer = Signer(key, CHAIN_ID, self.host.last_sign, self.host.save)
        self.asked: list[SignRequest] = []
        self.driver = Driver(
            CHAIN_ID,
            key.public if me else None,
            TIMEOUTS,
            signer.sign if has_signer else self._refuse,
            lambda height, round_, block_id: extension,
            lambda height, key, given: takes_any_extension or given == GOOD_EXTENSION,
            identify=identify,
        )
        self.driver.recover(self.host.synced)
        self.members = members
        self.driver.start(height, members, 0, last_commit)

    @property
    def engine(self) -> Engine:
        assert self.driver._current is not None
        return self.driver._current.engine

    @property
    def lock(self) -> tuple[int, bytes]:
        return self.engine.locked_round, self.engine.locked_id

    def begun(self) -> list[str]:
        """Return what was executed on the way up."""
        return self._pump()

    def demand(self) -> list[str]:
        self.driver.demand(self.now)
        return self._pump()

    def built(self, block: str, round_: int = 0) -> list[str]:
        self.driver.built(HEIGHT, round_, block_of(block), id_of(block), self.now)
        return self._pump()

    def checked(self, block: str, ok: bool = True, wanted: bool = True) -> list[str]:
        self.driver.checked(id_of(block), ok, self.now, wanted=wanted)
        return self._pump()

    def receive(self, *messages: Message, peer: str = "a") -> list[str]:
        """Receive what must be of use."""
        said = []
        for message in messages:
            reason = self.driver.receive(key_of(peer), encode_message(message), self.now)
            assert reason is None, reason
            said += self._pump()
        return said

    def refuse(self, message: Message | bytes, peer: str = "a") -> str:
        """Receive what must be refused and have no effect; return the reason."""
        data = message if isinstance(message, bytes) else encode_message(message)
        before = self.engine.votes.tallies(), dict(self.engine.proposals)
        reason = self.driver.receive(key_of(peer), data, self.now)
        assert reason is not None, "it was taken"
        assert self._pump() == []
        assert (self.engine.votes.tallies(), self.engine.proposals) == before
        return reason

    def synced(self, block: str, commit: Commit) -> list[str]:
        self.driver.synced(block_of(block), commit, self.now)
        return self._pump()

    def sleep(self, ms: int, *, quiet: bool = True) -> list[str]:
        """Let time pass, firing timers when they are due; `quiet`: leave statuses out."""
        until, said = self.now + ms, []
        while (at := self.driver.next_timer()) is not None and at <= until:
            self.now = max(at, self.now)
            self.driver.handle_timer(self.now)
            said += self._pump()
        self.now = until
        return [s for s in said if not (quiet and s.startswith("all: status"))]

    def start(self, height: int) -> list[str]:
        """Begin the next height, as the host does after a `Decide`."""
        self.host.synced, self.host.unsynced = [], []
        self.driver.start(height, self.members, self.now)
        return self._pump()

    def strikes(self, peer: str) -> int:
        return self.driver.peers.strikes(key_of(peer))

    def sent(self) -> list[bytes]:
        """Return the proposals and votes broadcast so far."""
        messages = [e.message for e in self.effects if isinstance(e, Broadcast)]
        return [m for m in messages if not isinstance(decode_message(m), Status)]

    def execute(self, effect: Effect) -> None:
        """Do the host's duty."""
        if isinstance(effect, Persist):
            self.host.unsynced.append(effect.record)
            if effect.sync:
                self.host.synced += self.host.unsynced
                self.host.unsynced = []
        elif isinstance(effect, SignMessage) and not self.holds_signing:
            self.driver.sign(effect.request, self.now)

    def _pump(self) -> list[str]:
        said = []
        while effects := self.driver.drain():
            for effect in effects:
                said.append(describe(effect))
                self.effects.append(effect)
                self.execute(effect)
        return said

    def _refuse(self, request: SignRequest) -> bytes:
        self.asked.append(request)
        raise AssertionError("nothing may be signed here")


def describe(effect: Effect) -> str:
    """Return an effect in words."""
    if isinstance(effect, Persist):
        return f"log {_entry(effect.record)}{', synced' if effect.sync else ''}"
    if isinstance(effect, SignMessage):
        return f"sign {_request(effect.request)}"
    if isinstance(effect, Broadcast):
        return f"all: {_message(decode_message(effect.message))}"
    if isinstance(effect, Send):
        return f"to {NAMES[effect.peer]}: {_message(decode_message(effect.message))}"
    if isinstance(effect, BuildBlock):
        return f"build {effect.round}"
    if isinstance(effect, CheckBlock):
        return f"check {_BLOCK_NAMES[effect.block_id]}"
    if isinstance(effect, Decide):
        return f"decide {_commit(effect.commit)}"
    if isinstance(effect, FetchBlocks):
        return f"fetch from {NAMES[effect.peer]} at {effect.from_height}"
    offence = verify_evidence(effect.evidence, CHAIN_ID, MEMBERS)
    return f"report {NAMES[offence.offender]}"


def _request(request: SignRequest) -> str:
    kind = VoteKind(request.kind).name.lower()
    pol = f" pol {request.pol_round}" if request.pol_round >= 0 else ""
    return f"{kind} {request.round} {_BLOCK_NAMES[request.block_id]}{pol}"


def _entry(record: bytes) -> str:
    entry = decode_entry(record)
    return f"intent {_request(entry.request)}" if isinstance(entry, Intent) else _message(entry)


def _commit(commit: Commit) -> str:
    signers = "".join(NAMES[s.validator] for s in commit.signatures)
    return f"{_BLOCK_NAMES[commit.block_id]} of round {commit.round} by {signers}"


def _message(message: Message) -> str:
    if isinstance(message, Vote):
        kind = VoteKind(message.kind).name.lower()
        name = NAMES[message.validator]
        return f"{kind} {name} {message.round} {_BLOCK_NAMES[message.block_id]}"
    if isinstance(message, BlockProposal):
        head = message.proposal
        polka = "".join(NAMES[v.validator] for v in message.polka)
        pol = f" pol {head.pol_round} by {polka}" if head.pol_round >= 0 else ""
        return f"proposal {NAMES[head.validator]} {head.round} {_BLOCK_NAMES[head.block_id]}{pol}"
    if isinstance(message, Status):
        return f"status {message.height} {message.round} {Step(message.step).name.lower()}"
    if isinstance(message, Want):
        return f"want {message.round} {_BLOCK_NAMES[message.block_id]}"
    assert isinstance(message, Decided)
    return f"decided {_commit(message.commit)}"
