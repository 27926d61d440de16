"""How several organisations begin a chain: join files, one genesis made of them, signatures.

Each organisation makes its keys where they stay, and a *join file* that says who it is, signed by
its key and by the key of its connections. Everybody makes the genesis file from the same join
files, and gets the same one: nothing in it depends on who makes it, where or when. Its hash is read
aloud, and each organisation signs the hash it heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta
from msgspec.structs import replace

from mlchain import codec, crypto
from mlchain.client.userfile import read_file, write_file
from mlchain.codec import Hash, Name, PublicKey, Record, Signature, Uint
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.crypto import SecretKey
from mlchain.errors import (
    CodecError,
    ConfigError,
    GenesisError,
    InvalidSignature,
    VerificationFailed,
)
from mlchain.ledger.genesis import (
    Allocation,
    Genesis,
    Member,
    Params,
    dump_genesis,
    parse_genesis,
)
from mlchain.ledger.jsonfile import dump_record, parse_record

MAX_FILE_BYTES = 16 << 10
MAX_JOINS = 1_000
JOIN_SUFFIX = ".join.json"
SIGNATURE_SUFFIX = ".signature.json"
MIN_HASH_DIGITS = 32
"""Of the hash that was heard: fewer could be met by somebody who makes two files for it."""

TICKET_HEIGHTS = 1 << 20
BOND = 1_000_000_000
BALANCE = 1_000_000_000_000
MEMBER_BALANCE = 10_000_000_000

PARAMS = Params(
    propose_timeout_ms=3_000,
    vote_timeout_ms=1_000,
    timeout_step_ms=500,
    block_interval_ms=200,
    heartbeat_ms=10_000,
    max_block_gas=2_000_000_000,
    attest_window=1_500,
    segment_timeout_ms=600_000,
    dispute_window=750,
    slash_worker=500_000_000,
    slash_validator=500_000_000,
    slash_unavailable=50_000_000,
    fee_admission=50_000_000,
    ticket_heights=TICKET_HEIGHTS,
    epoch_blocks=1_000,
    max_verify_gas=120_000_000_000,
    unbonding_blocks=50_000,
    audit_permille=50,
    custody_window=5_000,
    slash_lazy=500_000_000,
)
"""For machines of several organisations on one continent; `genesis build --set` changes them."""

R = TypeVar("R", bound=Record)


class Join(Record, frozen=True):
    """One member before there is a chain. `member.bond` is 0: all will bring the same.

    `account` gets the organisation's first balance; its key can stay off the network.
    """

    schema: Annotated[str, Meta(pattern=r"^mlchain\.join/1\Z")]
    chain_id: Name
    ticket_heights: Uint
    registry: Hash
    time_ms: Uint
    member: Member
    account: PublicKey


class SignedJoin(Record, frozen=True):
    """`join` as the holder of both its keys wants it."""

    join: Join
    signature: Signature
    peer_signature: Signature


class GenesisSignature(Record, frozen=True):
    """A member signs that the chain with this genesis hash is the one it begins."""

    schema: Annotated[str, Meta(pattern=r"^mlchain\.genesis-signature/1\Z")]
    genesis: Hash
    key: PublicKey
    signature: Signature


def make_join(
    chain_id: str,
    ticket_heights: int,
    registry: bytes,
    time_ms: int,
    name: str,
    role: str,
    key: SecretKey,
    peer: SecretKey,
    account: bytes,
    host: str,
    port: int,
) -> SignedJoin:
    """Return the signed join file of a member; a validator computes its hash chains for it."""
    tips = [bytes(32)] * len(PURPOSES)
    if role == "validator":
        tips = [make_chain(key, purpose, chain_id, ticket_heights).tip for purpose in PURPOSES]
    member = Member(name, role, key.public, peer.public, host, port, 0, *tips)
    join = Join("mlchain.join/1", chain_id, ticket_heights, registry, time_ms, member, account)
    message = _join_bytes(join)
    return SignedJoin(join, key.sign(message), peer.sign(message))


def check_terms(chain_id: str, ticket_heights: int, name: str, host: str, port: int) -> None:
    """Return if a join file can say this: others could not read one that does not fit its bounds.

    Raises:
        ConfigError: says which field does not.
    """
    none = bytes(32)
    member = Member(name, "observer", none, none, host, port, 0, none, none, none)
    join = Join("mlchain.join/1", chain_id, ticket_heights, none, 0, member, none)
    try:
        parse_record(Join, dump_record(join).encode(), "a join file")
    except (GenesisError, CodecError) as error:
        raise ConfigError(error.message, "others could not read it") from error


def verify_join(signed: SignedJoin) -> None:
    """Return if both keys of a join file signed it.

    Raises:
        InvalidSignature: one did not, or the file was changed since.
    """
    member, message = signed.join.member, _join_bytes(signed.join)
    for key, signature in (
        (member.key, signed.signature),
        (member.peer, signed.peer_signature),
    ):
        if not crypto.is_signed(key, message, signature):
            raise InvalidSignature(
                f"{member.name}: not as key {key.hex()[:16]} signed it",
                "the file was changed on its way; ask the organisation for it again",
            )


def build_genesis(
    joins: Sequence[SignedJoin],
    changed: Mapping[str, int] = {},
    bond: int = BOND,
    balance: int = BALANCE,
) -> Genesis:
    """Return the genesis that follows from a set of join files, in whatever order they come.

    `changed` are parameters with other values than `PARAMS`. Block 0 has the time of the latest
    join file.

    Raises:
        InvalidSignature: a join file is not as its organisation made it.
        GenesisError: they do not fit together, or a parameter is none.
    """
    if not joins:
        raise GenesisError("no join files", "mlchain init makes one")
    for signed in joins:
        verify_join(signed)
    ordered = sorted((signed.join for signed in joins), key=lambda join: join.member.name)
    first = ordered[0]
    for what in ("chain_id", "registry", "ticket_heights"):
        for join in ordered:
            if (theirs := getattr(join, what)) != (ours := getattr(first, what)):
                raise GenesisError(
                    f"{join.member.name} and {first.member.name} differ in {what}: "
                    f"{_text(theirs)} and {_text(ours)}",
                    "they need one version of mlchain, and one mlchain init for one chain",
                )
    allocations: dict[bytes, int] = {}
    for join in ordered:
        for key, amount in ((join.member.key, MEMBER_BALANCE), (join.account, balance)):
            allocations[key] = allocations.get(key, 0) + amount
    genesis = Genesis(
        first.chain_id,
        max(join.time_ms for join in ordered),
        first.registry,
        _params(changed, first.ticket_heights),
        tuple(replace(join.member, bond=bond) for join in ordered),
        tuple(Allocation(key, amount) for key, amount in allocations.items()),
    )
    return parse_genesis(dump_genesis(genesis).encode())  # checked as others will, by field


def sign_genesis(genesis: Genesis, key: SecretKey, heard: str) -> GenesisSignature:
    """Return a member's signature of the genesis whose hash it `heard` from the others.

    Blanks in `heard` do not matter; the first `MIN_HASH_DIGITS` of the 64 hex digits suffice.

    Raises:
        ConfigError: too few digits.
        VerificationFailed: another hash, or the key is no member's.
    """
    digits = "".join(heard.split()).lower()
    if not MIN_HASH_DIGITS <= len(digits) <= 64:
        raise ConfigError(f"{len(digits)} digits of a hash, at least {MIN_HASH_DIGITS} are needed")
    if not genesis.hash.hex().startswith(digits):
        raise VerificationFailed(
            f"this genesis has hash {genesis.hash.hex()}, others read {digits}",
            "one of you lacks a join file, or has another: compare the members",
        )
    if key.public not in [member.key for member in genesis.members]:
        raise VerificationFailed(
            f"key {key.public.hex()[:16]} is no member's in this genesis",
            "your join file was not among those it was made of: mlchain genesis build",
        )
    return GenesisSignature(
        "mlchain.genesis-signature/1", genesis.hash, key.public, key.sign(_signed_bytes(genesis))
    )


def verify_signatures(genesis: Genesis, signatures: Iterable[GenesisSignature]) -> list[str]:
    """Return the names of the members that signed a genesis, in its order.

    Raises:
        InvalidSignature: one is of another genesis, of a stranger, or wrong.
    """
    names = {member.key: member.name for member in genesis.members}
    signed = set()
    for one in signatures:
        name = names.get(one.key, f"key {one.key.hex()[:16]}")
        if one.genesis != genesis.hash:
            raise InvalidSignature(
                f"{name} signed genesis {one.genesis.hex()[:16]}, "
                f"this is {genesis.hash.hex()[:16]}",
                "read the hash aloud again",
            )
        if one.key not in names:
            raise InvalidSignature(f"signed by {name}, who is no member", "remove the file")
        if not crypto.is_signed(one.key, _signed_bytes(genesis), one.signature):
            raise InvalidSignature(f"the signature of {name} is wrong", "ask for it again")
        signed.add(one.key)
    return [member.name for member in genesis.members if member.key in signed]


def find_signatures(folder: Path) -> list[GenesisSignature]:
    """Return the signatures in the files `*.signature.json` of a folder, by file name.

    Raises:
        ConfigError: one is unreadable or malformed; or there are too many.
    """
    paths = sorted(folder.glob("*" + SIGNATURE_SUFFIX))
    if len(paths) > MAX_JOINS:
        raise ConfigError(f"{folder}: {len(paths)} signatures, at most {MAX_JOINS}")
    return [read_record(GenesisSignature, path) for path in paths]


def read_record(kind: type[R], path: Path) -> R:
    """Read a file of the ceremony; its signatures are not checked here.

    Raises:
        ConfigError: unreadable or malformed; says where.
        CodecError: too large.
    """
    data = read_file(path, MAX_FILE_BYTES)
    try:
        return parse_record(kind, data, "file")
    except (GenesisError, CodecError) as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error


def write_record(path: Path, record: Record) -> None:
    """Write a file of the ceremony.

    Raises:
        ConfigError: it cannot be written.
    """
    write_file(path, dump_record(record))


def _join_bytes(join: Join) -> bytes:
    return crypto.digest("mlchain/join", codec.encode(join))


def _signed_bytes(genesis: Genesis) -> bytes:
    return crypto.digest("mlchain/genesis-signature", genesis.hash)


def _params(changed: Mapping[str, int], ticket_heights: int) -> Params:
    for name in changed:
        if name not in Params.__struct_fields__ or name == "ticket_heights":
            raise GenesisError(f"{name}: no parameter to set", "see docs/protocol.md")
    return replace(PARAMS, ticket_heights=ticket_heights, **changed)


def _text(value: object) -> str:
    return value.hex()[:16] if isinstance(value, bytes) else str(value)
