"""To find an element of a hash chain wrong takes a hash a block: nobody makes us do it often."""

from __future__ import annotations

import pytest
from factories import make_key
from vm.world import World

from mlchain import codec
from mlchain.consensus.work import tickets
from mlchain.consensus.work.attestation import Extension
from mlchain.node.chain import Chain

LIAR, HONEST = make_key("validator-0").public, make_key("validator-1").public


@pytest.fixture
def chain() -> Chain:
    return Chain(World().store, None, lambda ref, commit: True)


@pytest.fixture
def hashed(chain, monkeypatch) -> list[int]:
    """Count the hashes of every look at a chain."""
    counts: list[int] = []

    def counting(element: bytes, steps: int) -> bytes:
        counts.append(steps)
        return element

    monkeypatch.setattr(tickets, "hash_down", counting)
    return counts


def lie(number: int) -> bytes:
    return codec.encode(Extension(bytes([number]) * 32, bytes(32), (), (), (), ()))


def test_a_validator_that_showed_a_wrong_element_is_not_checked_again_at_this_height(chain, hashed):
    for number in range(50):
        assert not chain.is_valid_extension(500, LIAR, lie(number))
        assert not chain.is_valid_extension(501, LIAR, lie(number))
    assert hashed == [500, 501], "once a height"
    assert not chain.is_valid_extension(500, HONEST, lie(1)), "another is looked at"
    assert hashed == [500, 501, 500]
