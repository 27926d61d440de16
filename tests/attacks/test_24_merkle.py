"""Row 24: a leaf that is taken for a node, and lists of odd length. The control is a naive tree."""

from __future__ import annotations

from hashlib import sha256

import pytest

from mlchain.consensus.work.commitment import segment_root
from mlchain.crypto import digest
from mlchain.errors import VerificationFailed
from mlchain.ledger import merkle
from mlchain.ledger.merkle import list_proof, list_root, verify_list_proof

A, B, C, D = (digest("test-leaf", bytes([i])) for i in range(4))


def naive_root(leaves: list[bytes]) -> bytes:
    """A tree as often written: no tags, no count, the last of an odd level taken twice."""
    level = [sha256(leaf).digest() for leaf in leaves]
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]


def test_control_in_a_naive_tree_two_lists_have_one_root():
    """CVE-2012-2459: a list and the same list with its last item repeated."""
    assert naive_root([A, B, C]) == naive_root([A, B, C, C])


def test_an_odd_list_and_its_repetition_have_two_roots():
    for n in range(1, 17):
        leaves = [digest("test-leaf", bytes([i])) for i in range(n)]
        roots = {list_root([*leaves, *leaves[-1:] * extra]) for extra in range(4)}
        assert len(roots) == 4


def test_control_in_a_naive_tree_a_node_passes_for_a_leaf():
    """Whoever may choose a leaf's bytes hands in the two hashes below a node."""
    inner = sha256(A).digest() + sha256(B).digest()
    other = sha256(C).digest() + sha256(D).digest()
    assert naive_root([A, B, C, D]) == naive_root([inner, other])


def test_a_node_never_passes_for_a_leaf():
    """Items are hashed under another tag than pairs, and the root knows how many there are."""
    proof = list_proof([A, B, C, D], 0)
    root = list_root([A, B, C, D])
    for fake in (A + B, proof[0] + proof[1], *proof):
        for index, count in ((0, 2), (0, 4), (1, 2), (0, 1)):
            for path in ((), proof[1:], proof):
                with pytest.raises(VerificationFailed):
                    verify_list_proof(root, fake, index, count, path)


def confusions() -> list[bool]:
    """Whether the two hashes below a node pass for an item, in lists of two, three and four."""
    a, b, c, d = map(merkle._hash_item, (A, B, C, D))
    lists = {(A, B): (a + b,), (A, B, C): (a + b, C), (A, B, C, D): (a + b, c + d)}
    return [list_root(items) == list_root(other) for items, other in lists.items()]


def with_one_tag(monkeypatch):
    monkeypatch.setattr(merkle, "_hash_item", merkle._hash_pair)


def without_the_count(monkeypatch):
    monkeypatch.setattr(merkle, "_seal", lambda count, top: top)


def test_the_hashes_below_a_node_are_no_item():
    assert confusions() == [False] * 3


@pytest.mark.parametrize("lost", [with_one_tag, without_the_count])
def test_nor_are_they_if_one_of_tags_and_count_were_lost(monkeypatch, lost):
    lost(monkeypatch)
    assert confusions() == [False] * 3


def test_control_without_tags_and_count_they_are(monkeypatch):
    with_one_tag(monkeypatch)
    without_the_count(monkeypatch)
    assert confusions() == [True] * 3


def test_a_segment_with_another_count_is_another_segment():
    job, worker = digest("test-job"), digest("test-worker")
    roots = {
        segment_root("chain", job, 0, 0, worker, 0, states)
        for states in ((), (A,), (A, A), (A, B), (A, B, B), (A, B, C), (A, B, C, C))
    }
    assert len(roots) == 7
