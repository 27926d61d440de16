"""Genesis files: what is wrong and where, in words; and the identity of a chain."""

from __future__ import annotations

import json

import pytest
from ledger_factory import FOUR, STRANGER, genesis, validator_set
from msgspec.structs import replace

from mlchain import codec
from mlchain.errors import GenesisError
from mlchain.ledger.genesis import (
    MAX_CUSTODY_WINDOW,
    MAX_GENESIS_BYTES,
    MIN_BLOCK_GAS,
    Allocation,
    Genesis,
    check_genesis,
    dump_genesis,
    load_genesis,
    parse_genesis,
)
from mlchain.ledger.validators import MAX_VALIDATORS


def load(tmp_path, text: str | bytes) -> Genesis:
    path = tmp_path / "genesis.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_genesis(path)


def test_a_dumped_genesis_loads_to_the_same_chain(tmp_path):
    again = load(tmp_path, dump_genesis(genesis()))
    assert again == genesis() and again.hash == genesis().hash
    assert again.validators() == validator_set(FOUR)


def test_spacing_and_the_order_of_fields_do_not_change_the_chain(tmp_path):
    document = json.loads(dump_genesis(genesis()))
    turned = json.dumps(dict(reversed(document.items())))
    assert load(tmp_path, turned).hash == genesis().hash


def test_every_field_changes_the_chain():
    base = genesis()
    others = [
        replace(base, chain_id="dev-tesu"),
        replace(base, time_ms=base.time_ms + 1),
        replace(base, registry=bytes(32)),
        replace(base, params=replace(base.params, heartbeat_ms=1)),
        replace(base, members=base.members[:3]),
        replace(base, members=base.members[::-1]),
        replace(base, allocations=()),
    ]
    assert len(dict.fromkeys(each.hash for each in [base, *others])) == len(others) + 1


@pytest.mark.parametrize(
    ("name", "last"), [("max_block_gas", MIN_BLOCK_GAS), ("custody_window", MAX_CUSTODY_WINDOW)]
)
def test_parameters_under_which_members_cannot_do_their_duties_are_refused(name, last):
    base, beyond = genesis(), last + (1 if last == MAX_CUSTODY_WINDOW else -1)
    check_genesis(replace(base, params=replace(base.params, **{name: last})))
    with pytest.raises(GenesisError, match=f"{name} = {beyond}, at"):
        check_genesis(replace(base, params=replace(base.params, **{name: beyond})))


def test_published_keys_are_for_chains_that_say_so():
    assert genesis("dev-x").is_dev and not genesis("consortium").is_dev


def set_in(document, path, value):
    *steps, last = path
    for step in steps:
        document = document[step]
    if value is ...:
        del document[last]
    else:
        document[last] = value


WRONG = [  # where, what is put there (... removes it), what the message says
    (["chain_id"], ..., "genesis.chain_id: missing"),
    (["chain_id"], "", "genesis.chain_id: Expected `str`"),
    (["chain_id"], "x" * 65, "genesis.chain_id: Expected `str`"),
    (["chain_id"], "\ud800", "genesis.chain_id:"),
    (["chain"], "x", "genesis.chain: no such field"),
    (["time_ms"], "soon", "genesis.time_ms: Expected `int`"),
    (["time_ms"], 1.5, "genesis.time_ms: Expected `int`"),
    (["time_ms"], True, "genesis.time_ms: Expected `int`"),
    (["time_ms"], -1, "genesis.time_ms: Expected `int`"),
    (["time_ms"], 10**30, "genesis.time_ms:"),
    (["registry"], "xyz", "genesis.registry: expected hex digits"),
    (["registry"], 7, "genesis.registry: expected hex digits"),
    (["registry"], "00" * 31, "genesis.registry: Expected `bytes`"),
    (["params"], [], "genesis.params: expected an object"),
    (["params", "heartbeat_ms"], ..., "genesis.params.heartbeat_ms: missing"),
    (["params", "heartbeat_s"], 1, "genesis.params.heartbeat_s: no such field"),
    (["members"], {}, "genesis.members: expected a list"),
    (["members"], [], "genesis.members: Expected `array` of length >= 1"),
    (["members", 2], 5, "genesis.members[2]: expected an object"),
    (["members", 2, "key"], "00" * 33, "genesis.members[2].key: Expected `bytes`"),
    (["members", 2, "role"], "boss", "genesis.members[2].role: Expected `str`"),
    (["members", 2, "role"], "validator\n", "genesis.members[2].role: Expected `str`"),
    (["members", 2, "port"], 70_000, "genesis.members[2].port: Expected `int`"),
    (["members", 2, "port"], None, "genesis.members[2].port: Expected `int`"),
    (["allocations", 0, "amount"], "12", "genesis.allocations[0].amount: Expected `int`"),
    (["allocations", 0, "account"], "mlc1qqqq", "genesis.allocations[0].account: expected hex"),
]


@pytest.mark.parametrize("path, value, message", WRONG)
def test_a_wrong_field_is_named_with_its_place(tmp_path, path, value, message):
    document = json.loads(dump_genesis(genesis()))
    set_in(document, path, value)
    with pytest.raises(GenesisError) as caught:
        load(tmp_path, json.dumps(document))
    assert caught.value.message.startswith(f"{tmp_path}/genesis.json: {message}")


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 500_000, "not JSON"),
        (b"7", "genesis: expected an object"),
        (b"[]", "genesis: expected an object"),
        (b'{"chain_id": "a", "chain_id": "b"}', "chain_id: given twice"),
        (b" " * (MAX_GENESIS_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_genesis_is_one_clear_error(tmp_path, text, message):
    with pytest.raises(GenesisError, match=message) as caught:
        load(tmp_path, text)
    assert "genesis.json: " in caught.value.message


def test_a_missing_file_or_a_folder_is_one_clear_error(tmp_path):
    with pytest.raises(GenesisError, match="No such file") as caught:
        load_genesis(tmp_path / "none.json")
    assert "mlchain" in caught.value.hint
    with pytest.raises(GenesisError, match="directory"):
        load_genesis(tmp_path)


def members(**changes):
    first, *rest = genesis().members
    return (replace(first, **changes), *rest)


def many(count):
    first = genesis().members[0]
    return tuple(
        replace(first, name=f"v{n}", key=n.to_bytes(32, "big"), peer=(n + 1000).to_bytes(32, "big"))
        for n in range(count)
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"members": tuple(replace(m, role="worker") for m in genesis().members)}, "no validator"),
        ({"members": members(key=FOUR[1].public)}, "share one key"),
        ({"members": members(peer=genesis().members[1].peer)}, "share one peer"),
        ({"members": members(name="v1")}, "share one name"),
        ({"members": members(ticket_tip=b"t" * 32, beacon_tip=b"t" * 32)}, "two tips are equal"),
        ({"members": many(MAX_VALIDATORS + 1)}, "129 validators, at most 128"),
        ({"allocations": (Allocation(STRANGER.public, 1),) * 2}, "appears twice"),
        ({"allocations": (Allocation(STRANGER.public, 2**62),)}, "supply exceeds"),
        ({"members": members(bond=2**62)}, "supply exceeds"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes, message):
    check_genesis(genesis())
    bad = replace(genesis(), **changes)
    for call in (lambda: check_genesis(bad), lambda: parse_genesis(dump_genesis(bad).encode())):
        with pytest.raises(GenesisError, match=message):
            call()


def test_the_largest_genesis_fits_the_bound_of_a_record():
    full = replace(
        genesis(),
        members=many(MAX_VALIDATORS),
        allocations=tuple(Allocation(n.to_bytes(32, "big"), 1) for n in range(10_000)),
    )
    check_genesis(full)
    assert codec.decode(Genesis, codec.encode(full)) == full
