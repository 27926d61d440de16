"""A light client: follows the chain by its certificates alone, and believes none of the nodes.

It starts from the genesis file, from a block the operator names, or from where it stopped, asks a
node for the way to its last block (`consensus.light`), and asks the other nodes whether they know
the same block. A value of the state is taken only with its proof under a block reached so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mlchain import codec
from mlchain.client.userfile import make_folder, read_file, write_file
from mlchain.codec import Hash, Record
from mlchain.consensus.light import (
    Conflict,
    LightBlock,
    LightPath,
    LightQuestion,
    StateAnswer,
    TooFar,
    Trusted,
    advance,
    find_equivocation,
    follow,
    trust_block,
    verify_answer,
)
from mlchain.crypto import parse_address
from mlchain.errors import CodecError, ConfigError, MlchainError, NotFound, VerificationFailed
from mlchain.ledger.block import header_id
from mlchain.ledger.genesis import Genesis
from mlchain.vm.families.accounts import ACCOUNTS, Account
from mlchain.vm.families.jobs import JOBS, Job
from mlchain.vm.families.models import MODELS, Model
from mlchain.vm.initial import trust_genesis

MAX_FILE_BYTES = 64 << 10
FAR = 2**62
"""Asks for the block alone, without the way to it."""

Notify = Callable[[str], None]


class Source(Protocol):
    """A node to ask. `Client` fits. What it says is judged here."""

    url: str

    def light_path(self, question: LightQuestion) -> LightPath:
        """Return the way to a block."""
        ...

    def prove(self, key: bytes) -> StateAnswer:
        """Return a value of the state with its proof."""
        ...


class _Saved(Record, frozen=True):
    genesis: Hash
    trusted: Trusted


class Conflicting(VerificationFailed):
    """Two nodes gave two certified blocks of one height; `conflict` shows it to anybody."""

    def __init__(self, message: str, hint: str, conflict: Conflict) -> None:
        super().__init__(message, hint)
        self.conflict = conflict


@dataclass
class LightClient:
    """What is trusted now, and the nodes that are asked."""

    genesis: Genesis
    sources: Sequence[Source]
    trusted: Trusted
    notify: Notify = lambda text: None
    agreed: list[str] = field(default_factory=list)
    """Nodes that know the block trusted last."""

    def sync(self) -> Trusted:
        """Follow to the last block of the first node that tells the truth; ask the others of it.

        Raises:
            Conflicting: another node has another certified block of that height.
            MlchainError: no node leads anywhere; the error of the last one.
        """
        failure: MlchainError = NotFound("no node to ask", "give --url")
        before = self.trusted
        for source in self.sources:
            try:
                self._follow(source)
            except MlchainError as error:
                self.notify(f"{source.url}: {error.message}")
                failure = error
                continue
            self._compare(source, before)
            return self.trusted
        raise failure

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a state key at a block that is trusted; None if it has none.

        Raises:
            NotFound, Unreachable, VerificationFailed, …: as `sync`.
        """
        failure: MlchainError = NotFound("no node to ask", "give --url")
        for source in self.sources:
            try:
                answer = source.prove(key)
                if header_id(answer.block.header) != self.trusted.id:
                    self._follow(source, answer.block.header.height)
                return verify_answer(answer, self.trusted, key)
            except MlchainError as error:
                self.notify(f"{source.url}: {error.message}")
                failure = error
        raise failure

    def start_from(self, height: int, block_id: bytes) -> None:
        """Trust the block of this height and id, which somebody vouched for.

        Raises:
            MlchainError: no node has it; the error of the last one.
        """
        failure: MlchainError = NotFound("no node to ask", "give --url")
        for source in self.sources:
            try:
                block = _ask(source, FAR, height)
                self.trusted = trust_block(block, height, block_id, self.genesis.chain_id)
                return
            except MlchainError as error:
                self.notify(f"{source.url}: {error.message}")
                failure = error
        raise failure

    def _follow(self, source: Source, height: int = 0) -> None:
        """Trust a block of `source` (0: its last), by one long step or by several."""
        self.trusted, _ = self._lead(source, self.trusted, height)

    def _lead(self, source: Source, trusted: Trusted, height: int) -> tuple[Trusted, LightBlock]:
        """Return trust in a block of `source`, and that block."""
        target = _ask(source, FAR, height)
        goal = target.header.height
        if header_id(target.header) == trusted.id:
            return trusted, target
        if goal <= trusted.height:
            raise NotFound(f"is at height {goal}, trusted is {trusted.height}")
        chain_id = self.genesis.chain_id
        try:
            return advance(trusted, target, chain_id), target
        except TooFar:
            self.notify(f"others vote than at {trusted.height:,}: following each change")
        while trusted.height < goal:
            path = source.light_path(LightQuestion(trusted.height, goal))
            trusted = follow(trusted, path, chain_id)
            self.notify(f"height {trusted.height:,} of {goal:,}")
        if trusted.id != header_id(target.header):
            raise VerificationFailed(f"gave two blocks {goal}")
        return trusted, target

    def _compare(self, asked: Source, start: Trusted) -> None:
        """Ask every other node for the trusted block, or for its own last one if it is behind."""
        self.agreed = [asked.url]
        for source in self.sources:
            if source is asked:
                continue
            try:
                height = min(_ask(source, FAR, 0).header.height, self.trusted.height)
                theirs = _ask(source, FAR, height)
                ours = _ask(asked, FAR, height)
                if header_id(theirs.header) == header_id(ours.header):
                    self.agreed.append(source.url)
                    continue
                if start.height >= height:
                    start = trust_genesis(self.genesis)
                for one in (asked, source):
                    self._lead(one, start, height)
            except MlchainError as error:
                self.notify(f"{source.url}: {error.message}")
                continue
            conflict = Conflict(ours, theirs)
            raise Conflicting(
                f"{asked.url} and {source.url} have two certified blocks {height}:"
                f" {len(find_equivocation(conflict))} validators signed both in one round",
                "trust neither; show the file to the members",
                conflict,
            )


def _ask(source: Source, after: int, height: int) -> LightBlock:
    blocks = source.light_path(LightQuestion(after, height)).blocks
    if not blocks or height not in (0, blocks[-1].header.height):
        raise VerificationFailed(f"{source.url} answers with another block than {height}")
    return blocks[-1]


def load_trusted(path: Path, genesis: Genesis) -> Trusted | None:
    """Return what was trusted last, None if nothing was.

    Raises:
        ConfigError: the file is damaged, or of another chain.
    """
    if not path.exists():
        return None
    try:
        saved = codec.decode(_Saved, read_file(path, MAX_FILE_BYTES), MAX_FILE_BYTES)
    except (ConfigError, CodecError) as error:
        raise ConfigError(
            f"{path}: no trusted head: {error}", "remove it to start again"
        ) from error
    if saved.genesis != genesis.hash:
        raise ConfigError(f"{path}: is of another chain", "name another --state file")
    return saved.trusted


def save_trusted(path: Path, genesis: Genesis, trusted: Trusted) -> None:
    """Keep what is trusted; the file is replaced as a whole.

    Raises:
        ConfigError: it cannot be written.
    """
    data = codec.encode(_Saved(genesis.hash, trusted))
    make_folder(path.parent, hint := "name a folder we may write")
    write_file(path, data, hint)


def state_key(kind: str, identity: str) -> tuple[bytes, type[Record]]:
    """Return the state key of an account, a job or a model, and what stands there.

    Raises:
        CodecError: not the id of one.
    """
    if kind == "account":
        return ACCOUNTS.key(parse_address(identity)), Account
    try:
        job = bytes.fromhex(identity)
    except ValueError:
        job = b""
    if len(job) != 32:
        raise CodecError(f"not the id of a job: {identity[:80]!r}", "all 64 hex digits of it")
    return (JOBS.key(job), Job) if kind == "job" else (MODELS.key(job), Model)
