"""Balances, transfers, and what was burned."""

from __future__ import annotations

from typing import ClassVar

from mlchain.codec import PublicKey, Record, Uint
from mlchain.errors import InvalidTransaction
from mlchain.ledger.state import State, Table
from mlchain.vm.context import Context, Payload

TRANSFER_GAS = 500


class Account(Record, frozen=True):
    """`balance` in micro-credits; `nonce` counts the transactions included so far."""

    balance: Uint
    nonce: Uint


class Burned(Record, frozen=True):
    """Micro-credits destroyed since genesis."""

    amount: Uint


ACCOUNTS = Table(b"account/", Account, bytes)
BURNED = Table(b"burned/", Burned)


def get_account(state: State, key: bytes) -> Account:
    """Return the account of `key`, empty if it never held anything."""
    return ACCOUNTS.get(state, key) or Account(0, 0)


def credit(state: State, key: bytes, amount: int) -> None:
    """Add `amount` to a balance."""
    if amount:
        account = get_account(state, key)
        ACCOUNTS.put(state, Account(account.balance + amount, account.nonce), key)


def debit(state: State, key: bytes, amount: int) -> None:
    """Take `amount` from a balance.

    Raises:
        InvalidTransaction: the balance is smaller.
    """
    account = get_account(state, key)
    if account.balance < amount:
        raise InvalidTransaction(
            f"balance {account.balance}, needed {amount}", "ask a funded account for a transfer"
        )
    ACCOUNTS.put(state, Account(account.balance - amount, account.nonce), key)


def burn(state: State, amount: int) -> None:
    """Record that `amount` left circulation."""
    if amount:
        BURNED.put(state, Burned(get_burned(state) + amount))


def get_burned(state: State) -> int:
    """Return everything burned since genesis."""
    record = BURNED.get(state)
    return record.amount if record else 0


class Transfer(Payload, frozen=True):
    """Move micro-credits from the sender to another account."""

    KIND: ClassVar[int] = 1
    to: PublicKey
    amount: Uint

    def execute(self, ctx: Context) -> None:
        """Debit the sender, credit `to`."""
        ctx.charge(TRANSFER_GAS)
        if self.amount == 0:
            raise InvalidTransaction("amount is 0", "transfer at least 1 micro-credit")
        debit(ctx.state, ctx.sender, self.amount)
        credit(ctx.state, self.to, self.amount)
