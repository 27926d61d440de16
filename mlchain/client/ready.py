"""The proof that a newcomer's key is ready for its place, as a file that travels by any way."""

from __future__ import annotations

from pathlib import Path

from mlchain import codec
from mlchain.client.userfile import write_file
from mlchain.codec import Record, Signature, Uint
from mlchain.consensus.work.tickets import PURPOSES, make_chain
from mlchain.crypto import SecretKey
from mlchain.errors import CodecError, ConfigError
from mlchain.ledger.genesis import Member
from mlchain.vm.families.changes import ready_bytes

MAX_READY_BYTES = 4096


class Ready(Record, frozen=True):
    """`member.key` signed that it will be `member` if it is let in before height `until`."""

    member: Member
    until: Uint
    signature: Signature


def make_ready(
    chain_id: str,
    name: str,
    role: str,
    key: SecretKey,
    peer: bytes,
    host: str,
    port: int,
    bond: int,
    chain_length: int,
    until: int,
) -> Ready:
    """Return the proof that `key` is ready."""
    tips = [bytes(32)] * len(PURPOSES)
    if role == "validator":
        tips = [make_chain(key, purpose, chain_id, chain_length).tip for purpose in PURPOSES]
    member = Member(name, role, key.public, peer, host, port, bond, *tips)
    return Ready(member, until, key.sign(ready_bytes(chain_id, member, until)))


def save_ready(path: Path, ready: Ready) -> None:
    """Write the proof as one line of hex digits.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_file(path, codec.encode(ready).hex() + "\n", "name another file with --out")


def load_ready(path: Path) -> Ready:
    """Read a proof; its signature is judged by the chain.

    Raises:
        ConfigError: not such a file.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(2 * MAX_READY_BYTES + 2)
        return decode_ready(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except CodecError as error:
        raise ConfigError(
            f"{path}: no proof of readiness: {error.message}", "mlchain gov ready makes one"
        ) from error


def decode_ready(text: bytes) -> Ready:
    """Read what such a file holds.

    Raises:
        CodecError: not hex digits, or not those of a proof.
    """
    try:
        data = bytes.fromhex(text.decode("ascii").strip())
    except ValueError as error:
        raise CodecError("expected hex digits") from error
    return codec.decode(Ready, data, MAX_READY_BYTES)
