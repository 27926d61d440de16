"""The state transition: parent state + block -> state, receipts, next validators.

Reading order of a block: extensions of the last commit, evidence, transactions and the fees for
them, FINALISE, then what time does to jobs. A transaction that fails is undone and still pays; a
transaction that could not even pay makes the whole block invalid, for its proposer should have left
it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlchain import codec, crypto
from mlchain.errors import InvalidBlock, InvalidTransaction, MlchainError
from mlchain.ledger.block import (
    PROTOCOL_VERSION,
    Block,
    Body,
    Header,
    Receipt,
    SegmentRef,
    body_root,
    receipts_root,
)
from mlchain.ledger.commit import Commit, IsSigned, verify_commit
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.state import State
from mlchain.ledger.transaction import (
    Opened,
    Transaction,
    open_transaction,
    verify_transaction,
)
from mlchain.ledger.validators import ValidatorSet
from mlchain.vm import lifecycle
from mlchain.vm.context import BlockContext, Context, Payload
from mlchain.vm.drawing import advance_draws
from mlchain.vm.epochs import end_epoch
from mlchain.vm.evidence import punish
from mlchain.vm.families import decode_payload
from mlchain.vm.families.accounts import ACCOUNTS, Account, credit, get_account
from mlchain.vm.families.announcements import forget_announcements
from mlchain.vm.families.jobs import Segment
from mlchain.vm.families.members import (
    VALIDATORS,
    WORKERS,
    get_last_voters,
    get_validator_set,
    remember_voters,
)
from mlchain.vm.families.models import forget_unheld
from mlchain.vm.gas import MAX_TRANSACTION_GAS, intrinsic_gas
from mlchain.vm.params import get_params
from mlchain.vm.predicting import advance_predictions
from mlchain.vm.protocol import get_protocol
from mlchain.vm.settlement import advance_custody
from mlchain.vm.votes import process_last_commit

Open = Callable[[bytes], Opened]
"""Decodes a transaction, or gives what this node knows of exactly these bytes already.

Raises:
    CodecError: malformed.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What executing a block's body gave."""

    receipts: tuple[Receipt, ...]
    gas_used: int
    validators: ValidatorSet
    """Who votes on the next block."""
    senders: tuple[bytes, ...]
    """Of each transaction; their nonces have moved."""

    @property
    def receipts_root(self) -> bytes:
        """Root over the receipts, as it stands in the header."""
        return receipts_root(self.receipts)


class _Executed(NamedTuple):
    """What one transaction did, and what its sender owes the proposer for it."""

    receipt: Receipt
    sender: bytes
    fee: int


# ---- transactions ---------------------------------------------------------------------------


def check_transaction(state: State, genesis: Genesis, transaction: Transaction) -> Payload:
    """Return the payload of a transaction that may enter a block now, or when its nonce comes up.

    The signature is not looked at.

    Raises:
        CodecError, InvalidTransaction: says what its sender must change.
    """
    account = get_account(state, transaction.body.sender)
    return _check(state, genesis, transaction, len(codec.encode(transaction)), account)


def _check(
    state: State, genesis: Genesis, transaction: Transaction, size: int, account: Account
) -> Payload:
    body = transaction.body
    if body.chain_id != genesis.chain_id:
        raise InvalidTransaction(
            f"signed for chain {body.chain_id!r}, this is {genesis.chain_id!r}"
        )
    least = intrinsic_gas(size)
    if not least <= body.gas_limit <= MAX_TRANSACTION_GAS:
        raise InvalidTransaction(
            f"gas limit {body.gas_limit}, allowed are {least} to {MAX_TRANSACTION_GAS}"
        )
    if body.nonce < account.nonce:
        raise InvalidTransaction(
            f"nonce {body.nonce} was used, the next is {account.nonce}", "sign it again"
        )
    if account.balance < body.gas_limit * body.gas_price:
        raise InvalidTransaction(
            f"balance {account.balance} cannot pay {body.gas_limit} gas at {body.gas_price}"
        )
    payload = decode_payload(body.kind, body.payload)
    _check_role(state, payload, body.sender)
    return payload


def _check_role(state: State, payload: Payload, sender: bytes) -> None:
    if payload.ROLE == "validator":
        record = VALIDATORS.get(state, sender)
        is_member = record is not None and not record.left_height
    elif payload.ROLE == "worker":
        is_member = WORKERS.get(state, sender) is not None
    else:
        is_member = True
    if not is_member:
        raise InvalidTransaction(f"only a {payload.ROLE} may send {type(payload).__name__}")


def _execute_transaction(
    block: BlockContext, genesis: Genesis, data: bytes, open_: Open
) -> _Executed:
    """Run one transaction; whatever it raises about itself becomes its receipt.

    Raises:
        InvalidBlock: it should not be in a block at all. Nothing was changed.
    """
    state = block.state
    try:
        identity, transaction, is_verified = open_(data)
        account = get_account(state, transaction.body.sender)
        payload = _check(state, genesis, transaction, len(data), account)
        if not is_verified:
            verify_transaction(transaction)
    except MlchainError as error:
        raise InvalidBlock(f"transaction that may not be included: {error.message}") from error
    body = transaction.body
    if body.nonce != account.nonce:
        raise InvalidBlock(f"nonce {body.nonce} where {account.nonce} is next")
    most = body.gas_limit * body.gas_price
    ACCOUNTS.put(state, Account(account.balance - most, account.nonce + 1), body.sender)
    ctx = Context(block, body.sender, identity, body.gas_limit - intrinsic_gas(len(data)))
    mark = state.checkpoint()
    try:
        payload.execute(ctx)
        code, message, events = "ok", "", tuple(ctx.events)
    except MlchainError as error:
        state.rollback(mark)
        code, message, events = _code(error), error.ascii_message, ()
    used = body.gas_limit - ctx.gas_left
    fee = used * body.gas_price
    credit(state, body.sender, most - fee)
    return _Executed(Receipt(identity, code, used, message, events), body.sender, fee)


def _code(error: MlchainError) -> str:
    """Name an error in receipts: InvalidTransaction -> invalid-transaction."""
    name = type(error).__name__
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


# ---- blocks ---------------------------------------------------------------------------------


def execute_body(
    block: BlockContext, genesis: Genesis, body: Body, open_: Open = open_transaction
) -> Outcome:
    """Apply a body to `block.state`.

    Raises:
        InvalidBlock: a part of the body may not stand where it stands.
    """
    remember_voters(block)
    if body.last_commit is not None:
        process_last_commit(block, body.last_commit)
    seen: dict[bytes, None] = {}
    for evidence in body.evidence:
        punish(block, evidence, seen)
    executed = [_execute_transaction(block, genesis, data, open_) for data in body.transactions]
    return _complete(block, executed, body.finalise)


def _complete(
    block: BlockContext, executed: Sequence[_Executed], finalise: Iterable[SegmentRef]
) -> Outcome:
    """Do what follows the transactions.

    Raises:
        InvalidBlock: they used too much gas, or a segment cannot be HARD.
    """
    gas_used = sum(done.receipt.gas_used for done in executed)
    if gas_used > block.params.max_block_gas:
        raise InvalidBlock(f"uses {gas_used} gas, at most {block.params.max_block_gas} allowed")
    credit(block.state, block.proposer, sum(done.fee for done in executed))
    for ref in finalise:
        lifecycle.finalise(block, ref)
    advance_draws(block)
    lifecycle.advance(block)
    advance_custody(block)
    advance_predictions(block)
    forget_unheld(block)
    forget_announcements(block)
    end_epoch(block)
    return Outcome(
        tuple(done.receipt for done in executed),
        gas_used,
        get_validator_set(block.state),
        tuple(done.sender for done in executed),
    )


def check_block(
    parent: Header,
    parent_id: bytes,
    state: State,
    genesis: Genesis,
    block: Block,
    open_: Open = open_transaction,
    is_signed: IsSigned = crypto.is_signed,
) -> Outcome:
    """Execute `block` on `state` (the parent's) and return if its header tells the truth.

    `is_signed` judges the votes in its certificate of the parent.

    Raises:
        InvalidBlock: says which rule it breaks.
    """
    header, validators = block.header, get_validator_set(state)
    _check_place(header, parent, parent_id, genesis, get_protocol(state).version)
    context = _context(genesis, state, validators, header.height, header.time_ms, header.proposer)
    if header.body_root != body_root(block.body):
        raise InvalidBlock("body_root is not the one of the body")
    if header.proposer not in validators:
        raise InvalidBlock("proposer is not a validator")
    voters = get_last_voters(state)
    last = block.body.last_commit
    _check_last_commit(parent, parent_id, voters, genesis.chain_id, last, is_signed)
    outcome = execute_body(context, genesis, block.body, open_)
    expected = _header(parent, parent_id, genesis, context, block.body, outcome)
    for name in header.__struct_fields__:
        if getattr(header, name) != getattr(expected, name):
            raise InvalidBlock(f"{name} differs from what executing the block gives")
    return outcome


def _check_place(
    header: Header, parent: Header, parent_id: bytes, genesis: Genesis, version: int
) -> None:
    """Return if a header follows `parent`, under rules we know; before anything is executed."""
    if version > PROTOCOL_VERSION:
        raise InvalidBlock(
            f"protocol version {version}: this installation knows {PROTOCOL_VERSION}"
        )
    for name, expected in (
        ("protocol_version", version),
        ("chain_id", genesis.chain_id),
        ("height", parent.height + 1),
        ("parent", parent_id),
    ):
        if getattr(header, name) != expected:
            raise InvalidBlock(f"{name} is not the one that follows the parent")
    if header.time_ms <= parent.time_ms:
        raise InvalidBlock(f"time_ms {header.time_ms} does not follow {parent.time_ms}")


def build_block(
    parent: Header,
    parent_id: bytes,
    state: State,
    genesis: Genesis,
    body: Body,
    proposer: bytes,
    time_ms: int,
    open_: Open = open_transaction,
) -> tuple[Block, Outcome]:
    """Execute exactly `body` on `state` (the parent's) and return the block it makes.

    Raises:
        InvalidBlock: the body breaks a rule; choose another.
    """
    context = _context(
        genesis, state, get_validator_set(state), parent.height + 1, time_ms, proposer
    )
    outcome = execute_body(context, genesis, body, open_)
    return Block(_header(parent, parent_id, genesis, context, body, outcome), body), outcome


def propose_block(
    parent: Header,
    parent_id: bytes,
    state: State,
    genesis: Genesis,
    last_commit: Commit | None,
    evidence: tuple[bytes, ...],
    transactions: Iterable[bytes],
    proposer: bytes,
    time_ms: int,
    is_wanted: Callable[[SegmentRef, Segment], bool],
    open_: Open = open_transaction,
) -> tuple[Block, Outcome]:
    """Return the block an honest proposer makes of what waits, executed on `state` in one pass.

    What may not be included is left out. Every segment that can be HARD and `is_wanted` is
    finalised.
    """
    block = _context(genesis, state, get_validator_set(state), parent.height + 1, time_ms, proposer)
    remember_voters(block)
    if last_commit is not None:
        process_last_commit(block, last_commit)
    kept_evidence = _select_evidence(block, evidence)
    kept, executed = _select_transactions(block, genesis, transactions, open_)
    refs = lifecycle.find_final(block, is_wanted)
    outcome = _complete(block, executed, refs)
    body = Body(last_commit, kept_evidence, refs, kept)
    return Block(_header(parent, parent_id, genesis, block, body, outcome), body), outcome


def _select_transactions(
    block: BlockContext, genesis: Genesis, transactions: Iterable[bytes], open_: Open
) -> tuple[tuple[bytes, ...], list[_Executed]]:
    """Execute those that may be included and fit; return them, and what they did."""
    kept: list[bytes] = []
    executed: list[_Executed] = []
    gas_left = block.params.max_block_gas
    for data in transactions:
        mark = block.state.checkpoint()
        try:
            done = _execute_transaction(block, genesis, data, open_)
        except InvalidBlock:
            continue
        if done.receipt.gas_used > gas_left:
            block.state.rollback(mark)
            continue
        gas_left -= done.receipt.gas_used
        kept.append(data)
        executed.append(done)
    return tuple(kept), executed


def _select_evidence(block: BlockContext, evidence: tuple[bytes, ...]) -> tuple[bytes, ...]:
    seen: dict[bytes, None] = {}
    kept = []
    for item in evidence:
        try:
            punish(block, item, seen)
        except InvalidBlock:
            continue
        kept.append(item)
    return tuple(kept)


def _context(
    genesis: Genesis,
    state: State,
    validators: ValidatorSet,
    height: int,
    time_ms: int,
    proposer: bytes,
) -> BlockContext:
    return BlockContext(
        state, genesis.chain_id, get_params(state), height, time_ms, proposer, validators,
        get_protocol(state).version,
    )  # fmt: skip


def _header(
    parent: Header,
    parent_id: bytes,
    genesis: Genesis,
    context: BlockContext,
    body: Body,
    outcome: Outcome,
) -> Header:
    return Header(
        protocol_version=context.version,
        chain_id=genesis.chain_id,
        height=parent.height + 1,
        time_ms=context.time_ms,
        parent=parent_id,
        proposer=context.proposer,
        validators_hash=parent.next_validators_hash,
        next_validators_hash=outcome.validators.hash,
        body_root=body_root(body),
        state_root=context.state.root(),
        receipts_root=outcome.receipts_root,
        gas_used=outcome.gas_used,
    )


def _check_last_commit(
    parent: Header,
    parent_id: bytes,
    voters: ValidatorSet,
    chain_id: str,
    commit: Commit | None,
    is_signed: IsSigned,
) -> None:
    if parent.height == 0:
        if commit is not None:
            raise InvalidBlock("genesis has no commit")
    elif commit is None:
        raise InvalidBlock("the parent's commit is missing")
    else:
        verify_commit(commit, chain_id, voters, parent.height, parent_id, is_signed)
