"""Ed25519 as libsodium judges it, hashes with domains, addresses with a checksum."""

from __future__ import annotations

from hashlib import blake2s

import edwards
import hypothesis.strategies as st
import pytest
from edwards import BASE, IDENTITY, L, add, challenge, encode, multiply, naive_verify, negate
from hypothesis import given, settings

from mlchain.crypto import (
    SecretKey,
    address,
    digest,
    digest_bulk,
    is_signed,
    parse_address,
    verify,
)
from mlchain.errors import CodecError, InvalidSignature

# RFC 8032, section 7.1: seed, public key, message, signature
RFC_8032 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "test SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.mark.parametrize("case", RFC_8032)
def test_the_vectors_of_rfc_8032_hold(case):
    seed, public, message, signature = RFC_8032[case]
    key = SecretKey(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert is_signed(key.public, bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(max_size=100), st.data())
@settings(max_examples=50, deadline=None)
def test_a_signature_holds_for_its_message_its_key_and_its_bits(message, data):
    key, other = SecretKey(b"k" * 32), SecretKey(b"o" * 32)
    signature = key.sign(message)
    verify(key.public, message, signature)
    bit = data.draw(st.integers(0, 511))
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not is_signed(key.public, message, bytes(flipped))
    assert not is_signed(key.public, message + b"x", signature)
    assert not is_signed(other.public, message, signature)
    with pytest.raises(InvalidSignature, match="vote"):
        verify(other.public, message, signature, "vote")


@pytest.mark.parametrize("public, signature", [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_keys_and_signatures_of_another_length_do_not_hold(public, signature):
    assert not is_signed(bytes(public), b"m", bytes(signature))


# Where verifiers of the world disagree. All nodes must agree, so libsodium's answers are frozen.

MESSAGE = b"mlchain"
A_SECRET = 12345678901234567890 % L
A = multiply(A_SECRET, BASE)
T8 = edwards.torsion()


def solve(a: edwards.Point, secret: int, r: int, r_torsion: edwards.Point, cofactor: int) -> tuple:
    """Sign by hand under the point `a` = secret B + torsion, with a nonce point of mixed order.

    Tries messages until the torsion parts do what is asked: cancel (cofactor 1, all verifiers that
    check the equation say yes) or only vanish under multiplication by 8 (cofactor 8).
    """
    r_point = add(multiply(r, BASE), r_torsion)
    for n in range(1000):
        message = MESSAGE + b"%d" % n
        h = challenge(encode(r_point), encode(a), message)
        signature = encode(r_point) + ((r + h * secret) % L).to_bytes(32, "little")
        exact = naive_verify(encode(a), message, signature)
        if exact == (cofactor == 1):
            return encode(a), message, signature
    raise AssertionError("no message found")


def with_s(case: tuple, change: int) -> tuple:
    public, message, signature = case
    s = int.from_bytes(signature[32:], "little") + change
    return public, message, signature[:32] + s.to_bytes(32, "little")


def with_r(encoded_r: bytes) -> tuple:
    """A signature by A whose nonce point is the identity, in some encoding: S = h a."""
    h = challenge(encoded_r, encode(A), MESSAGE)
    return encode(A), MESSAGE, encoded_r + (h * A_SECRET % L).to_bytes(32, "little")


def with_a(encoded_a: bytes, r: int = 7) -> tuple:
    """Anybody's signature under an encoding of the identity: S = r, whatever the message is."""
    return encoded_a, MESSAGE, encode(multiply(r, BASE)) + r.to_bytes(32, "little")


HONEST = solve(A, A_SECRET, 99, IDENTITY, 1)
IDENTITY_PLUS_P = (edwards.P + 1).to_bytes(32, "little")
IDENTITY_SIGNED = (1 | 1 << 255).to_bytes(32, "little")
MIXED = add(A, T8)

EDGES = {  # name: (case, libsodium's answer, the answer of the bare equation)
    "an ordinary signature": (HONEST, True, True),
    "S + L": (with_s(HONEST, L), False, True),
    "S + 8 L": (with_s(HONEST, 8 * L), False, True),
    "key is the identity": (with_a(encode(IDENTITY)), False, True),
    "key is the identity, y + p": (with_a(IDENTITY_PLUS_P), False, True),
    "key is the identity, x = -0": (with_a(IDENTITY_SIGNED), False, True),
    "key of order 8": (solve(T8, 0, 99, negate(T8), 1), False, True),
    "nonce is the identity": (with_r(encode(IDENTITY)), False, True),
    "nonce is the identity, y + p": (with_r(IDENTITY_PLUS_P), False, True),
    "key and nonce of order 8, S = 0": (solve(T8, 0, 0, negate(T8), 1), False, True),
    "mixed key and nonce, torsion cancels": (solve(MIXED, A_SECRET, 99, negate(T8), 1), True, True),
    "mixed key, equal only times 8": (solve(MIXED, A_SECRET, 99, IDENTITY, 8), False, False),
    "mixed nonce, equal only times 8": (solve(A, A_SECRET, 99, T8, 8), False, False),
}


@pytest.mark.parametrize("name", EDGES)
def test_libsodiums_answer_to_an_edge_case_is_the_rule(name):
    case, answer, bare = EDGES[name]
    assert is_signed(*case) is answer
    # Control: what verifiers that check less, or multiply by the cofactor, would say.
    assert naive_verify(*case) is bare
    assert naive_verify(*case, cofactor=8)


def test_a_signature_cannot_be_changed_into_a_second_one():
    # Were S + L accepted, anybody could give a transaction a second id.
    public, message, signature = HONEST
    twin = with_s(HONEST, L)[2]
    assert twin != signature and naive_verify(public, message, twin)
    assert not is_signed(public, message, twin)


def test_no_key_of_small_order_signs_anything():
    # Under such a key one signature would fit many messages.
    point = IDENTITY
    for _ in range(8):
        for nonce in (IDENTITY, T8):
            signature = encode(nonce) + bytes(32)
            assert not any(is_signed(encode(point), b"%d" % n, signature) for n in range(20))
        point = add(point, T8)
    assert point == IDENTITY


# Secret keys


def test_a_seed_has_32_bytes():
    for size in (0, 31, 33, 64):
        with pytest.raises(CodecError, match="32 bytes"):
            SecretKey(bytes(size))


def test_a_secret_does_not_show_and_derived_secrets_differ():
    key = SecretKey(bytes(range(32)))
    assert key.seed == bytes(range(32))
    assert key.seed.hex() not in repr(key) and key.seed.hex() not in str(key)
    secrets = [key.derive("tickets"), key.derive("beacon"), SecretKey(b"x" * 32).derive("tickets")]
    assert len({*secrets, key.seed}) == 4 and all(len(secret) == 32 for secret in secrets)


# Hashes

calls = st.tuples(st.text("ab", max_size=4), st.lists(st.binary(max_size=4), max_size=3).map(tuple))


@given(calls, calls)
@settings(max_examples=300)
def test_two_different_calls_hash_different_bytes(first, second):
    (a, parts), (b, others) = first, second
    assert (digest(a, *parts) == digest(b, *others)) == (first == second)


@pytest.mark.parametrize(
    "first, second",
    [
        (("a", b"bc"), ("ab", b"c")),
        (("a", b"b", b"c"), ("a", b"bc")),
        (("a", b"", b"b"), ("a", b"b", b"")),
        (("a",), ("a", b"")),
    ],
)
def test_parts_cannot_flow_into_each_other(first, second):
    assert digest(*first) != digest(*second)
    # Control: without lengths the two are the same bytes.
    naive = [blake2s(b"".join([call[0].encode(), *call[1:]])).digest() for call in (first, second)]
    assert naive[0] == naive[1]


def test_digests_are_frozen():
    small = digest("mlchain/test", b"a", b"")
    bulk = digest_bulk("mlchain/test", b"a" * 1000)
    assert small.hex() == "bde633c813b67e8f1a8b6ea5b613f88d93940de43f4f941ed3df38af192d8462"
    assert bulk.hex() == "87aeeb33ea26f54113e7afcd6747d9374ccba60976aec757193334d75c712c47"


def test_the_bulk_hash_takes_a_view_and_keeps_domains_apart():
    data = b"x" * 10_000
    assert digest_bulk("a", data) == digest_bulk("a", memoryview(data))
    assert digest_bulk("a", b"bc") != digest_bulk("ab", b"c")


# Addresses

ADDRESS = address(bytes(range(32)))
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


@given(st.binary(min_size=32, max_size=32))
def test_an_address_goes_there_and_back(public):
    text = address(public)
    assert text.startswith("mlc1") and parse_address(text) == public
    assert parse_address(public.hex()) == public


@given(st.data())
@settings(max_examples=300)
def test_up_to_four_wrong_characters_are_noticed(data):
    places = data.draw(st.lists(st.integers(4, len(ADDRESS) - 1), min_size=1, max_size=4))
    text = list(ADDRESS)
    for place in places:
        text[place] = data.draw(st.sampled_from(ALPHABET))
    typed = "".join(text)
    if typed != ADDRESS:
        with pytest.raises(CodecError, match="address"):
            parse_address(typed)


def test_two_swapped_neighbours_are_noticed():
    for place in range(4, len(ADDRESS) - 1):
        typed = list(ADDRESS)
        typed[place], typed[place + 1] = typed[place + 1], typed[place]
        if typed != list(ADDRESS):
            with pytest.raises(CodecError):
                parse_address("".join(typed))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mlc1",
        "1",
        ADDRESS[:-1],
        ADDRESS + "q",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "z" * 64,
        "ab " * 21 + "a",
        "ab" * 33,
        "mlc1" + "é" * 58,
        "x" * 100_000,
    ],
)
def test_another_text_is_no_address(text):
    with pytest.raises(CodecError, match="address"):
        parse_address(text)
