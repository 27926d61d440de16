"""The chain on disk: blocks, certificates, receipts and the state, always of one height.

A block and everything it changes go down in one atomic, synced write, so after any crash the
state is exactly the one its last block left; there is nothing to undo or to repair. Only values
are stored: the tree of hashes is rebuilt at start (0.5 s per 100,000 keys), and that is also the
check that the values are the ones the last header speaks of.

What is read is compared with the hash that stands over it, so a damaged row is an error and never
an answer: body and receipts with their header, the header with its certificate. `rows.py` lists
the rows; `history.py` finds damaged ones and puts them back.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from mlchain import codec
from mlchain.codec import MAX_RECORD_BYTES
from mlchain.errors import GenesisError, InvalidBlock, NotFound, Pruned, StoreCorrupted
from mlchain.ledger.block import (
    FIRST_VERSION,
    MAX_BLOCK_BYTES,
    Block,
    Body,
    Header,
    Receipt,
    body_root,
    header_id,
    receipts_root,
)
from mlchain.ledger.commit import Commit
from mlchain.ledger.genesis import MAX_GENESIS_BYTES, Genesis
from mlchain.ledger.kv import KeyValue, Recent
from mlchain.ledger.merkle import SparseTree, StateProof
from mlchain.ledger.rows import (
    GENESIS,
    HEAD,
    HINT,
    INSTALLING,
    KEPT,
    MAX_RECEIPTS_BYTES,
    RECEIPTS,
    Place,
    Voting,
    at,
    block_rows,
    read,
    voting_row,
)
from mlchain.ledger.state import State
from mlchain.ledger.transaction import transaction_id
from mlchain.ledger.validators import ValidatorSet

T = TypeVar("T")

MILESTONE = 1_000
"""Headers and certificates of these multiples are never pruned, nor are those after which others
vote: a light client finds its way by them."""

_EMPTY_BODY = Body(None, (), (), ())


class Moment(NamedTuple):
    """Everything that changes with a block, replaced in one assignment: threads see one moment."""

    header: Header
    id: bytes
    tree: SparseTree
    values: Recent


class Store:
    """The blocks 0..height and the state after the last one. Made by `create_or_open`."""

    def __init__(self, kv: KeyValue, genesis: Genesis, head: Moment) -> None:
        self._kv = kv
        self._head = head
        self.genesis = genesis
        self._changes = tuple(int.from_bytes(key[1:], "big") for key, _ in kv.items(b"v"))
        kept = kv.get(KEPT)
        self._kept = 0 if kept is None else read(int, kept, "kept")

    @classmethod
    def create_or_open(
        cls, kv: KeyValue, genesis: Genesis, initial: Callable[[State], None]
    ) -> Store:
        """Return the store in `kv`; an empty one gets block 0, whose state `initial` writes.

        Raises:
            GenesisError: `kv` holds another chain.
            StoreCorrupted: `kv` does not hold what was written to it.
        """
        stored = kv.get(GENESIS)
        if stored is None:
            if next(kv.items(), None) is not None:
                raise StoreCorrupted("the database has data but no genesis record", HINT)
            _create(kv, genesis, initial)
        elif read(Genesis, stored, "genesis", MAX_GENESIS_BYTES).hash != genesis.hash:
            raise GenesisError(
                f"the database holds another chain than genesis {genesis.hash.hex()[:16]}",
                "name the genesis file the node was made with, or an empty folder",
            )
        store = cls(kv, genesis, _load_head(kv))
        store.commit(store.height) if store.height else store.block(0)
        store.validators_after(store.height)
        return store

    @property
    def height(self) -> int:
        """Height of the last block; 0 is the genesis."""
        return self._head.header.height

    @property
    def head(self) -> Header:
        """Header of the last block."""
        return self._head.header

    @property
    def head_id(self) -> bytes:
        """Id of the last block."""
        return self._head.id

    @property
    def kept(self) -> int:
        """Height from which on every block is here; of those below, only some headers are."""
        return self._kept

    @property
    def set_changes(self) -> tuple[int, ...]:
        """Heights after whose blocks others vote than before, ascending.

        Begins with 0; in a store that began at a trusted block, with others voting by then than at
        the beginning, with the block before that one, whose header is not here.
        """
        return self._changes

    def moment(self) -> Moment:
        """Return the last block and the state after it, which later blocks do not change."""
        return self._head

    def validators_after(self, height: int) -> ValidatorSet:
        """Return who votes on the block after `height`.

        Raises:
            Pruned: it is so long ago that it is not known here.
            StoreCorrupted: the row is not the set that the chain decided.
        """
        place = bisect_right(self._changes, height) - 1
        if place < 0 and self._changes and height < self._kept:
            raise Pruned(
                f"who votes is known here from block {self._changes[0] + 1} on",
                "ask another node, or trust that block",
            )
        data = self._kv.get(at(b"v", self._changes[place])) if place >= 0 else None
        if data is None:
            raise StoreCorrupted(f"who votes after block {height} is missing", HINT)
        found = ValidatorSet(read(Voting, data, f"voters after block {height}").validators)
        since = self._changes[place]
        try:
            decided = self.header(since).next_validators_hash
        except Pruned:  # the store began at the block after it
            decided = self.header(since + 1).validators_hash
        if found.hash != decided:
            raise StoreCorrupted(f"who votes after block {since} is not what was decided", HINT)
        return found

    def state(self) -> State:
        """Return a new state over the last block; what is written to it stays in it."""
        head = self._head
        return State(head.values, head.tree)

    def prove(self, key: bytes) -> tuple[bytes | None, StateProof]:
        """Return the value of a state key at the head, and its proof under the head's state root.

        With the head's header and certificate this convinces somebody who has no node.
        """
        head = self._head
        return head.values.get(key), head.tree.prove(key)

    def append(
        self,
        block: Block,
        commit: Commit,
        state: State,
        receipts: tuple[Receipt, ...],
        validators: ValidatorSet,
    ) -> None:
        """Add the next block, durably, with the `state` its execution left; `validators` vote next.

        The caller has verified the certificate's signatures; what is checked here is that the
        parts belong together.

        Raises:
            InvalidBlock: not a child of the head, or a root is not the one of its part.
            StoreCorrupted: the disk did not take it; the store stands at the block before.
        """
        header, id_ = block.header, header_id(block.header)
        head = self._head
        if header.height != head.header.height + 1 or header.parent != head.id:
            raise InvalidBlock(f"block {header.height} does not follow block {head.header.height}")
        if commit.height != header.height or commit.block_id != id_:
            raise InvalidBlock(f"block {header.height}: the certificate is for another block")
        if state.base_tree is not head.tree or state.root() != header.state_root:
            raise InvalidBlock(f"block {header.height}: not the state its header promises")
        for name, promised, found in (
            ("body", header.body_root, body_root(block.body)),
            ("receipts", header.receipts_root, receipts_root(receipts)),
            ("validators", header.next_validators_hash, validators.hash),
        ):
            if promised != found:
                raise InvalidBlock(f"block {header.height}: not the {name} its header promises")
        changes = state.changes()
        puts = {b"s" + key: value for key, value in changes.items() if value is not None}
        puts.update(block_rows(block, receipts))
        puts[at(b"c", header.height)] = codec.encode(commit)
        puts[HEAD] = codec.encode(header.height)
        is_changed = header.next_validators_hash != header.validators_hash
        if is_changed:
            puts.update(voting_row(header.height, validators))
        self._kv.write(puts, [b"s" + key for key, value in changes.items() if value is None])
        if is_changed:
            self._changes = (*self._changes, header.height)
        values = head.values.after(self._kv.snapshot(), changes)
        self._head = Moment(header, id_, state.tree(), values)

    def header(self, height: int) -> Header:
        """Return a header.

        Raises:
            NotFound: the chain is not that high, or the header was pruned.
        """
        header = self._read(Header, b"h", height, "header")
        if header.height != height:
            raise StoreCorrupted(f"header {height} is another block's", HINT)
        return header

    def block(self, height: int) -> Block:
        """Return a block.

        Raises:
            NotFound: the chain is not that high, or the block was pruned.
        """
        body = self._read(Body, b"b", height, "body", MAX_BLOCK_BYTES)
        header = self.header(height)
        if body_root(body) != header.body_root:
            raise StoreCorrupted(f"body {height} is not the one of its header", HINT)
        return Block(header, body)

    def commit(self, height: int) -> Commit:
        """Return the certificate this node saw for a block; it is of the header that stands here.

        Raises:
            NotFound: the chain is not that high, the block is the genesis, which has none, or the
                certificate was pruned.
        """
        if height == 0:
            raise NotFound("block 0 is the genesis, nobody voted for it")
        commit = self._read(Commit, b"c", height, "certificate")
        if commit.height != height or commit.block_id != header_id(self.header(height)):
            raise StoreCorrupted(f"certificate {height} is not the one of its header", HINT)
        return commit

    def receipts(self, height: int) -> tuple[Receipt, ...]:
        """Return the outcomes of a block's transactions, in their order.

        Raises:
            NotFound: the chain is not that high, or the block was pruned.
        """
        found: tuple[Receipt, ...] = self._read(
            RECEIPTS, b"r", height, "receipts", MAX_RECEIPTS_BYTES
        )
        if receipts_root(found) != self.header(height).receipts_root:
            raise StoreCorrupted(f"receipts {height} are not those of their header", HINT)
        return found

    def find_transaction(self, id_: bytes) -> tuple[int, int] | None:
        """Return (height, index in the block) of an included transaction, None if there is none."""
        data = self._kv.get(b"t" + id_)
        if data is None:
            return None
        place = read(Place, data, f"transaction {id_.hex()}")
        return place.height, place.index

    def prune(self, below: int, limit: int) -> int:
        """Remove the `limit` oldest blocks below height `below`; return how many there were.

        What goes, goes in one atomic write together with the new `kept`. The head stays whatever is
        asked, and so do the headers and certificates that light clients need (`MILESTONE`). A
        damaged block goes like any other; at most the places of its transactions are left.
        """
        first, end = self._kept, min(below, self.height, self._kept + limit)
        gone: list[bytes] = []
        for height in range(first, end):
            gone += [at(b"b", height), at(b"r", height)]
            gone += [b"t" + id_ for id_ in self._included(height)]
            if height % MILESTONE and height not in self._changes:
                gone += [at(b"h", height), at(b"c", height)]
        if end > first:
            self._kv.write({KEPT: codec.encode(end)}, gone)
            self._kept = end
            # The database keeps what an older view still shows, and could not give it back.
            values = self._head.values.after(self._kv.snapshot(), {})
            self._head = self._head._replace(values=values)
        return max(0, end - first)

    def _included(self, height: int) -> list[bytes]:
        """Return the ids of a block's transactions, by its receipts, or its body if they fail."""
        with suppress(StoreCorrupted):
            data = self._kv.get(at(b"r", height))
            if data is not None:
                receipts = read(RECEIPTS, data, f"receipts {height}", MAX_RECEIPTS_BYTES)
                return [receipt.transaction for receipt in receipts]
        with suppress(StoreCorrupted):
            data = self._kv.get(at(b"b", height))
            if data is not None:
                body = read(Body, data, f"body {height}", MAX_BLOCK_BYTES)
                return [transaction_id(each) for each in body.transactions]
        return []

    def restore(
        self,
        block: Block,
        commit: Commit | None,
        receipts: tuple[Receipt, ...],
        voting: ValidatorSet,
    ) -> None:
        """Put back the rows of a block that was here before; `voting` votes after it.

        The caller has verified that `commit` is a certificate of those who voted at that height;
        block 0, which has none, it made from the genesis.

        Raises:
            InvalidBlock: the parts do not belong together.
        """
        header = block.header
        if (
            not self._kept <= header.height <= self.height
            or (commit is None) != (header.height == 0)
            or (commit is not None and commit.block_id != header_id(header))
            or (commit is None and header.parent != self.genesis.hash)
            or body_root(block.body) != header.body_root
            or receipts_root(receipts) != header.receipts_root
            or voting.hash != header.next_validators_hash
        ):
            raise InvalidBlock(f"block {header.height}: not what stood here")
        rows = block_rows(block, receipts)
        if commit:
            rows[at(b"c", header.height)] = codec.encode(commit)
        if header.height == 0 or header.next_validators_hash != header.validators_hash:
            rows.update(voting_row(header.height, voting))
            self._changes = tuple(sorted({*self._changes, header.height}))
        self._kv.write(rows)

    def _read(
        self, kind: type[T], letter: bytes, height: int, what: str, limit: int = MAX_RECORD_BYTES
    ) -> T:
        if not 0 <= height <= self.height:
            raise NotFound(f"no block {height}; the chain is at {self.height}")
        data = self._kv.get(at(letter, height))
        if data is None and height < self._kept:
            raise Pruned(
                f"block {height} is pruned below height {self._kept} on this node",
                "ask an archive node, one that keeps all blocks",
            )
        if data is None:
            raise StoreCorrupted(f"{what} {height} is missing", HINT)
        return read(kind, data, f"{what} {height}", limit)


def genesis_block(genesis: Genesis, state: State) -> Block:
    """Return block 0, whose state is `state`."""
    validators_hash = genesis.validators().hash
    header = Header(
        protocol_version=FIRST_VERSION,
        chain_id=genesis.chain_id,
        height=0,
        time_ms=genesis.time_ms,
        parent=genesis.hash,  # so that every block id depends on the whole genesis file
        proposer=bytes(32),
        validators_hash=validators_hash,
        next_validators_hash=validators_hash,
        body_root=body_root(_EMPTY_BODY),
        state_root=state.root(),
        receipts_root=receipts_root(()),
        gas_used=0,
    )
    return Block(header, _EMPTY_BODY)


def _create(kv: KeyValue, genesis: Genesis, initial: Callable[[State], None]) -> None:
    state = State(kv.snapshot(), SparseTree())
    initial(state)
    puts = {b"s" + key: value for key, value in state.changes().items() if value is not None}
    puts.update(block_rows(genesis_block(genesis, state), ()))
    puts.update(voting_row(0, genesis.validators()))
    puts[HEAD] = codec.encode(0)
    puts[GENESIS] = codec.encode(genesis)
    kv.write(puts)


def _load_head(kv: KeyValue) -> Moment:
    if kv.get(INSTALLING) is not None:
        raise StoreCorrupted("a snapshot was being installed when this node stopped", HINT)
    data = kv.get(HEAD)
    height = read(int, data, "head") if data is not None else -1
    data = kv.get(at(b"h", height)) if height >= 0 else None
    if data is None:
        raise StoreCorrupted("the last block is missing", HINT)
    header = read(Header, data, f"header {height}")
    values = Recent(kv.snapshot(), b"s")
    tree = SparseTree().update(dict(values.items()))
    if header.height != height or tree.root != header.state_root:
        raise StoreCorrupted(
            f"the stored state is not the one of block {height}:"
            f" root {tree.root.hex()[:16]}, header says {header.state_root.hex()[:16]}",
            HINT,
        )
    return Moment(header, header_id(header), tree, values)
