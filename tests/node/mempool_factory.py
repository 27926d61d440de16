"""Signed transactions and a stand-in for the state, for tests of the mempool."""

from __future__ import annotations

from mlchain import codec, crypto
from mlchain.errors import InvalidTransaction
from mlchain.ledger.transaction import Transaction, TransactionBody, sign_transaction
from mlchain.node.mempool import Limits, Mempool

ALICE, BOB, CAROL = (crypto.SecretKey(bytes([n]) * 32) for n in (1, 2, 3))
EVERYTHING = (1 << 30, 1 << 40, 1 << 20)
"""Bytes, gas and count that no test exceeds."""
ORDINARY, DUTY = 1, 2


def make(key=ALICE, nonce=0, price=10, gas=100, payload=b"", kind=ORDINARY) -> bytes:
    body = TransactionBody("test", key.public, nonce, gas, price, kind, payload)
    return codec.encode(sign_transaction(body, key))


def unsigned(key=ALICE, nonce=0, price=10) -> bytes:
    body = TransactionBody("test", key.public, nonce, 100, price, 1, b"")
    return codec.encode(Transaction(body, bytes(64)))


class Accounts:
    """The part of the state that a mempool asks about."""

    def __init__(self) -> None:
        self.nonces: dict[bytes, int] = {}
        self.balances: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.checked = 0

    def check(self, transaction: Transaction) -> None:
        self.checked += 1
        if transaction.body.sender in self.refused:
            raise InvalidTransaction("no balance")

    def nonce(self, account: bytes) -> int:
        return self.nonces.get(account, 0)

    def balance(self, account: bytes) -> int:
        return self.balances.get(account, 10**18)


def is_duty(transaction: Transaction) -> bool:
    return transaction.body.kind == DUTY


def new_pool(**limits) -> tuple[Mempool, Accounts]:
    accounts = Accounts()
    return make_pool(accounts, Limits(**limits)), accounts


def make_pool(accounts: Accounts, limits: Limits) -> Mempool:
    return Mempool(accounts.check, accounts.nonce, limits, is_duty, accounts.balance)
