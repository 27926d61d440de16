"""Key files: one secret key each, encrypted under a password, or openly unprotected.

A file is JSON with mode 0600. The encrypted kind is sealed by XChaCha20-Poly1305 under a key that
argon2id makes from the password; the rest of the file is authenticated with it, so no field can be
changed without the password. The unprotected kind is for test networks and says so itself.

Files are written whole or not at all, and never over another one unless that is asked for.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from nacl import pwhash
from nacl.exceptions import CryptoError
from nacl.secret import Aead

from mlchain.client.userfile import PRIVATE, make_folder, write_file
from mlchain.crypto import SecretKey, address, digest
from mlchain.errors import ConfigError, Locked, NotFound, VerificationFailed

SCHEMA = "mlchain.key/1"
MAX_KEY_FILE_BYTES = 8 << 10
MAX_KEYS_IN_FOLDER = 1_000
MAX_PASSWORD_BYTES = 1 << 10

WARNING = "NOT PROTECTED: whoever reads this file owns the key. For test networks only."

DEV_KEY_NAMES = ("alice", "bob", "validator", "worker", "validator-peer", "worker-peer")
"""Names of the published keys. Chains that use them have an id that starts with `dev-`."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one try of a password costs: passes over memory, and its bytes."""

    passes: int
    memory_bytes: int


HUMAN_COST = Cost(pwhash.argon2id.OPSLIMIT_MODERATE, pwhash.argon2id.MEMLIMIT_MODERATE)
"""3 passes over 256 MiB, about a second."""

MAX_COST = Cost(pwhash.argon2id.OPSLIMIT_SENSITIVE, pwhash.argon2id.MEMLIMIT_SENSITIVE)
"""4 passes over 1 GiB: a file from a stranger cannot make us spend more."""

MIN_COST = Cost(1, 1 << 20)
"""One pass over 1 MiB; for tests, no protection to speak of."""

COSTS = {"moderate": HUMAN_COST, "sensitive": MAX_COST, "test": MIN_COST}
"""By the names that `--cost` takes."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key file shows without its password. The name is the file's, without `.json`."""

    name: str
    path: Path
    public: bytes
    is_protected: bool

    @property
    def address(self) -> str:
        """Text form of the account."""
        return address(self.public)

    @property
    def is_dev_key(self) -> bool:
        """Whether everybody has the secret."""
        return is_dev_key(self.public)


def create_key(
    path: Path,
    key: SecretKey,
    password: str | None,
    *,
    force: bool = False,
    cost: Cost = HUMAN_COST,
) -> KeyInfo:
    """Write `key` to a new file, encrypted unless `password` is None.

    Args:
        force: replace a file that is there already. Its key is lost.

    Raises:
        ConfigError: there is a file already, an unusable password, or it cannot be written.
    """
    document = _unprotected(key) if password is None else _seal(key, password, cost)
    data = (json.dumps(document, indent=2) + "\n").encode()
    write_secret(path, data, force, "--force replaces it")
    return KeyInfo(path.stem, path, key.public, password is not None)


def load_key(path: Path, password: str | None = None) -> SecretKey:
    """Read the secret key of a file. A password given for an unprotected file is not looked at.

    Raises:
        NotFound: no such file.
        ConfigError: not a key file, one that asks for absurd memory or time, or an unprotected
            one that other users can read.
        Locked: it is encrypted and there is no password, or a wrong one; a changed file looks
            the same.
        VerificationFailed: its public key is not that of its secret.
    """
    file = _read(path)
    if isinstance(file, _Unprotected):
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{path}: other users can read this unprotected key", f"chmod 600 {path}"
            )
        key = SecretKey(file.seed_bytes)
    elif password is None:
        raise Locked(f"{path}: this key needs a password", "give --password-file")
    else:
        key = SecretKey(_open(path, file, password))
    if key.public.hex() != file.public:
        raise VerificationFailed(f"{path}: the secret is not that of key {file.public}")
    return key


def read_key_info(path: Path) -> KeyInfo:
    """Return what a key file says about itself; only `load_key` proves it.

    Raises:
        NotFound: no such file.
        ConfigError: not a key file.
    """
    file = _read(path)
    return KeyInfo(path.stem, path, bytes.fromhex(file.public), isinstance(file, _Encrypted))


def list_keys(folder: Path) -> list[KeyInfo]:
    """Return the key files of a folder by name; other files are passed over.

    Raises:
        ConfigError: more than `MAX_KEYS_IN_FOLDER` files.
    """
    paths = sorted(folder.glob("*.json"))
    if len(paths) > MAX_KEYS_IN_FOLDER:
        raise ConfigError(f"{folder}: {len(paths)} files, at most {MAX_KEYS_IN_FOLDER} allowed")
    found = []
    for path in paths:
        with suppress(ConfigError, NotFound):
            found.append(read_key_info(path))
    return found


def read_password(path: Path) -> str:
    """Return the password in a file: its first line, without the line's end.

    Raises:
        ConfigError: unreadable, empty or too long.
    """
    try:
        with path.open("rb") as stream:
            line = stream.read(MAX_PASSWORD_BYTES + 3).split(b"\n", 1)[0].removesuffix(b"\r")
        password = line.decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    _check_password(password)
    return password


def write_secret(path: Path, data: bytes, force: bool, hint: str = "") -> None:
    """Write a file of mode 0600 that appears complete, on disk, and in place of none by mistake.

    Raises:
        ConfigError: there is a file already and no `force`, or it cannot be written.
    """
    make_folder(path.parent, mode=0o700)
    write_file(path, data, hint, mode=PRIVATE, is_new=not force)


def dev_key(name: str) -> SecretKey:
    """Return the published key of this name, the same everywhere. It protects nothing.

    Raises:
        NotFound: there is none of this name.
    """
    if name not in DEV_KEY_NAMES:
        raise NotFound(f"no published test key {name!r}", "names: " + ", ".join(DEV_KEY_NAMES))
    return SecretKey(digest("mlchain/published test key, never use elsewhere", name.encode()))


def is_dev_key(public: bytes) -> bool:
    """Tell whether `public` is one of the published keys."""
    return public in [dev_key(name).public for name in DEV_KEY_NAMES]


class _Kdf(msgspec.Struct, forbid_unknown_fields=True):
    name: Literal["argon2id"]
    passes: Annotated[int, Meta(ge=MIN_COST.passes, le=MAX_COST.passes)]
    memory_bytes: Annotated[int, Meta(ge=MIN_COST.memory_bytes, le=MAX_COST.memory_bytes)]
    salt: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class _Encrypted(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="encrypted"):
    schema: Literal["mlchain.key/1"]
    public: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    address: Annotated[str, Meta(max_length=128)]
    kdf: _Kdf
    cipher: Literal["xchacha20-poly1305"]
    ciphertext: Annotated[str, Meta(pattern="^[0-9a-f]{144}$")]
    """Nonce of 24 bytes, the 32 of the seed, tag of 16."""


class _Unprotected(msgspec.Struct, forbid_unknown_fields=True, tag_field="kind", tag="unprotected"):
    schema: Literal["mlchain.key/1"]
    public: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    address: Annotated[str, Meta(max_length=128)]
    warning: Annotated[str, Meta(max_length=256)]
    seed: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

    @property
    def seed_bytes(self) -> bytes:
        return bytes.fromhex(self.seed)


def _header(kind: str, key: SecretKey) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": kind,
        "public": key.public.hex(),
        "address": address(key.public),
    }


def _unprotected(key: SecretKey) -> dict[str, Any]:
    return {**_header("unprotected", key), "warning": WARNING, "seed": key.seed.hex()}


def _seal(key: SecretKey, password: str, cost: Cost) -> dict[str, Any]:
    _check_password(password)
    salt = secrets.token_bytes(pwhash.argon2id.SALTBYTES)
    header = {
        **_header("encrypted", key),
        "kdf": {
            "name": "argon2id",
            "passes": cost.passes,
            "memory_bytes": cost.memory_bytes,
            "salt": salt.hex(),
        },
        "cipher": "xchacha20-poly1305",
    }
    box = _box(password, salt, cost.passes, cost.memory_bytes)
    return {**header, "ciphertext": box.encrypt(key.seed, aad=_authenticated(header)).hex()}


def _open(path: Path, file: _Encrypted, password: str) -> bytes:
    header = msgspec.to_builtins(file)
    ciphertext = bytes.fromhex(header.pop("ciphertext"))
    salt = bytes.fromhex(file.kdf.salt)
    box = _box(password, salt, file.kdf.passes, file.kdf.memory_bytes)
    try:
        return box.decrypt(ciphertext, aad=_authenticated(header))
    except CryptoError as error:
        raise Locked(f"{path}: wrong password, or the file was changed") from error


def _authenticated(header: dict[str, Any]) -> bytes:
    """Return the one text of everything in the file but the ciphertext."""
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _box(password: str, salt: bytes, passes: int, memory_bytes: int) -> Aead:
    secret = password.encode("utf-8", "surrogatepass")
    return Aead(pwhash.argon2id.kdf(Aead.KEY_SIZE, secret, salt, passes, memory_bytes))


def _check_password(password: str) -> None:
    if not 0 < len(password.encode("utf-8", "surrogatepass")) <= MAX_PASSWORD_BYTES:
        raise ConfigError(f"a password has 1 to {MAX_PASSWORD_BYTES} bytes")


def _read(path: Path) -> _Encrypted | _Unprotected:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(
            f"{path}: no such key file", "mlchain keys list shows those there are"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(text) > MAX_KEY_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_KEY_FILE_BYTES} bytes, not a key file")
    try:
        return msgspec.json.decode(text, type=_Encrypted | _Unprotected)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a key file: {error}") from error
