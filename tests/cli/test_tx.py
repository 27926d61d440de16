"""A transfer made on one machine, signed on another without a network, sent from a third."""

from __future__ import annotations

import pytest
from fake_node import STATUS, transaction

from mlchain import codec
from mlchain.cli.output import Output
from mlchain.client.keystore import MIN_COST, create_key
from mlchain.crypto import SecretKey, address
from mlchain.ledger.transaction import (
    Transaction,
    TransactionBody,
    sign_transaction,
    verify_transaction,
)
from mlchain.vm.context import Payload
from mlchain.vm.families.accounts import Transfer
from mlchain.vm.families.changes import RemoveMember
from mlchain.vm.families.custody import ClaimDigest
from mlchain.vm.families.governance import Propose

COLD, OTHER = SecretKey(b"c" * 32), SecretKey(b"o" * 32)
TO = address(OTHER.public)


@pytest.fixture
def made(home):
    """The file to sign, the cold key and another one, and their password."""
    payload = codec.encode(Transfer(OTHER.public, 5_000_000))
    body = TransactionBody(STATUS["chain_id"], COLD.public, 7, 10_000, 1, Transfer.KIND, payload)
    (home / "pay.tx").write_text(codec.encode(body).hex() + "\n")
    for name, key in (("cold", COLD), ("other", OTHER)):
        create_key(home / f"{name}.json", key, "secret", cost=MIN_COST)
    (home / "password").write_text("secret\n")
    return body


def sign(run, key, file="pay.tx"):
    how = ("--key", key, "--password-file", "password", "--out", "pay.signed")
    return run("tx", "sign", file, *how)


def test_a_transfer_is_written_for_signing(run, home, node):
    account = address(COLD.public)
    answer = {"address": account, "key": COLD.public.hex(), "nonce": 7, "balance": 1}
    node.routes[f"GET /v1/accounts/{COLD.public.hex()}"] = answer
    how = ("--from", account, "--url", node.url, "--out", "mine.tx")
    result = run("tx", "transfer", TO, "5000000", *how)
    assert result.exit_code == 0, result.stderr
    body = codec.decode(TransactionBody, bytes.fromhex((home / "mine.tx").read_text()))
    assert (body.sender, body.nonce) == (COLD.public, 7)
    assert codec.decode(Transfer, body.payload) == Transfer(OTHER.public, 5_000_000)


def test_the_cold_key_signs_without_a_network_and_says_what(run, home, made):
    result = sign(run, "cold.json")
    assert result.exit_code == 0, result.stderr
    assert f"transfer 5,000,000 micro-credits to {TO}" in result.stdout
    signed = codec.decode(Transaction, bytes.fromhex((home / "pay.signed").read_text()))
    verify_transaction(signed)
    assert signed == sign_transaction(made, COLD)


def test_what_is_signed_is_said_before_the_key_is_opened(run, home, made, monkeypatch):
    """The money goes where the file says: who holds the key has to see it before, not after."""
    from mlchain.cli import signing

    told, opened = [], []
    monkeypatch.setattr(Output, "note", lambda self, line: told.append(line))
    open_key = signing.open_key
    monkeypatch.setattr(
        signing, "open_key", lambda *how: (opened.append("\n".join(told)), open_key(*how))[1]
    )
    assert sign(run, "cold.json").exit_code == 0
    assert f"transfer 5,000,000 micro-credits to {TO}" in opened[0]
    assert f"on {STATUS['chain_id']}" in opened[0] and "fee at most 10,000" in opened[0]


@pytest.mark.parametrize(("answer", "is_signed"), [("n", False), ("", False), ("y", True)])
def test_a_person_is_asked_before_anything_is_signed(
    run, home, made, monkeypatch, answer, is_signed
):
    from mlchain.cli import signing

    monkeypatch.setattr(signing, "has_person", lambda: True)
    how = ("--key", "cold.json", "--password-file", "password", "--out", "pay.signed")
    result = run("tx", "sign", "pay.tx", *how, input=answer + "\n")
    before, _, after = result.output.partition("sign this?")
    assert f"micro-credits to {TO}" in before and after
    assert (home / "pay.signed").exists() == is_signed == (result.exit_code == 0)


def test_of_other_kinds_every_field_is_said(run, home, made):
    """The name of a kind alone would have a member sign away its key without seeing to whom."""

    def say(payload: Payload) -> str:
        data = codec.encode(payload)
        body = TransactionBody(STATUS["chain_id"], COLD.public, 7, 10_000, 1, payload.KIND, data)
        (home / "pay.tx").write_text(codec.encode(body).hex() + "\n")
        result = sign(run, "cold.json")
        assert result.exit_code == 0, result.stderr
        return result.stderr

    said = say(Propose(RemoveMember(OTHER.public)))
    assert f'change RemoveMember {{"key": "{OTHER.public.hex()}"}}' in said
    said = say(ClaimDigest(bytes(32), 5, OTHER.public, 17, None, bytes(32), 9))
    assert f'validator "{OTHER.public.hex()}"' in said and "chunk 17" in said


def test_another_key_does_not_sign_it(run, home, made):
    assert sign(run, "other.json").exit_code == 7
    assert not (home / "pay.signed").exists()


@pytest.mark.parametrize("text", ["", "zz", "00", "ff" * 300_000])
def test_a_file_that_is_no_transaction_is_refused(run, home, made, text):
    (home / "pay.tx").write_text(text)
    result = sign(run, "cold.json")
    assert result.exit_code == 2 and "no transaction to sign" in result.stderr


def test_a_signed_transaction_is_sent_and_waited_for(run, run_json, node, made):
    assert sign(run, "cold.json").exit_code == 0
    identity = "ab" * 32
    node.routes["POST /v1/txs"] = {"id": identity}
    node.routes[f"GET /v1/txs/{identity}"] = [
        transaction(id=identity, state="pending", height=None, code=None), transaction(id=identity)
    ]  # fmt: skip
    assert "in block #13" in run("tx", "send", "pay.signed", "--url", node.url).stdout
    code, document = run_json("tx", "send", "pay.signed", "--url", node.url)
    assert (code, document["data"]["height"]) == (0, 13)


def test_a_transaction_that_nobody_signed_is_not_sent(run, home, made):
    assert run("tx", "send", "pay.tx").exit_code == 2
    forged = Transaction(made, bytes(64))
    (home / "pay.signed").write_text(codec.encode(forged).hex())
    assert run("tx", "send", "pay.signed").exit_code == 7
