"""A file fetched by its id: compared leaf by leaf as it comes, and continued where it broke off.

What has come stands in `TARGET.part`, every byte of it compared with the id except for an end that
a killed process may have left; that is found and cut off when the next one goes on. So the file may
come from one node after the other, and nothing that a node says is taken on trust.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import httpx

from mlchain.client.client import Client
from mlchain.client.http import problem_error
from mlchain.client.userfile import draft
from mlchain.errors import ConfigError, Unreachable, VerificationFailed
from mlchain.ledger import unixfs

PIECE_BYTES = 1 << 18
TIMEOUT_S = 30.0
TRIES = 3
"""Tries one after the other that bring nothing before we give up."""
PAUSE_S = 0.5
"""Before the second of them; twice as long before each further one."""

Notify = Callable[[int, int], None]
"""Told of progress: bytes done, bytes in all (0: not known)."""

T = TypeVar("T")


class Named(NamedTuple):
    """A file and its content id in one profile."""

    cid: str
    size: int
    profile: str

    @property
    def ipfs(self) -> str:
        """The line that gives the same id with Kubo."""
        return unixfs.LAYOUTS[self.profile].command


def fetch_file(client: Client, cid: str, target: Path, notify: Notify | None = None) -> Named:
    """Fetch a file by its id and let it stand at `target` once every byte of it has been compared.

    Goes on with what an earlier call, to this node or another one, left in `target`.part.

    Raises:
        NotFound: the node does not have it.
        Unreachable: the node does not answer, also not when asked again.
        VerificationFailed: the node sent other bytes.
        ConfigError: it cannot be written, or another process is writing it.
    """
    name = unixfs.parse_cid(cid)
    path = Path(os.path.realpath(target))
    try:
        if path.exists() and not path.is_file():
            return _pass_on(client, cid, path, notify)
        part = path.with_name(path.name + ".part")
        with _only_writer(part) as file:
            root = _Download(client.url, client.http, file, cid, notify).run(name)
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            os.fsync(file.fileno())
            os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror or error}") from error
    return Named(cid, root.size, unixfs.profile_of(root))


def _pass_on(client: Client, cid: str, path: Path, notify: Notify | None) -> Named:
    """Fetch a file for a pipe or a device, which gets it as a whole."""
    if path.is_dir():
        raise ConfigError(f"{path}: a folder", "name a file in it")
    with tempfile.TemporaryDirectory(prefix="mlchain-get-") as folder:
        whole = Path(folder) / "content"
        named = fetch_file(client, cid, whole, notify)
        with draft(path) as sink, whole.open("rb") as source:
            shutil.copyfileobj(source, sink)
    return named


@dataclass
class _Download:
    """One file on its way; `done` bytes of it are in `file` and right."""

    url: str
    http: httpx.Client
    file: BinaryIO
    cid: str
    notify: Notify | None
    done: int = 0
    size: int = 0
    _failures: int = 0
    _rest: _Rest | None = field(default=None, repr=False)

    def run(self, name: bytes) -> unixfs.Part:
        """Complete the file and return the part that is all of it."""
        try:
            block = self._block(name)
            is_leaf = unixfs.is_leaf(name)
            root = unixfs.leaf_part(name, len(block)) if is_leaf else unixfs.root_part(name, block)
            self.size = root.size
            known = {name: block}

            def get(cid: bytes) -> bytes:
                return known.pop(cid, b"") or self._block(cid)

            for at, leaf in unixfs.leaves(root, get):
                if not self._is_here(at, leaf):
                    self._write(at, block if is_leaf else self._leaf(at, leaf))
                self._note(at + leaf.size)
            self.file.truncate(self.done)
            self.file.flush()
            return root
        finally:
            self._close()

    def _is_here(self, at: int, leaf: unixfs.Part) -> bool:
        """Tell whether an earlier call left this leaf; each is looked at as long as they are."""
        self.file.seek(at)
        return _is_named(leaf.cid, self.file.read(leaf.size))

    def _write(self, at: int, data: bytes) -> None:
        self.file.seek(at)
        self.file.truncate()
        self.file.write(data)

    def _note(self, done: int) -> None:
        self.done, self._failures = done, 0
        if self.notify is not None:
            self.notify(done, self.size)

    def _leaf(self, at: int, leaf: unixfs.Part) -> bytes:
        def ask() -> bytes:
            if self._rest is None or self._rest.at != at:
                self._close()
                self._rest = _Rest(self.http, f"/v1/data/{self.cid}", at)
            return self._rest.read(leaf.size)

        return self._compared(leaf.cid, self._patiently(ask))

    def _block(self, cid: bytes) -> bytes:
        """Return a block that has a request of its own: a node, or a file of one leaf."""
        address = f"/v1/data/{unixfs.cid_text(cid)}/block"

        def ask() -> bytes:
            rest = _Rest(self.http, address, 0)
            try:
                return rest.read_all(unixfs.block_limit(cid))
            finally:
                rest.close()

        return self._compared(cid, self._patiently(ask))

    def _compared(self, cid: bytes, block: bytes) -> bytes:
        if not _is_named(cid, block):
            raise VerificationFailed(
                f"{self.url} sent other bytes than {self.cid} names",
                "ask another node: it goes on after the last byte that was right",
            )
        return block

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Return what `ask` does, asked again when the node breaks off or is busy."""
        while True:
            try:
                return ask()
            except Unreachable as error:
                self._close()
                self._failures += 1
                if self._failures < TRIES:
                    time.sleep(PAUSE_S * 2 ** (self._failures - 1))
                    continue
                raise Unreachable(
                    f"{error.message} ({self.done} bytes have come and are right)",
                    "the same command goes on from there, also with another --url",
                ) from error

    def _close(self) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()


class _Rest:
    """A body from byte `at` to its end, read as it is wanted.

    Raises:
        Unreachable: the node does not answer, or breaks off.
        MlchainError: what it answers instead.
    """

    def __init__(self, http: httpx.Client, address: str, at: int) -> None:
        self.at = at
        self._address = f"{http.base_url}{address}"
        headers = {"range": f"bytes={at}-"} if at else {}
        with self._reaching():
            self._answer = http.send(
                http.build_request("GET", address, headers=headers, timeout=TIMEOUT_S), stream=True
            )
        try:
            if self._answer.status_code not in (200, 206):
                with self._reaching():
                    text = self._answer.read()
                raise problem_error(self._answer.status_code, text, address)
            self._pieces = self._answer.iter_bytes(PIECE_BYTES)
            self._data = bytearray()
            if at and self._answer.status_code == 200:  # something on the way took the range out
                self.at = 0
                while self.at < at:
                    self.read(min(PIECE_BYTES, at - self.at))
        except BaseException:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        while len(self._data) < size:
            if not (piece := self._next()):
                raise Unreachable(f"{self._address} ended at byte {self.at + len(self._data)}")
            self._data += piece
        data = bytes(memoryview(self._data)[:size])
        del self._data[:size]
        self.at += size
        return data

    def read_all(self, most: int) -> bytes:
        """Return the whole body, or its beginning if it has more than `most` bytes."""
        while len(self._data) <= most and (piece := self._next()):
            self._data += piece
        return bytes(self._data)

    def close(self) -> None:
        """Give the connection back."""
        self._answer.close()

    def _next(self) -> bytes:
        with self._reaching():
            return next(self._pieces, b"")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise Unreachable(f"{self._address} stopped answering: {error}") from error


@contextmanager
def _only_writer(path: Path) -> Iterator[BinaryIO]:
    """Give the file at `path`, made if need be, which no other process has; an empty one goes.

    Raises:
        ConfigError: another process has it.
    """
    with _locked(path) as file:
        try:
            yield file
        finally:
            if _is_at(file, path) and file.seek(0, os.SEEK_END) == 0:
                path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with open(handle, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"{path}: another process is fetching it", "wait for it, or name another -o"
                ) from error
            if _is_at(file, path):  # else that other process has just put it in its place
                yield file
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_named(cid: bytes, block: bytes) -> bool:
    return cid[4:] == sha256(block).digest()
