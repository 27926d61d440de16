"""Files by content id: named here, sent to a node and fetched from it, in constant memory.

Nothing that a node says is taken on trust: an id is computed from the bytes, on this side.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from mlchain.client.client import Client
from mlchain.client.download import Named, Notify, fetch_file
from mlchain.client.http import problem_error
from mlchain.client.userfile import draft
from mlchain.errors import (
    CodecError,
    ConfigError,
    Unreachable,
    VerificationFailed,
)
from mlchain.ledger import car, unixfs
from mlchain.ledger.content import ContentStore
from mlchain.ledger.kv import LevelKeyValue

__all__ = ["Named", "Notify", "fetch_file"]

PIECE_BYTES = 1 << 20
TIMEOUT_S = 30.0


@dataclass
class _Counted:
    """A stream that tells how much of it was read."""

    file: BinaryIO
    size: int
    notify: Notify | None
    done: int = 0

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.done += len(data)
        if self.notify is not None:
            self.notify(self.done, self.size)
        return data


def name_file(path: Path, profile: str = unixfs.DEFAULT, notify: Notify | None = None) -> Named:
    """Return the content id of a file.

    Raises:
        ConfigError: it cannot be read.
        CodecError: it is larger than a node takes.
    """
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        source = _Counted(file, size, notify)
        cid = unixfs.cid_of(source, profile)  # type: ignore[arg-type]  # of a file it only reads
        return Named(unixfs.cid_text(cid), source.done, profile)


def send_file(
    client: Client, path: Path, profile: str = unixfs.DEFAULT, notify: Notify | None = None
) -> Named:
    """Store a file at the node and return its id, which is computed here.

    Raises:
        VerificationFailed: the node computes another one.
        ConfigError: it cannot be read.
    """
    named = name_file(path, profile)
    with _open(path) as file:
        source = _Counted(file, named.size, notify)
        pieces = iter(lambda: source.read(PIECE_BYTES), b"")
        theirs = _post(client, f"/v1/data?profile={profile}", pieces, named.size)
    if theirs != named.cid:
        raise VerificationFailed(f"the node names the data {theirs}, its bytes are {named.cid}")
    return named


def check_file(file: BinaryIO, cid: str, message: str) -> Named:
    """Return the file's name if `cid` names its bytes.

    Raises:
        VerificationFailed: it names others; `message` says what that means.
    """
    profile = unixfs.find_profile(unixfs.parse_cid(cid), file)
    if not profile:
        raise VerificationFailed(message, "ask another node, or add the file again")
    return Named(cid, file.seek(0, os.SEEK_END), profile)


def check_path(path: Path, cid: str) -> Named:
    """Return the name of the file at `path` if it is `cid`.

    Raises:
        VerificationFailed: `cid` names other bytes.
        ConfigError: it cannot be read.
    """
    with _open(path) as file:
        return check_file(file, cid, f"{path} holds other bytes than {cid} names")


def write_car(path: Path, target: Path, profile: str = unixfs.DEFAULT) -> Named:
    """Write the blocks of the file at `path` into a CAR file, leaves before what is above them.

    Raises:
        ConfigError: the one cannot be read, or the other not be written.
        VerificationFailed: the file changed in between.
    """
    named = name_file(path, profile)
    root = unixfs.parse_cid(named.cid)
    with _open(path) as source, draft(target) as file:
        file.write(car.car_header(root))

        def write(cid: bytes, block: bytes) -> None:
            file.write(car.car_block(cid, block))

        if unixfs.add(source, write, profile) != root:
            raise VerificationFailed(f"{path} changed while it was written out")
    return named


def read_car(path: Path, target: Path) -> Named:
    """Read a CAR file with one root, and write the file that it holds to `target`.

    Raises:
        CodecError, VerificationFailed: not such a file, or a block is not what its id says.
        NotFound: it lacks a block of the file.
        ConfigError: it cannot be read, or `target` cannot be written.
    """
    with _open(path) as source, tempfile.TemporaryDirectory(prefix="mlchain-car-") as folder:
        roots = car.read_roots(source)
        if len(roots) != 1:
            raise CodecError(f"{path} has {len(roots)} roots, one file has one")
        kv = LevelKeyValue(Path(folder) / "blocks")
        try:
            store = ContentStore(kv)
            for cid, block in car.read_blocks(source):
                store.put_block(cid, block)
            with draft(target) as file:
                for leaf in store.read(roots[0]):
                    file.write(leaf)
            text = unixfs.cid_text(roots[0])
            return Named(text, store.size(roots[0]), store.profile(roots[0]))
        finally:
            kv.close()


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error


def _post(client: Client, path: str, pieces: Iterator[bytes], size: int) -> str:
    headers = {"content-type": "application/octet-stream", "content-length": str(size)}
    try:
        answer = client.http.post(path, content=pieces, headers=headers, timeout=TIMEOUT_S)
        if answer.status_code >= 300:
            raise problem_error(answer.status_code, answer.content, client.url + path)
        return str(answer.json()["cid"])
    except httpx.HTTPError as error:
        raise Unreachable(
            f"the node at {client.url} does not take it: {error}", "mlchain status"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CodecError(f"{client.url}{path} answered something else than a content id") from error
