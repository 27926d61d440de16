"""Row 25: malformed or huge bytes. The controls are a decoder that takes what it understands, and
one that believes the length it is told."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from vm.world import World

from mlchain import codec
from mlchain.errors import CodecError, InvalidBlock
from mlchain.ledger.transaction import Transaction, decode_transaction, transaction_id
from mlchain.vm.families.accounts import Transfer

ARRAY_2, ARRAY_2_LONG = b"\x92", b"\xdc\x00\x02"
HUGE = b"\xdd\xff\xff\xff\xff"
"""Five bytes that announce an array of 2^32 - 1 items."""


@pytest.fixture
def world() -> World:
    return World()


def transfer(world: World) -> bytes:
    payment = Transfer(world.key("worker-0").public, 5)
    return world.transaction("alice", payment)


def reencoded(data: bytes) -> bytes:
    """The same signed transaction in other bytes: its outer array with a longer header."""
    assert data.startswith(ARRAY_2)
    return ARRAY_2_LONG + data[1:]


def believing(data: bytes) -> list[None]:
    """A decoder that makes room for what is announced, as far as our memory lets it."""
    announced = int.from_bytes(data[1:5], "big")
    return [None] * min(announced, 1 << 22)


def test_a_transaction_in_other_bytes_is_refused(world):
    with pytest.raises(CodecError, match="canonical"):
        decode_transaction(reencoded(transfer(world)))


def test_no_block_may_hold_it(world):
    with pytest.raises(InvalidBlock, match="canonical"):
        world.compose(reencoded(transfer(world)))


def test_control_a_lenient_decoder_knows_one_transaction_under_two_ids(world):
    """Whoever waits for the id it was told would never see it, and pay again."""
    data = transfer(world)
    other = reencoded(data)
    assert msgspec.msgpack.decode(other, type=Transaction) == decode_transaction(data)
    assert transaction_id(other) != transaction_id(data)


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_what_is_cut_off_or_goes_on_is_refused(world, cut):
    data = transfer(world)
    for broken in (data[:cut], data + b"\xc0"):
        with pytest.raises(CodecError):
            decode_transaction(broken)


def peak_of(act) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(data: bytes) -> None:
    with pytest.raises(CodecError):
        codec.decode(Transaction, data)


def test_nothing_is_allocated_for_an_announced_length():
    assert peak_of(lambda: refuse(HUGE)) < 1 << 20


def test_control_who_believes_the_length_runs_out_of_memory():
    assert peak_of(lambda: believing(HUGE)) > 1 << 24, "and that is a thousandth of what it asked"


def test_what_is_too_large_is_refused_unread():
    data = bytes(codec.MAX_RECORD_BYTES + 1)
    assert peak_of(lambda: refuse(data)) < 1 << 20
