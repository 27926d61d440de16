"""The state tree against a dictionary, its proofs against forgers, and the list tree."""

from __future__ import annotations

from hashlib import blake2s

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from mlchain import codec
from mlchain.errors import CodecError, VerificationFailed
from mlchain.ledger import merkle
from mlchain.ledger.merkle import (
    EMPTY,
    OtherLeaf,
    SparseTree,
    StateProof,
    list_proof,
    list_root,
    verify_list_proof,
    verify_proof,
)

keys = st.binary(max_size=2)
mappings = st.dictionaries(keys, st.binary(max_size=4), max_size=40)
changes = st.dictionaries(keys, st.none() | st.binary(max_size=4), max_size=25)


def holds(root, key, value, proof):
    try:
        verify_proof(root, key, value, proof)
    except VerificationFailed:
        return False
    return True


def naive_root(mapping):
    """The definition in merkle's docstring, written the slow way."""

    def h(person, data):
        return blake2s(data, person=person).digest()

    def subtree(leaves, depth):
        if not leaves:
            return bytes(32)
        if len(leaves) == 1:
            return h(b"mlc/leaf", leaves[0][0] + leaves[0][1])
        sides = ([], [])
        for path, value in leaves:
            sides[path[depth // 8] >> (7 - depth % 8) & 1].append((path, value))
        return h(b"mlc/node", subtree(sides[0], depth + 1) + subtree(sides[1], depth + 1))

    return subtree([(h(b"mlc/path", k), h(b"mlc/valu", v)) for k, v in mapping.items()], 0)


# The tree


@given(st.lists(changes, max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_history_of_updates_ends_in_the_root_its_mapping_defines(history):
    tree, model = SparseTree(), {}
    for step in history:
        tree = tree.update(step)
        model.update(step)
        model = {key: value for key, value in model.items() if value is not None}
        assert tree.root == naive_root(model)


@given(mappings, changes)
@settings(max_examples=60, deadline=None)
def test_an_update_leaves_the_old_tree_as_it_was(mapping, step):
    old = SparseTree().update(mapping)
    root = old.root
    old.update(step)
    assert old.root == root == naive_root(mapping)
    assert all(holds(root, k, v, old.prove(k)) for k, v in mapping.items())


def test_the_empty_tree_has_the_zero_root_and_emptying_returns_to_it():
    tree = SparseTree().update({b"a": b"1", b"b": b"2"})
    assert SparseTree().root == EMPTY == tree.update({b"a": None, b"b": None}).root


def test_removing_what_is_not_there_changes_nothing():
    tree = SparseTree().update({b"a": b"1"})
    assert tree.update({b"x": None, b"y": None}).root == tree.root
    assert SparseTree().update({b"x": None}).root == EMPTY


# Its proofs


@given(mappings, keys, st.binary(max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_proof_convinces_of_the_truth_and_of_nothing_else(mapping, key, wrong):
    tree = SparseTree().update(mapping)
    proof = tree.prove(key)
    verify_proof(tree.root, key, mapping.get(key), proof)
    assert holds(tree.root, key, wrong, proof) == (mapping.get(key) == wrong)
    assert holds(tree.root, key, None, proof) == (key not in mapping)
    assert codec.decode(StateProof, codec.encode(proof)) == proof


@given(mappings, keys, st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_proof_proves_nothing(mapping, key, data):
    tree = SparseTree().update(mapping)
    proof = tree.prove(key)
    siblings = list(proof.siblings)
    match data.draw(st.sampled_from(["flip", "drop", "add", "swap", "other", "zeros"])):
        case "flip" if any(siblings):
            place = data.draw(st.sampled_from([i for i, s in enumerate(siblings) if s]))
            siblings[place] = bytes([siblings[place][0] ^ 1]) + siblings[place][1:]
        case "drop" if siblings:
            del siblings[data.draw(st.integers(0, len(siblings) - 1))]
        case "add":
            siblings.insert(data.draw(st.integers(0, len(siblings))), b"")
        case "swap" if len(siblings) > 1:
            siblings[0], siblings[-1] = siblings[-1], siblings[0]
        case "zeros" if b"" in siblings:
            siblings[siblings.index(b"")] = EMPTY
        case "other" if proof.other is not None:
            proof = replace(proof, other=None)
        case _:
            return
    forged = replace(proof, siblings=tuple(siblings))
    if forged != tree.prove(key):
        value = mapping.get(key)
        # An empty sibling added over an empty subtree still proves emptiness: nothing was forged.
        if value is None and forged.other is None and not any(siblings) and tree.root == EMPTY:
            return
        assert not holds(tree.root, key, value, forged)


def find_pair(first_bits):
    """Two keys whose paths share exactly `first_bits` bits."""
    seen = {}
    n = 0
    while True:
        key = b"%d" % n
        path = int.from_bytes(merkle._hash_path(key), "big")
        head = path >> (255 - first_bits)
        if head ^ 1 in seen:
            return key, seen[head ^ 1]
        seen[head] = key
        n += 1


def test_absence_cannot_be_shown_with_a_leaf_from_another_place(monkeypatch):
    # Mallory shows the honest leaf of `there`, with its own siblings, as what stands in the place
    # of `here`. Their paths part at the first bit, so the leaf says nothing about `here`.
    here, there = find_pair(0)
    tree = SparseTree().update({here: b"1", there: b"2"})
    honest = tree.prove(there)
    leaf = OtherLeaf(merkle._hash_path(there), merkle._hash_value(b"2"))
    forged = replace(honest, other=leaf)
    assert not holds(tree.root, here, None, forged)
    # The place is defended twice: by the bits of the leaf's own path, and by the order in which
    # the siblings are hashed. Control: with neither, the forgery passes.
    monkeypatch.setattr(merkle, "_share_bits", lambda a, b, count: True)
    assert not holds(tree.root, here, None, forged)
    monkeypatch.setattr(merkle, "_bit", lambda path, depth: merkle._hash_path(there)[0] >> 7)
    assert holds(tree.root, here, None, forged)


def test_an_absence_proof_may_not_name_the_key_itself():
    tree = SparseTree().update({b"a": b"1"})
    own_leaf = OtherLeaf(merkle._hash_path(b"a"), merkle._hash_value(b"1"))
    forged = StateProof((), own_leaf)
    assert not holds(tree.root, b"a", None, forged)
    # Control: the very same proof is right for a key that is absent.
    verify_proof(tree.root, b"b", None, forged)


def test_one_fact_has_one_proof():
    here, there = find_pair(0)
    tree = SparseTree().update({here: b"1", there: b"2"})
    proof = tree.prove(here)
    # A leaf beside a proof of presence, or an empty sibling spelled out, would be a second proof.
    leaf = OtherLeaf(merkle._hash_path(there), merkle._hash_value(b"2"))
    assert not holds(tree.root, here, b"1", replace(proof, other=leaf))
    low, high = find_pair(1)
    deep = SparseTree().update({low: b"1", high: b"2"})
    proof = deep.prove(low)
    assert proof.siblings[0] == b"" and holds(deep.root, low, b"1", proof)
    spelled = replace(proof, siblings=(EMPTY, proof.siblings[1]))
    assert not holds(deep.root, low, b"1", spelled)


@pytest.mark.parametrize("size", [1, 31, 33, 64])
def test_a_sibling_of_another_length_proves_nothing_even_under_a_root_made_for_it(size):
    sibling = b"s" * size
    leaf = merkle._hash_leaf(merkle._hash_path(b"a") + merkle._hash_value(b"1"))
    right = merkle._bit(merkle._hash_path(b"a"), 0)
    made = merkle._hash_inner(sibling + leaf if right else leaf + sibling)
    assert not holds(made, b"a", b"1", StateProof((sibling,), None))


def test_a_value_that_looks_like_a_node_is_not_taken_for_one(monkeypatch):
    # The value is the pre-image of an inner node. Were leaves and nodes hashed alike, Mallory
    # could present the inner node as the leaf of a key whose path is the left hash.
    left, right = find_pair(0)
    tree = SparseTree().update({left: b"1", right: b"2"})
    first, second = (
        merkle._hash_leaf(merkle._hash_path(key) + merkle._hash_value(value))
        for key, value in sorted(
            ((left, b"1"), (right, b"2")), key=lambda row: merkle._hash_path(row[0])
        )
    )
    forged = StateProof((), OtherLeaf(first, second))  # "the tree is one leaf, somewhere else"
    assert not holds(tree.root, left, None, forged)
    # Control: with one hash for both, the key that is there is "proved" absent.
    monkeypatch.setattr(merkle, "_hash_leaf", merkle._hash_inner)
    assert merkle._hash_inner(first + second) == tree.root
    assert holds(tree.root, left, None, forged)


def test_a_proof_among_twenty_thousand_keys_is_small():
    tree = SparseTree().update({b"%d" % n: b"v" for n in range(20_000)})
    sizes = [len(codec.encode(tree.prove(b"%d" % n))) for n in range(0, 20_000, 100)]
    assert sum(sizes) / len(sizes) < 600 and max(sizes) < 1200


@pytest.mark.parametrize(
    "siblings", [(b"x",), (b"x" * 33,), (b"",) * 257], ids=["short", "long", "many"]
)
def test_a_proof_out_of_bounds_is_refused(siblings):
    data = codec.encode((siblings, None))
    try:
        proof = codec.decode(StateProof, data)
    except CodecError:
        return
    assert not holds(EMPTY, b"a", None, proof)


# Lists

items = st.lists(st.binary(max_size=4), max_size=20)


def list_holds(root, item, index, count, proof):
    try:
        verify_list_proof(root, item, index, count, proof)
    except VerificationFailed:
        return False
    return True


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=20), st.data())
@settings(max_examples=100, deadline=None)
def test_a_list_proof_shows_one_item_at_one_index_of_one_length(row, data):
    index = data.draw(st.integers(0, len(row) - 1))
    root, proof = list_root(row), list_proof(row, index)
    verify_list_proof(root, row[index], index, len(row), proof)
    assert not list_holds(root, row[index] + b"x", index, len(row), proof)
    for count in range(len(row) + 3):
        for place in range(-1, count + 1):
            right = count == len(row) and 0 <= place < count and row[place] == row[index]
            if place != index or count != len(row):
                assert not list_holds(root, row[index], place, count, proof) or right
    assert not list_holds(root, row[index], index, len(row), (*proof, EMPTY))
    if proof:
        assert not list_holds(root, row[index], index, len(row), proof[:-1])
        assert not list_holds(root, row[index], index, len(row), (b"", *proof[1:]))


@given(items, items)
@settings(max_examples=100, deadline=None)
def test_two_lists_with_one_root_are_one_list(first, second):
    assert (list_root(first) == list_root(second)) == (first == second)


def test_a_repeated_last_item_changes_the_root(monkeypatch):
    # Bitcoin's CVE-2012-2459: a tree that doubles the odd last item gives [a, b, c] and
    # [a, b, c, c] one root.
    assert list_root([b"a", b"b", b"c"]) != list_root([b"a", b"b", b"c", b"c"])
    # Control: with doubling and without the count they collide.
    double = lambda level: merkle_pairs(level + level[-1:] if len(level) % 2 else level)  # noqa: E731
    merkle_pairs = merkle._parents
    monkeypatch.setattr(merkle, "_parents", double)
    monkeypatch.setattr(merkle, "_seal", lambda count, top: top)
    assert list_root([b"a", b"b", b"c"]) == list_root([b"a", b"b", b"c", b"c"])


def test_two_joined_hashes_are_not_an_item(monkeypatch):
    row = [b"a", b"b", b"c", b"d"]
    inner = [merkle._hash_item(row[i]) + merkle._hash_item(row[i + 1]) for i in (0, 2)]
    assert list_root(row) != list_root(inner)
    # Control: items and pairs hashed alike, and no count: the list of two passes for four.
    monkeypatch.setattr(merkle, "_hash_item", merkle._hash_pair)
    monkeypatch.setattr(merkle, "_seal", lambda count, top: top)
    inner = [merkle._hash_item(row[i]) + merkle._hash_item(row[i + 1]) for i in (0, 2)]
    assert list_root(row) == list_root(inner)
