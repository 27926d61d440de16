"""Genesis: the members, parameters and first balances of a chain, as block 0.

A genesis *file* is JSON for people (hex keys, named fields). The chain's identity is the hash of
the record it decodes to, so spacing and key order in the file do not matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from mlchain import codec, crypto
from mlchain.codec import Hash, Name, PublicKey, Record, Uint
from mlchain.errors import GenesisError
from mlchain.ledger.jsonfile import dump_record, parse_record
from mlchain.ledger.validators import MAX_VALIDATORS, Validator, ValidatorSet

MAX_GENESIS_BYTES = 1 << 20
DEV_PREFIX = "dev-"
"""Chains whose id starts so use published test keys and must stay on loopback."""


CLAIM_GAS = 180_000_000
"""What a claim may use: 2^18 elements of a hash chain, and a slice that is drawn again."""
MIN_BLOCK_GAS = 2 * CLAIM_GAS
"""Duties get half of a block: in a smaller one no claim would ever be included."""
MAX_CUSTODY_WINDOW = 100_000
"""Whoever shows a digest at the end of it must be able to pay for the elements since."""

Role = Annotated[str, Meta(pattern=r"^(validator|worker|observer)\Z")]
Port = Annotated[int, Meta(ge=0, le=65535)]


class Params(Record, frozen=True):
    """Parameters of agreement and useful work. Times are milliseconds, amounts micro-credits."""

    propose_timeout_ms: Uint
    vote_timeout_ms: Uint
    timeout_step_ms: Uint
    """Added to each timeout per round."""
    block_interval_ms: Uint
    """Shortest time from the beginning of a block to the next one's while there is demand."""
    heartbeat_ms: Uint
    """Longest pause without demand."""
    max_block_gas: Uint
    attest_window: Uint
    """Blocks after a segment's commit in which attestations count."""
    segment_timeout_ms: Uint
    """Chain time a worker has from assignment to commit."""
    dispute_window: Uint
    """Blocks in which a claim is settled."""
    slash_worker: Uint
    slash_validator: Uint
    slash_unavailable: Uint
    fee_admission: Uint
    """What a worker pays that admits a wrong chunk of its own; cheap once in `epoch_blocks`."""
    ticket_heights: Uint
    """Length of every registered hash chain."""
    epoch_blocks: Annotated[int, Meta(ge=1, le=2**40)]
    """Blocks of an epoch, for ever: block h belongs to epoch h // epoch_blocks."""
    max_verify_gas: Uint
    """Most gas of slices that a validator may owe: commits that ask for more wait."""
    unbonding_blocks: Uint
    """Blocks for which a member that has left can still be punished; then its bond is returned."""
    audit_permille: Annotated[int, Meta(ge=0, le=1000)]
    """Attested chunks in a thousand that other validators re-run, all of them together."""
    custody_window: Uint
    """Blocks, from the height at which a custody key is due, in which its digests can be claimed
    wrong; and in which one that nobody could get is to be shown."""
    slash_lazy: Uint


class Member(Record, frozen=True):
    """A known participant.

    `key` votes, signs and owns the bond; `peer` is the Ed25519 key of its network identity;
    `host`, `port` say where it listens. Validators register the tips of their three hash chains
    (sampling tickets, beacon, custody keys); others leave 32 zero bytes.
    """

    name: Name
    role: Role
    key: PublicKey
    peer: PublicKey
    host: Name
    port: Port
    bond: Uint
    ticket_tip: Hash
    beacon_tip: Hash
    custody_tip: Hash


class Allocation(Record, frozen=True):
    """A first balance, in micro-credits."""

    account: PublicKey
    amount: Uint


class Genesis(Record, frozen=True):
    """Everything two nodes must share before block 1.

    `registry` is the digest of the tables of transaction kinds, ops and models: a node whose
    tables differ refuses to start.
    """

    chain_id: Name
    time_ms: Uint
    registry: Hash
    params: Params
    members: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=4 * MAX_VALIDATORS)]
    allocations: Annotated[tuple[Allocation, ...], Meta(max_length=10_000)]

    @property
    def is_dev(self) -> bool:
        """Whether the keys of this chain are public."""
        return self.chain_id.startswith(DEV_PREFIX)

    @property
    def hash(self) -> bytes:
        """Identity of the chain."""
        return crypto.digest("mlchain/genesis", codec.encode(self))

    def validators(self) -> ValidatorSet:
        """Return the validators of block 1; every member weighs the same."""
        return ValidatorSet(
            tuple(Validator(m.key, 1) for m in self.members if m.role == "validator")
        )


def check_genesis(genesis: Genesis) -> None:
    """Return if the parts of `genesis` fit together.

    Raises:
        GenesisError: says which field does not.
    """
    validators = sum(m.role == "validator" for m in genesis.members)
    if validators == 0:
        raise GenesisError("members: no validator", "give at least one member the role validator")
    if validators > MAX_VALIDATORS:
        raise GenesisError(f"members: {validators} validators, at most {MAX_VALIDATORS}")
    for field in ("key", "name"):
        values = [getattr(m, field) for m in genesis.members]
        if len(set(values)) != len(values):
            raise GenesisError(f"members: two share one {field}", "each member needs its own")
    tips = [t for m in genesis.members for t in (m.ticket_tip, m.beacon_tip, m.custody_tip)]
    tips = [tip for tip in tips if any(tip)]
    if len(set(tips)) != len(tips):
        raise GenesisError("members: two tips are equal", "each hash chain serves once")
    places = {(m.peer, m.host, m.port) for m in genesis.members}
    if len({peer for peer, _, _ in places}) != len(places):
        raise GenesisError(
            "members: two share one peer at different addresses",
            "members may share a peer key only as identities of one process",
        )
    check_duties(genesis.params)
    accounts = [a.account for a in genesis.allocations]
    if len(set(accounts)) != len(accounts):
        raise GenesisError("allocations: an account appears twice", "merge its amounts")
    if sum(m.bond for m in genesis.members) + sum(a.amount for a in genesis.allocations) >= 2**62:
        raise GenesisError("allocations: the supply exceeds 2^62 micro-credits")


def check_duties(params: Params) -> None:
    """Return if members can do under `params` what the protocol asks of them.

    Raises:
        GenesisError: says which parameter is in the way.
    """
    if params.max_block_gas < MIN_BLOCK_GAS:
        raise GenesisError(
            f"params: max_block_gas = {params.max_block_gas}, at least {MIN_BLOCK_GAS} is needed",
            "a claim has to fit half a block",
        )
    if params.custody_window > MAX_CUSTODY_WINDOW:
        raise GenesisError(
            f"params: custody_window = {params.custody_window}, at most {MAX_CUSTODY_WINDOW}",
            "digests must be shown by who can pay for the elements since",
        )


def load_genesis(path: Path) -> Genesis:
    """Read a genesis file.

    Raises:
        GenesisError: missing, malformed or inconsistent; says which file and where in it.
    """
    try:
        if path.stat().st_size > MAX_GENESIS_BYTES:
            raise GenesisError(f"{path}: larger than {MAX_GENESIS_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise GenesisError(f"{path}: {error.strerror}", "mlchain testnet up makes one") from error
    try:
        return parse_genesis(data)
    except GenesisError as error:
        raise GenesisError(f"{path}: {error.message}", error.hint) from error


def parse_genesis(data: bytes) -> Genesis:
    """Return the genesis a file's JSON describes.

    Raises:
        GenesisError: malformed or inconsistent; says where.
    """
    genesis = parse_record(Genesis, data, "genesis")
    check_genesis(genesis)
    return genesis


def dump_genesis(genesis: Genesis) -> str:
    """Return the JSON text of a genesis file."""
    return dump_record(genesis)
