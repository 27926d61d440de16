"""Read-only views of one node's chain as JSON values: what people and programs may ask.

Every view is of the last final block; `job_query` holds what concerns jobs, `plain` says how values
are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mlchain import codec, crypto
from mlchain.consensus.light import LightQuestion, make_answer, make_path
from mlchain.errors import CodecError
from mlchain.ledger.block import Block, header_id
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import Genesis, dump_genesis
from mlchain.ledger.pages import make_page
from mlchain.ledger.state import MAX_KEY_BYTES
from mlchain.ledger.transaction import decode_transaction
from mlchain.node.chain import Chain
from mlchain.node.draw_view import DrawViews
from mlchain.node.governance_view import describe_chains, describe_governance, find_chains_end
from mlchain.node.job_query import MAX_ROWS, JobQuery
from mlchain.node.job_view import ProgressSource, job_event
from mlchain.node.plain import Json, parse_hash, peer_rows, to_json
from mlchain.node.prediction_view import PredictionViews
from mlchain.node.registry_view import RegistryViews
from mlchain.node.transaction_view import describe_transaction
from mlchain.p2p.transport import Transport
from mlchain.vm.families.accounts import get_account
from mlchain.vm.families.data import DATASETS, is_available
from mlchain.vm.families.members import FAULTS, VALIDATORS, WORKERS, MemberRecord


class Syncing(Protocol):
    """Tells whether the node knows that it is behind."""

    is_syncing: bool


class Membered(Protocol):
    """Who the node is on chain. `membership.Membership` fits."""

    @property
    def members(self) -> tuple[MemberRecord, ...]:
        """What the state says of the members that it plays."""
        ...


class NodeView(Protocol):
    """What a node tells of itself beside its chain. `Node` fits."""

    membership: Membered
    transport: Transport
    sync: Syncing
    worker: ProgressSource | None

    @property
    def name(self) -> str:
        """The node's name for people."""
        ...


class Query(JobQuery):
    """Answers questions about one node's chain, store and peers; changes nothing."""

    def __init__(
        self, chain: Chain, genesis: Genesis, content: ContentStore, node: NodeView
    ) -> None:
        super().__init__(chain, content, node)
        self._genesis = genesis
        self._node = node
        self.predictions = PredictionViews(chain.state, self._names)
        self.draws = DrawViews(chain.state, self._names)
        self.registry = RegistryViews(chain.state, lambda: chain.validators, self._names)

    def dataset(self, content: bytes) -> Json:
        """Return what the chain says of a content id: whether it names a dataset, and who among
        the present validators holds every byte of it and has decoded it."""
        state, voters = self._chain.state(), self._chain.validators
        record = DATASETS.get(state, content)
        holders = [key for key in record.holders if key in voters] if record else []
        return {
            "registered": record is not None,
            "available": is_available(state, content, voters),
            "holders": [self._names.get(key) or crypto.address(key) for key in holders],
            "validators": len(voters),
        }

    # ---- the node -------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """Height of the last final block."""
        return self._chain.height

    @property
    def kept(self) -> int:
        """Height from which on every block is here."""
        return self._chain.store.kept

    def status(self) -> Json:
        """Return what the node is, and what it knows of chain and peers."""
        store, node = self._chain.store, self._node
        roles = [member.role for member in node.membership.members] or ["observer"]
        return to_json(
            {
                "name": node.name,
                "role": roles[0],
                "roles": roles,
                "chain_id": self._genesis.chain_id,
                "genesis": self._genesis.hash,
                "height": store.height,
                "kept": store.kept,
                "block_id": store.head_id,
                "time_ms": store.head.time_ms,
                "validators": len(self._chain.validators),
                "mempool": len(self._chain.mempool),
                "chains_end": find_chains_end(self._chain.state(), self._chain.key),
                "syncing": node.sync.is_syncing,
                "peers": peer_rows(node.transport),
            }
        )

    def genesis(self) -> str:
        """Return the text of the genesis file."""
        return dump_genesis(self._genesis)

    # ---- accounts and members -------------------------------------------------------------------

    def account(self, text: str) -> Json:
        """Return an account by `mlc1…` address or hex key; unknown ones are empty, not missing.

        Raises:
            CodecError: neither of the two.
        """
        key = crypto.parse_address(text)
        account = get_account(self._chain.state(), key)
        row = {"address": crypto.address(key), "key": key, "name": self._names.get(key, "")}
        return to_json({**row, "balance": account.balance, "nonce": account.nonce})

    def validators(self) -> list[Json]:
        """Return all validators, jailed ones too, each with its faults."""
        return [
            to_json(
                {
                    **self._member(key, record.name, record.bond, record.jailed_height),
                    "weight": record.weight,
                    **describe_chains(self._chain.state(), key),
                }
            )
            for (key,), record in VALIDATORS.items(self._chain.state())
        ]

    def governance(self) -> Json:
        """Return epoch, parameters, rules, members and proposals."""
        view: Json = to_json(describe_governance(self._chain.state(), self._chain.height))
        return view

    def workers(self) -> list[Json]:
        """Return all workers, jailed ones too, each with its faults."""
        return [
            to_json(self._member(key, record.name, record.bond, record.jailed_height))
            for (key,), record in WORKERS.items(self._chain.state())
        ]

    def _member(self, key: bytes, name: str, bond: int, jailed_height: int) -> Json:
        state = self._chain.state()
        faults = [
            self._jobs.fault(fault) for _, fault in FAULTS.items(state) if fault.offender == key
        ]
        return {
            "name": name,
            "key": key,
            "address": crypto.address(key),
            "bond": bond,
            "jailed": bool(jailed_height),
            "jailed_height": jailed_height,
            "faults": faults,
        }

    # ---- transactions and blocks ----------------------------------------------------------------

    def transaction(self, text: str) -> Json:
        """Return where a transaction stands: pending, included (with its outcome) or unknown.

        Raises:
            CodecError: not an id.
        """
        identity = parse_hash(text, "a transaction id")
        row: Json = {"id": identity, "state": "unknown", "height": None, "index": None}
        row |= {"code": None, "gas_used": None, "message": None, "events": []}
        place = self._chain.store.find_transaction(identity)
        if place is not None:
            height, index = place
            receipt = self._chain.store.receipts(height)[index]
            row |= {"state": "included", "height": height, "index": index, "code": receipt.code}
            row |= {"gas_used": receipt.gas_used, "message": receipt.message}
            row |= {"events": receipt.events}
            row |= describe_transaction(self._chain.store.block(height).body.transactions[index])
        elif (data := self._chain.mempool.get(identity)) is not None:
            row |= {"state": "pending", **describe_transaction(data)}
        elif (other := self._chain.mempool.replacement(identity)) is not None:
            row |= {"state": "replaced", "replaced_by": other}
        return to_json(row)

    def blocks(self, before: int | None = None, limit: int = 20) -> list[Json]:
        """Return up to `limit` blocks below height `before`, newest first."""
        top = self.height if before is None else min(before - 1, self.height)
        bottom = max(self.kept, top - min(limit, MAX_ROWS) + 1)
        return [self.block_row(height) for height in range(top, bottom - 1, -1)]

    def block_row(self, height: int) -> Json:
        """Return the head of a block: what lists and streams show.

        Raises:
            NotFound: the chain is not that high.
        """
        return to_json(self._block_row(self._chain.store.block(height)))

    def _block_row(self, block: Block) -> Json:
        header = block.header
        return {
            "height": header.height,
            "id": header_id(header),
            "time_ms": header.time_ms,
            "proposer": self._names.get(header.proposer, ""),
            "proposer_key": header.proposer,
            "transactions": len(block.body.transactions),
            "finalised": len(block.body.finalise),
            "evidence": len(block.body.evidence),
            "gas_used": header.gas_used,
        }

    def block(self, height: int) -> Json:
        """Return a block: its header, who signed it, what it holds, and how that turned out.

        Raises:
            NotFound: the chain is not that high.
        """
        store = self._chain.store
        block = store.block(height)
        header = {name: getattr(block.header, name) for name in block.header.__struct_fields__}
        commit = store.commit(height) if height else None
        transactions = [
            {"id": receipt.transaction, "code": receipt.code, "gas_used": receipt.gas_used}
            | describe_transaction(data)
            for data, receipt in zip(block.body.transactions, store.receipts(height), strict=True)
        ]
        signers = [self._name(s.validator) for s in commit.signatures] if commit else []
        finalised = [{"job": ref.job, "segment": ref.index} for ref in block.body.finalise]
        return to_json(
            {
                **self._block_row(block),
                "header": header,
                "round": commit.round if commit else None,
                "signed_by": signers,
                "transactions": transactions,
                "finalised": finalised,
            }
        )

    def job_events(self, height: int) -> Iterator[Json]:
        """Yield what a block did to jobs; the same for ever, for it is read from the block.

        Raises:
            NotFound: the chain is not that high.
        """
        body = self._chain.store.block(height).body
        for data, receipt in zip(
            body.transactions, self._chain.store.receipts(height), strict=True
        ):
            if receipt.code == "ok":
                yield from job_event(decode_transaction(data), receipt.transaction, height)
        for ref in body.finalise:
            row = {"job": ref.job, "segment": ref.index, "what": "final", "height": height}
            yield to_json(row)

    def light_path(self, after: int, height: int) -> bytes:
        """Return the encoded certified headers from height `after` to `height` (0: the last).

        Raises:
            NotFound: the chain is not that high, or the header was pruned.
        """
        return codec.encode(make_path(self._chain.store, LightQuestion(after, height)))

    def block_page(self, after: int) -> bytes:
        """Return the encoded `BlockPage` of the blocks after height `after`.

        Raises:
            NotFound: the chain is not that high, or the blocks were pruned.
        """
        return codec.encode(make_page(self._chain.store, after))

    def prove(self, text: str) -> bytes:
        """Return the encoded value of a state key, given in hex, with its proof.

        Raises:
            CodecError: not hex digits, or too long for a key.
            NotFound: there is no certified block yet.
        """
        try:
            key = bytes.fromhex(text) if len(text) <= 2 * MAX_KEY_BYTES else b""
        except ValueError:
            key = b""
        if not key:
            raise CodecError("not a state key", f"1 to {MAX_KEY_BYTES} bytes in hex digits")
        return codec.encode(make_answer(self._chain.store, key))

    def missed(self, height: int) -> bool:
        """Tell whether we may vote and the certificate of a block lacks our vote.

        Raises:
            NotFound: the chain is not that high, or it is the genesis.
        """
        key = self._chain.key
        signers = [vote.validator for vote in self._chain.store.commit(height).signatures]
        return key in self._chain.validators and key not in signers

    def faults(self, height: int) -> list[Json]:
        """Return what was punished in a block."""
        found = [fault for _, fault in FAULTS.items(self._chain.state()) if fault.height == height]
        return [to_json(self._jobs.fault(fault)) for fault in found]

    def _name(self, key: bytes) -> str:
        return self._names.get(key) or crypto.address(key)
