"""Accounts of peers against an invented clock."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from p2p_factory import key

from mlchain.errors import ConfigError
from mlchain.p2p import peers
from mlchain.p2p.peers import PeerBook, TokenBucket
from mlchain.p2p.transport import PeerAddress


def book_of_one() -> PeerBook:
    return PeerBook(key(1), {key(1): PeerAddress("h", 1), key(2): PeerAddress("h", 2, "worker")})


@given(
    rate=st.integers(1, 10_000),
    burst=st.integers(0, 10_000),
    steps=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 5000)), max_size=40),
)
def test_a_sender_who_waits_as_told_never_exceeds_burst_and_rate(rate, burst, steps):
    bucket = TokenBucket(rate, burst)
    bucket.charge(0, 0)
    now_ms = taken = 0
    for pause_ms, amount in steps:
        now_ms += pause_ms
        taken += amount
        now_ms += bucket.charge(amount, now_ms)
        assert taken * 1000 <= burst * 1000 + now_ms * rate


def test_a_bucket_refuses_when_empty_and_fills_with_time():
    bucket = TokenBucket(rate=10, burst=2)
    assert [bucket.take(1, 0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(1, 99)
    assert bucket.take(1, 100)


def test_a_clock_that_steps_back_gives_nothing():
    bucket = TokenBucket(rate=1000, burst=1)
    assert bucket.take(1, 1000)
    assert not bucket.take(1, 0)
    assert not bucket.take(1, 0)


def test_a_peer_that_breaks_too_many_rules_is_a_stranger_for_a_while():
    book = book_of_one()
    peer = book.get(key(2))
    banned = [peer.violate(0) for _ in range(peers.MAX_VIOLATIONS + 1)]
    assert banned == [False] * peers.MAX_VIOLATIONS + [True]
    assert not book.admits(key(2), peers.BAN_MS - 1)
    assert book.admits(key(2), peers.BAN_MS)


def test_rare_violations_are_forgiven():
    peer = book_of_one().get(key(2))
    assert not any(peer.violate(second * 1000) for second in range(200))
    assert peer.violations == 200


def test_streams_are_limited_in_number_and_in_rate(monkeypatch):
    monkeypatch.setattr(peers, "MAX_STREAMS", 3)
    peer = book_of_one().get(key(2))
    assert [peer.open_stream(0) for _ in range(4)] == [True, True, True, False]
    peer.streams = 0
    opened = 0
    for _ in range(peers.STREAMS_PER_S * 2):
        opened += peer.open_stream(0)
        peer.streams = 0
    assert opened == peers.STREAMS_PER_S - 3


def test_strangers_and_removed_peers_are_not_admitted():
    book = book_of_one()
    assert book.admits(key(2), 0)
    assert not book.admits(key(3), 0)
    assert not book.admits(None, 0), "a name that is no Ed25519 key"
    book.remove(key(2))
    assert not book.admits(key(2), 0)
    assert book.refused == 3


def test_we_are_not_our_own_peer():
    assert [p.key for p in book_of_one().all()] == [key(2)]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (b"short", PeerAddress("h", 1)),
        (key(3), PeerAddress("h", 70_000)),
        (key(3), PeerAddress("h", 1, "emperor")),
    ],
)
def test_a_nonsensical_peer_is_the_operators_error(peer, address):
    with pytest.raises(ConfigError):
        book_of_one().add(peer, address)


def test_the_interface_is_imported_without_the_library():
    code = (
        "import sys, mlchain.p2p.transport, mlchain.p2p.memory, mlchain.p2p.peers\n"
        "assert 'libp2p' not in sys.modules\n"
        "import mlchain.p2p.libp2p\n"
        "assert 'libp2p' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
