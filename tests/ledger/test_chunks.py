"""A state in 256 chunks, each judged alone under the state root."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mlchain.errors import VerificationFailed
from mlchain.ledger.merkle import (
    CHUNK_BITS,
    CHUNKS,
    OtherLeaf,
    SparseTree,
    StateProof,
    chunk_of,
    verify_chunk,
)

KEYS = st.binary(min_size=1, max_size=6)
STATES = st.dictionaries(KEYS, st.binary(max_size=8), max_size=40)


def cut(state):
    chunks = [{} for _ in range(CHUNKS)]
    for key, value in state.items():
        chunks[chunk_of(key)][key] = value
    return chunks


def refused(root, index, values, proof):
    with pytest.raises(VerificationFailed):
        verify_chunk(root, index, values, proof)
    return True


@given(STATES)
@settings(max_examples=40, deadline=None)
def test_every_chunk_of_every_state_verifies_and_together_they_are_the_state(state):
    tree = SparseTree().update(state)
    for index, values in enumerate(cut(state)):
        proof = tree.prove_chunk(index)
        assert len(proof.siblings) <= CHUNK_BITS
        verify_chunk(tree.root, index, values, proof)


@pytest.fixture(scope="module")
def large():
    state = {b"key %d" % i: b"value %d" % i for i in range(3000)}
    return cut(state), SparseTree().update(state)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_chunk_with_one_bit_flipped_is_refused(data, large):
    chunks, tree = large
    index = data.draw(st.integers(0, CHUNKS - 1))
    values, proof = dict(chunks[index]), tree.prove_chunk(index)
    key = data.draw(st.sampled_from(sorted(values)))
    what = data.draw(st.sampled_from(["key", "value", "sibling"]))

    def flip(text):
        bit = data.draw(st.integers(0, 8 * len(text) - 1))
        spoilt = bytearray(text)
        spoilt[bit // 8] ^= 1 << bit % 8
        return bytes(spoilt)

    if what == "key":
        values[flip(key)] = values.pop(key)
    elif what == "value":
        values[key] = flip(values[key])
    else:
        place = data.draw(st.integers(0, len(proof.siblings) - 1))
        siblings = list(proof.siblings)
        siblings[place] = flip(siblings[place])
        proof = replace(proof, siblings=tuple(siblings))
    assert refused(tree.root, index, values, proof)


@given(STATES.filter(bool), st.data())
@settings(max_examples=80, deadline=None)
def test_a_key_left_out_or_added_is_refused_in_small_states_too(state, data):
    """Few keys: chunks that are one leaf, nothing, or somebody else's leaf higher up."""
    tree, chunks = SparseTree().update(state), cut(state)
    key = data.draw(st.sampled_from(sorted(state)))
    index = chunk_of(key)
    without = {k: v for k, v in chunks[index].items() if k != key}
    assert refused(tree.root, index, without, tree.prove_chunk(index))
    new = data.draw(KEYS.filter(lambda k: k not in state))
    there = {**chunks[chunk_of(new)], new: b"forged"}
    assert refused(tree.root, chunk_of(new), there, tree.prove_chunk(chunk_of(new)))


def test_an_empty_chunk_is_not_proven_by_the_leaf_of_the_one_key_it_holds():
    state = {b"only": b"1"}
    tree, index = SparseTree().update(state), chunk_of(b"only")
    other = tree.prove_chunk(index ^ 1).other
    assert isinstance(other, OtherLeaf)
    refused(tree.root, index, {}, StateProof((), other))
    refused(tree.root, index, {}, StateProof((), None))


def test_one_subtree_is_not_taken_for_a_higher_one(large):
    """A proof cut short says that a taller tree holds these keys and nothing else."""
    chunks, tree = large
    proof = tree.prove_chunk(7)
    for depth in range(CHUNK_BITS):
        refused(tree.root, 7, chunks[7], replace(proof, siblings=proof.siblings[:depth]))
    refused(tree.root, 7, chunks[7], replace(proof, siblings=(*proof.siblings, bytes(32))))


def test_control_without_its_proof_a_forged_chunk_is_as_good_as_a_true_one(large):
    """What a node would install that took chunks on trust: other balances, another root."""
    chunks, tree = large
    forged = dict.fromkeys(chunks[9], b"mine")
    state = {
        k: v for i, values in enumerate(chunks) for k, v in (forged if i == 9 else values).items()
    }
    assert SparseTree().update(state).root != tree.root  # seen at the end, and then whose fault?
    refused(tree.root, 9, forged, tree.prove_chunk(9))
