"""Keys from 24 words: the published vectors of BIP-39 and SLIP-0010, and our own paths."""

from __future__ import annotations

import io

import pytest
from mnemonic import Mnemonic

from mlchain.client.words import (
    MAX_WORDS_BYTES,
    ROLES,
    check_words,
    derive_key,
    derive_seed,
    new_words,
    read_words,
)
from mlchain.crypto import SecretKey, address
from mlchain.errors import ConfigError

ZEROS = "abandon " * 23 + "art"

# https://github.com/trezor/python-mnemonic/blob/master/vectors.json, password TREZOR
BIP39 = [
    ("00" * 32, ZEROS,
     "bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd30971"
     "70af7a4d73245cafa9c3cca8d561a7c3de6f5d4a10be8ed2a5e608d68f92fcc8"),
    ("7f" * 32, "legal winner thank year wave sausage worth useful " * 2
     + "legal winner thank year wave sausage worth title",
     "bc09fca1804f7e69da93c2f2028eb238c227f2e9dda30cd63699232578480a40"
     "21b146ad717fbb7e451ce9eb835f43620bf5c514db0f8add49f5d121449d3e87"),
    ("80" * 32, "letter advice cage absurd amount doctor acoustic avoid " * 2
     + "letter advice cage absurd amount doctor acoustic bless",
     "c0c519bd0e91a2ed54357d9d1ebef6f5af218a153624cf4f2da911a0ed8f7a09"
     "e2ef61af0aca007096df430022f7a2b6fb91661a9589097069720d015e4e982f"),
    ("ff" * 32, "zoo " * 23 + "vote",
     "dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e16"
     "13912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad"),
]  # fmt: skip

SEED_1 = bytes(range(16))
SEED_2 = bytes(0xFF - i * 3 % 256 for i in range(64))
# https://github.com/satoshilabs/slips/blob/master/slip-0010.md, test vectors for ed25519
SLIP10 = [
    (SEED_1, (), "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
     "a4b2856bfec510abab89753fac1ac0e1112364e7d250545963f135f2a33188ed"),
    (SEED_1, (0,), "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
     "8c8a13df77a28f3445213a0f432fde644acaa215fc72dcdf300d5efaa85d350c"),
    (SEED_1, (0, 1), "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2",
     "1932a5270f335bed617d5b935c80aedb1a35bd9fc1e31acafd5372c30f5c1187"),
    (SEED_1, (0, 1, 2), "92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9",
     "ae98736566d30ed0e9d2f4486a64bc95740d89c7db33f52121f8ea8f76ff0fc1"),
    (SEED_1, (0, 1, 2, 2), "30d1dc7e5fc04c31219ab25a27ae00b50f6fd66622f6e9c913253d6511d1e662",
     "8abae2d66361c879b900d204ad2cc4984fa2aa344dd7ddc46007329ac76c429c"),
    (SEED_1, (0, 1, 2, 2, 1000000000),
     "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793",
     "3c24da049451555d51a7014a37337aa4e12d41e485abccfa46b47dfb2af54b7a"),
    (SEED_2, (), "171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012",
     "8fe9693f8fa62a4305a140b9764c5ee01e455963744fe18204b4fb948249308a"),
    (SEED_2, (0, 2147483647),
     "ea4f5bfe8694d8bb74b7b59404632fd5968b774ed545e810de9c32a4fb4192f4",
     "5ba3b9ac6e90e83effcd25ac4e58a1365a9e35a3d3ae5eb07b9e4d90bcf7506d"),
]  # fmt: skip


@pytest.mark.parametrize(("entropy", "words", "seed"), BIP39)
def test_words_and_seeds_are_those_of_bip_39(entropy, words, seed):
    assert Mnemonic("english").to_mnemonic(bytes.fromhex(entropy)) == words
    assert check_words(words) == words
    assert Mnemonic.to_seed(words, "TREZOR").hex() == seed


@pytest.mark.parametrize(("seed", "path", "secret", "public"), SLIP10)
def test_derivation_is_that_of_slip_0010(seed, path, secret, public):
    assert derive_seed(seed, path).hex() == secret
    assert SecretKey(derive_seed(seed, path)).public.hex() == public


def test_a_key_is_at_the_path_of_its_role_and_number():
    """The path as written down, so that no change of code moves anybody's keys."""
    seed = Mnemonic.to_seed(ZEROS)
    assert ROLES == {"user": 0, "validator": 1, "worker": 2, "peer": 3, "auditor": 4, "observer": 5}
    for role, number in ROLES.items():
        for index in (0, 7):
            key = derive_key(ZEROS, role, index)
            assert key.seed == derive_seed(seed, (44, 7777, number, index))
    assert address(derive_key(ZEROS, "validator").public) == ADDRESS


ADDRESS = "mlc1jf52fuu2xcd27decwsvxk79tqc5t49ylvn0hdphdnm5vfrg02u3q6lcv9x"


def test_no_two_roles_or_numbers_share_a_key():
    keys = {derive_key(ZEROS, role, index).public for role in ROLES for index in range(3)}
    assert len(keys) == 3 * len(ROLES)


def test_new_words_are_24_and_others_each_time():
    one, two = new_words(), new_words()
    assert len(one.split()) == 24 and one != two
    assert check_words("  " + one.upper().replace(" ", "\n") + "\n") == one


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 words"),
        ("abandon " * 11 + "about", "12 words"),  # sound, but half as strong
        ("abandon " * 24, "do not fit together"),
        ("abandon " * 22 + "ability art", "do not fit together"),
        ("abandon " * 22 + "abandom art", "number 23"),
    ],
)
def test_words_that_are_wrong_are_refused_without_being_repeated(text, why):
    with pytest.raises(ConfigError, match=why) as caught:
        check_words(text)
    assert "abandom" not in caught.value.message + caught.value.hint


def test_words_are_read_from_a_file_or_a_stream_of_bounded_size(tmp_path):
    (tmp_path / "words").write_text(ZEROS + "\n")
    assert read_words(tmp_path / "words") == read_words(io.BytesIO(ZEROS.encode())) == ZEROS
    for data in (b" " * (MAX_WORDS_BYTES + 1), "ä".encode()):
        with pytest.raises(ConfigError, match="standard input"):
            read_words(io.BytesIO(data))
    with pytest.raises(ConfigError, match="none"):
        read_words(tmp_path / "none")


@pytest.mark.parametrize(("role", "index"), [("king", 0), ("user", -1), ("user", 2**31)])
def test_only_known_roles_and_numbers_have_keys(role, index):
    with pytest.raises(ConfigError):
        derive_key(ZEROS, role, index)
