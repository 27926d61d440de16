"""The chain on disk: blocks, certificates, receipts and the state, always of one height.

A block and everything it changes go down in one atomic, synced write, so after any crash the
state is exactly the one its last block left; there is nothing to undo or to repair. Only values
are stored: the tree of hashes is rebuilt at start (0.5 s per 100,000 keys), and that is also the
check that the values are the ones the last header speaks of.

Keys: `genesis`, `head`, and by a letter, with heights as 8 big-endian bytes:

    h height -> header      b height -> body      c height -> certificate     r height -> receipts
    t transaction id -> height, index             s state key -> value
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from msgspec import Meta

from mlchain import codec
from mlchain.codec import MAX_RECORD_BYTES, Record, Uint
from mlchain.errors import CodecError, GenesisError, InvalidBlock, NotFound, StoreCorrupted
from mlchain.ledger.block import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_TRANSACTIONS,
    PROTOCOL_VERSION,
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
from mlchain.ledger.kv import KeyValue, Namespace
from mlchain.ledger.merkle import SparseTree, StateProof
from mlchain.ledger.state import State
from mlchain.ledger.transaction import transaction_id

T = TypeVar("T")

MAX_RECEIPTS_BYTES = 64 << 20
"""Bound of one block's stored receipts: 5,000 of them at their largest are 45 MB."""

_EMPTY_BODY = Body(None, (), (), ())
_HINT = (
    "stop the node, move its database folder away and start again: it fetches the chain from its"
    " peers; check the disk"
)


class _Place(Record, frozen=True):
    """Where a transaction stands."""

    height: Uint
    index: Uint


_RECEIPTS: Any = Annotated[tuple[Receipt, ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]


class _Head(NamedTuple):
    """Everything that changes with a block, replaced in one assignment: threads see one moment."""

    header: Header
    id: bytes
    tree: SparseTree
    values: Namespace


class Store:
    """The blocks 0..height and the state after the last one. Made by `create_or_open`."""

    def __init__(self, kv: KeyValue, genesis: Genesis, head: _Head) -> None:
        self._kv = kv
        self._head = head
        self.genesis = genesis

    @classmethod
    def create_or_open(
        cls, kv: KeyValue, genesis: Genesis, initial: Callable[[State], None]
    ) -> Store:
        """Return the store in `kv`; an empty one gets block 0, whose state `initial` writes.

        Raises:
            GenesisError: `kv` holds another chain.
            StoreCorrupted: `kv` does not hold what was written to it.
        """
        stored = kv.get(b"genesis")
        if stored is None:
            if next(kv.items(), None) is not None:
                raise StoreCorrupted("the database has data but no genesis record", _HINT)
            _create(kv, genesis, initial)
        elif _decode(Genesis, stored, "genesis", MAX_GENESIS_BYTES).hash != genesis.hash:
            raise GenesisError(
                f"the database holds another chain than genesis {genesis.hash.hex()[:16]}",
                "name the genesis file the node was made with, or an empty folder",
            )
        return cls(kv, genesis, _load_head(kv))

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
        self, block: Block, commit: Commit, state: State, receipts: tuple[Receipt, ...]
    ) -> None:
        """Add the next block, durably, with the `state` its execution left.

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
        if body_root(block.body) != header.body_root:
            raise InvalidBlock(f"block {header.height}: not the body its header promises")
        if receipts_root(receipts) != header.receipts_root:
            raise InvalidBlock(f"block {header.height}: not the receipts its header promises")
        changes = state.changes()
        puts = {b"s" + key: value for key, value in changes.items() if value is not None}
        puts.update(_block_rows(block, receipts))
        puts[_at(b"c", header.height)] = codec.encode(commit)
        self._kv.write(puts, [b"s" + key for key, value in changes.items() if value is None])
        self._head = _Head(header, id_, state.tree(), Namespace(self._kv.snapshot(), b"s"))

    def header(self, height: int) -> Header:
        """Return a header.

        Raises:
            NotFound: the chain is not that high.
        """
        return self._read(Header, b"h", height, "header")

    def block(self, height: int) -> Block:
        """Return a block.

        Raises:
            NotFound: the chain is not that high.
        """
        body = self._read(Body, b"b", height, "body", MAX_BLOCK_BYTES)
        return Block(self.header(height), body)

    def commit(self, height: int) -> Commit:
        """Return the certificate this node saw for a block.

        Raises:
            NotFound: the chain is not that high, or the block is the genesis, which has none.
        """
        if height == 0:
            raise NotFound("block 0 is the genesis, nobody voted for it")
        return self._read(Commit, b"c", height, "certificate")

    def receipts(self, height: int) -> tuple[Receipt, ...]:
        """Return the outcomes of a block's transactions, in their order.

        Raises:
            NotFound: the chain is not that high.
        """
        found: tuple[Receipt, ...] = self._read(
            _RECEIPTS, b"r", height, "receipts", MAX_RECEIPTS_BYTES
        )
        return found

    def find_transaction(self, id_: bytes) -> tuple[int, int] | None:
        """Return (height, index in the block) of an included transaction, None if there is none."""
        data = self._kv.get(b"t" + id_)
        if data is None:
            return None
        place = _decode(_Place, data, f"transaction {id_.hex()}")
        return place.height, place.index

    def check_history(self) -> None:
        """Return if every block from 0 to the head is there, whole, and child of the one before.

        Opening does not do this: it reads everything ever written.

        Raises:
            StoreCorrupted: names the first block that is not.
        """
        parent = self.genesis.hash
        for height in range(self.height + 1):
            block, receipts = self.block(height), self.receipts(height)
            header = block.header
            places = [self.find_transaction(transaction_id(t)) for t in block.body.transactions]
            good = (
                header.height == height
                and header.parent == parent
                and header.body_root == body_root(block.body)
                and header.receipts_root == receipts_root(receipts)
                and places == [(height, index) for index in range(len(places))]
            )
            parent = header_id(header)
            if not good or (height > 0 and self.commit(height).block_id != parent):
                raise StoreCorrupted(f"block {height} is not what was committed", _HINT)

    def _read(
        self, kind: type[T], letter: bytes, height: int, what: str, limit: int = MAX_RECORD_BYTES
    ) -> T:
        if not 0 <= height <= self.height:
            raise NotFound(f"no block {height}; the chain is at {self.height}")
        data = self._kv.get(_at(letter, height))
        if data is None:
            raise StoreCorrupted(f"{what} {height} is missing", _HINT)
        return _decode(kind, data, f"{what} {height}", limit)


def _create(kv: KeyValue, genesis: Genesis, initial: Callable[[State], None]) -> None:
    state = State(kv.snapshot(), SparseTree())
    initial(state)
    validators_hash = genesis.validators().hash
    header = Header(
        protocol_version=PROTOCOL_VERSION,
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
    puts = {b"s" + key: value for key, value in state.changes().items() if value is not None}
    puts.update(_block_rows(Block(header, _EMPTY_BODY), ()))
    puts[b"genesis"] = codec.encode(genesis)
    kv.write(puts)


def _load_head(kv: KeyValue) -> _Head:
    data = kv.get(b"head")
    height = _decode(int, data, "head") if data is not None else -1
    data = kv.get(_at(b"h", height)) if height >= 0 else None
    if data is None:
        raise StoreCorrupted("the last block is missing", _HINT)
    header = _decode(Header, data, f"header {height}")
    values = Namespace(kv.snapshot(), b"s")
    tree = SparseTree().update(dict(values.items()))
    if header.height != height or tree.root != header.state_root:
        raise StoreCorrupted(
            f"the stored state is not the one of block {height}:"
            f" root {tree.root.hex()[:16]}, header says {header.state_root.hex()[:16]}",
            _HINT,
        )
    return _Head(header, header_id(header), tree, values)


def _block_rows(block: Block, receipts: Sequence[Receipt]) -> dict[bytes, bytes]:
    height = block.header.height
    rows = {
        _at(b"h", height): codec.encode(block.header),
        _at(b"b", height): codec.encode(block.body),
        _at(b"r", height): codec.encode(tuple(receipts)),
        b"head": codec.encode(height),
    }
    for index, receipt in enumerate(receipts):  # which names its transaction
        rows[b"t" + receipt.transaction] = codec.encode(_Place(height, index))
    return rows


def _at(letter: bytes, height: int) -> bytes:
    return letter + height.to_bytes(8, "big")


def _decode(kind: type[T], data: bytes, what: str, limit: int = MAX_RECORD_BYTES) -> T:
    try:
        return codec.decode(kind, data, limit)
    except CodecError as error:
        raise StoreCorrupted(f"{what}: {error.message}", _HINT) from error
