"""What several stopped nodes have on disk, compared: one history, no double signing, all there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

from mlchain.consensus.journal import decode_entry
from mlchain.consensus.messages import BlockProposal
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import Commit, Vote, VoteKind
from mlchain.ledger.genesis import Genesis
from mlchain.ledger.history import check_history
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import transaction_id
from mlchain.node.wal import WriteAheadLog
from mlchain.vm.families.members import FAULTS


@contextmanager
def opened(home: Path, genesis: Genesis):
    kv = LevelKeyValue(home / "data")
    try:
        yield Store.create_or_open(kv, genesis, lambda state: None)
    finally:
        kv.close()


class Ledgers:
    """Everything that the stores of a network's nodes say, gathered."""

    def __init__(self, genesis: Genesis, homes: Iterable[Path]) -> None:
        self.complaints: list[str] = []
        self.heights: dict[str, int] = {}
        self.included: Counter[bytes] = Counter()
        self.places: dict[bytes, tuple[int, int]] = {}
        """Height and index in its block of every transaction."""
        self.failed: list[bytes] = []
        self.votes = 0
        self._roots: dict[int, tuple[bytes, bytes]] = {}
        self._signed: dict[tuple[int, int, int, bytes], tuple[bytes, bytes]] = {}
        longest = 0
        for home in homes:
            with opened(home, genesis) as store:
                check_history(store)
                self._compare(home.name, store)
                if store.height > longest:
                    longest = store.height
                    self._count(store)
                self.heights[home.name] = store.height
            self._read_log(home)

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def _compare(self, name: str, store: Store) -> None:
        for height in range(max(1, store.kept), store.height + 1):
            block = store.block(height)
            mine = header_id(block.header), block.header.state_root
            if self._roots.setdefault(height, mine) != mine:
                self._complain(f"{name} has another block {height} than the nodes before it")
            self._take(store.commit(height))
            if block.body.last_commit is not None:
                self._take(block.body.last_commit)
            if block.body.evidence:
                self._complain(f"block {height} holds evidence of double signing")
        for _, fault in FAULTS.items(store.state()):
            self._complain(f"{name}: fault {fault.kind} of {fault.offender.hex()[:8]}")

    def _take(self, commit: Commit) -> None:
        place = VoteKind.PRECOMMIT, commit.height, commit.round
        for one in commit.signatures:
            self._vote(*place, one.validator, commit.block_id, one.extension)

    def _vote(
        self, kind: int, height: int, round_: int, validator: bytes, block: bytes, extension: bytes
    ) -> None:
        self.votes += 1
        said = self._signed.setdefault((kind, height, round_, validator), (block, extension))
        if said != (block, extension):
            name = VoteKind(kind).name.lower()
            self._complain(f"{validator.hex()[:8]} signed two {name}s at {height}/{round_}")

    def _read_log(self, home: Path) -> None:
        """Take what was signed at the height that was being decided."""
        for record in WriteAheadLog(home / "wal").records():
            entry = decode_entry(record)
            votes = [entry] if isinstance(entry, Vote) else []
            if isinstance(entry, BlockProposal):
                made = entry.proposal
                place = VoteKind.PROPOSAL, made.height, made.round
                self._vote(*place, made.validator, made.block_id, b"")
                votes = list(entry.polka)
            for vote in votes:
                place = VoteKind(vote.kind), vote.height, vote.round
                self._vote(*place, vote.validator, vote.block_id, vote.extension)

    def _count(self, store: Store) -> None:
        self.included.clear()
        self.failed.clear()
        for height in range(max(1, store.kept), store.height + 1):
            pairs = zip(store.block(height).body.transactions, store.receipts(height), strict=True)
            for index, (data, receipt) in enumerate(pairs):
                self.included[transaction_id(data)] += 1
                self.places[transaction_id(data)] = height, index
                if receipt.code != "ok":
                    self.failed.append(transaction_id(data))

    def check_acknowledged(self, identities: Iterable[bytes]) -> None:
        """Complain about each of these that is not in the chain exactly once."""
        for identity in identities:
            if self.included[identity] != 1:
                self._complain(
                    f"transaction {identity.hex()[:8]} stands {self.included[identity]} times"
                )
            if identity in self.failed:
                self._complain(f"transaction {identity.hex()[:8]} failed")
