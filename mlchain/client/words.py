"""Twenty-four words from which all keys of an organisation follow, by role and number.

Words are those of BIP-39 (256 bits and a checksum). Keys are derived as SLIP-0010 says for Ed25519,
along m/44'/7777'/ROLE'/INDEX': every step hardened, so that one key tells nothing of another.
Hash chains (sampling tickets, beacon, custody keys) follow from the validator's key, not from here.

Sources: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki,
https://github.com/satoshilabs/slips/blob/master/slip-0010.md
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha512
from pathlib import Path
from typing import BinaryIO

from mnemonic import Mnemonic

from mlchain.crypto import SecretKey
from mlchain.errors import ConfigError

WORD_COUNT = 24
MAX_WORDS_BYTES = 1 << 10
MAX_INDEX = 2**31 - 1

ROLES = {"user": 0, "validator": 1, "worker": 2, "peer": 3, "auditor": 4, "observer": 5}
"""Number of each role in the path; never changed, for keys are restored by it."""

_PURPOSE = (44, 7777)
_HARDENED = 1 << 31
_BIP39 = Mnemonic("english")


def new_words() -> str:
    """Return 24 fresh words from the system's randomness."""
    return str(_BIP39.generate(strength=256))


def check_words(text: str) -> str:
    """Return the words in `text`, one blank between two.

    Raises:
        ConfigError: not 24 words of the list, or their checksum is wrong. The words are not named.
    """
    words = text.lower().split()
    if len(words) != WORD_COUNT:
        raise ConfigError(f"{len(words)} words, {WORD_COUNT} are needed")
    unknown = [str(i) for i, word in enumerate(words, 1) if word not in _BIP39.wordlist]
    if unknown:
        raise ConfigError("not in the list of words: number " + ", ".join(unknown))
    if not _BIP39.check(" ".join(words)):
        raise ConfigError("the words do not fit together", "one is wrong, or two are swapped")
    return " ".join(words)


def read_words(source: Path | BinaryIO) -> str:
    """Return the words in a file or stream.

    Raises:
        ConfigError: unreadable, or not 24 words.
    """
    where = str(source) if isinstance(source, Path) else "standard input"
    try:
        if isinstance(source, Path):
            with source.open("rb") as stream:
                data = stream.read(MAX_WORDS_BYTES + 1)
        else:
            data = source.read(MAX_WORDS_BYTES + 1)
        if len(data) > MAX_WORDS_BYTES:
            raise ConfigError(f"longer than {MAX_WORDS_BYTES} bytes")
        return check_words(data.decode("ascii"))
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not words") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", error.hint) from error


def derive_key(words: str, role: str, index: int = 0) -> SecretKey:
    """Return the key of a role; `index` counts an organisation's nodes, or users, from 0.

    Raises:
        ConfigError: not 24 words, or no such role or number.
    """
    if role not in ROLES:
        raise ConfigError(f"no role {role!r}", "roles: " + ", ".join(ROLES))
    if not 0 <= index <= MAX_INDEX:
        raise ConfigError(f"key number {index}, allowed are 0 to {MAX_INDEX}")
    seed = Mnemonic.to_seed(check_words(words))
    return SecretKey(derive_seed(seed, (*_PURPOSE, ROLES[role], index)))


def derive_seed(seed: bytes, path: Sequence[int]) -> bytes:
    """Return the Ed25519 seed at a path of SLIP-0010 below `seed`; every step is hardened."""
    node = hmac.digest(b"ed25519 seed", seed, sha512)
    for step in path:
        data = b"\0" + node[:32] + (step | _HARDENED).to_bytes(4, "big")
        node = hmac.digest(node[32:], data, sha512)
    return node[:32]
