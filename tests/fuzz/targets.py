"""Everything that reads bytes somebody else wrote: its decoder, and good examples to spoil."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from hashlib import sha256
from io import BytesIO
from typing import Any, NamedTuple

from factories import GrowingChain, make_chain, make_key
from fraud_proofs import judge_proof, make_fraud_proofs
from msgspec.structs import replace

from mlchain import codec
from mlchain.client.accusation import judge_accusation
from mlchain.client.archive import follow as put
from mlchain.client.archive import read_archive, write_archive
from mlchain.client.ceremony import (
    GenesisSignature,
    SignedJoin,
    build_genesis,
    make_join,
    sign_genesis,
)
from mlchain.client.light import trust_genesis
from mlchain.client.ready import decode_ready, make_ready
from mlchain.consensus.evidence import decode_evidence, verify_evidence, vote_evidence
from mlchain.consensus.journal import decode_entry, noted_entry
from mlchain.consensus.light import (
    Conflict,
    LightPath,
    LightQuestion,
    StateAnswer,
    find_equivocation,
    follow,
    make_answer,
    make_light_block,
    make_path,
    verify_answer,
)
from mlchain.consensus.messages import (
    BlockProposal,
    Decided,
    Have,
    Proposal,
    Status,
    Want,
    decode_message,
    encode_message,
)
from mlchain.consensus.safety import Signer
from mlchain.consensus.work.attestation import decode_extension
from mlchain.consensus.work.custody import Opening
from mlchain.ledger.block import decode_block
from mlchain.ledger.car import car_block, car_header, read_blocks, read_roots
from mlchain.ledger.commit import NIL, Vote, VoteKind, make_commit, sign_bytes
from mlchain.ledger.content import ContentStore
from mlchain.ledger.genesis import dump_genesis, parse_genesis
from mlchain.ledger.jsonfile import dump_record, parse_record
from mlchain.ledger.kv import MemoryKeyValue
from mlchain.ledger.pages import BlockPage, make_page
from mlchain.ledger.snapshot import check_chunk, make_chunks
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import decode_transaction, verify_transaction
from mlchain.ledger.unixfs import add
from mlchain.ml_runtime import Dataset, State, Task, check_plan, decode_plan
from mlchain.ml_runtime.proof import (
    ChunkClaim,
    Move,
    Outcome,
)
from mlchain.ml_runtime.serving import decode_rows
from mlchain.node.artifacts import ChunkRequest
from mlchain.node.custodian import OpeningRequest
from mlchain.node.exchange import HaveQuestion
from mlchain.node.mend import WholeBlock, WholeQuestion
from mlchain.node.snapshots import ChunkQuestion, Index, Offers
from mlchain.node.spread import Batch, HeadNews
from mlchain.node.sync import BlocksAnswer, BlocksRequest, SyncedBlock
from mlchain.node.trace_wire import TraceAnswer, TraceQuestion
from mlchain.p2p.framing import FrameDecoder, decode_error, encode_error, encode_frame
from mlchain.vm.accusation import (
    MAX_ACCUSATION_BYTES,
    Accusation,
    WrongChunk,
    WrongEnd,
    WrongStart,
    make_accusation,
)
from mlchain.vm.families import decode_payload
from mlchain.vm.families.accounts import ACCOUNTS
from mlchain.vm.families.merges import MergeModels
from mlchain.vm.families.partitions import NamePartitions, Part
from mlchain.vm.initial import write_genesis
from mlchain.vm.prediction_receipt import PredictionReceipt
from mlchain.vm.receipt import Receipt, attach_files, make_receipt

Decoder = Callable[[bytes], Any]


class Target(NamedTuple):
    """A decoder, and inputs that it takes."""

    decode: Decoder
    samples: list[bytes]


@cache
def world() -> GrowingChain:
    """A chain of four validators on which a job has settled."""
    chain = make_chain(4, 1)
    chain.job_id = chain.run_job()
    return chain


def votes(kind: VoteKind, height: int, block: bytes) -> list[Vote]:
    keys = sorted((make_key(f"validator-{i}") for i in range(4)), key=lambda key: key.public)
    chain_id = world().genesis.chain_id
    message = sign_bytes(chain_id, kind, height, 0, block)
    return [Vote(kind, height, 0, block, key.public, b"", key.sign(message)) for key in keys]


@cache
def targets() -> dict[str, Target]:
    """All of them, by name."""
    return {**_ledger(), **_agreement(), **_light(), **_network(), **_training()}


def blocks() -> list[bytes]:
    store = world().store
    return [codec.encode(store.block(height)) for height in range(1, store.height + 1)]


def _ledger() -> dict[str, Target]:
    chain = world()
    store = chain.store
    found = [t for h in range(1, store.height + 1) for t in store.block(h).body.transactions]
    receipt = make_receipt(store, chain.job_id)
    receipts = [codec.encode(receipt), codec.encode(attach_files(receipt, chain.content))]
    genesis = dump_genesis(chain.genesis).encode()
    bodies = [decode_transaction(data).body for data in found]
    archive = BytesIO()
    write_archive(archive, store, chain.content)
    key = make_key("validator-1")
    joined = make_join(
        "c-1", 64, bytes(32), 1, "a", "validator", key, make_key("peer"), key.public, "h", 1
    )
    signature = sign_genesis(chain.genesis, key, chain.genesis.hash.hex())

    def transaction(data: bytes) -> None:
        verify_transaction(decode_transaction(data))

    def payload(data: bytes) -> None:
        decode_payload(data[0] if data else 0, data[1:])

    kinds = [bytes([body.kind]) + body.payload for body in bodies]
    named = NamePartitions(bytes(32), (Part(bytes(36), 9, 3), Part(bytes(36), 9, 2)))
    merge = MergeModels(bytes(32), (bytes(32), bytes(32)), bytes(36), 9)
    kinds += [bytes([kind.KIND]) + codec.encode(kind) for kind in (named, merge)]
    return {
        "block": Target(decode_block, blocks()),
        "transaction": Target(transaction, found),
        "payload": Target(payload, kinds),
        "genesis": Target(parse_genesis, [genesis]),
        "join file": Target(partial(_ceremony_file, SignedJoin), [dump_record(joined).encode()]),
        "ready": Target(decode_ready, _ready_files()),
        "genesis signature": Target(
            partial(_ceremony_file, GenesisSignature), [dump_record(signature).encode()]
        ),
        "receipt": Target(partial(codec.decode, Receipt, max_bytes=64 << 20), receipts),
        "prediction receipt": Target(
            partial(codec.decode, PredictionReceipt, max_bytes=64 << 20),
            [codec.encode(_prediction_receipt(receipt))],
        ),
        "content block": Target(_content_block, _content_blocks()),
        "archive": Target(lambda data: read_archive(BytesIO(data)), [archive.getvalue()]),
        "CAR file": Target(_car_file, _car_files()),
    }


def _prediction_receipt(job: Receipt) -> PredictionReceipt:
    """One of the right form; its values are those of a job."""
    return PredictionReceipt(
        "prediction", job.genesis, job.header, job.commit, job.changes, bytes(32), job.job, job.job,
        (),
    )  # fmt: skip


def _ready_files() -> list[bytes]:
    """Of a validator and of an observer."""
    peer = make_key("peer").public
    made = [
        make_ready("c-1", "echo", role, make_key("echo"), peer, "h", 1, 5, 64, 9)
        for role in ("validator", "observer")
    ]
    return [codec.encode(each).hex().encode() + b"\n" for each in made]


def _ceremony_file(kind: type[SignedJoin] | type[GenesisSignature], data: bytes) -> None:
    found = parse_record(kind, data, "file")
    if isinstance(found, SignedJoin):
        build_genesis([found])


LEAF, NODE = b"\x01\x55\x12\x20", b"\x01\x70\x12\x20"
"""How content ids begin: of bytes, and of a node in a file's tree."""


def _content_blocks() -> list[bytes]:
    """A leaf and the root of a file of three leaves, each behind the beginning of its id."""
    kv = MemoryKeyValue()
    root = ContentStore(kv).put(bytes(600_000))
    return [LEAF + bytes(1000), NODE + ContentStore(kv).get_block(root)]


def _car_files() -> list[bytes]:
    files = []
    for content in (b"rows", b"leaf" * 70_000):
        blocks: list[bytes] = []
        cid = add(content, lambda cid, block, to=blocks: to.append(car_block(cid, block)))
        files.append(car_header(cid) + b"".join(blocks))
    return files


def _car_file(data: bytes) -> object:
    source = BytesIO(data)
    return read_roots(source), list(read_blocks(source))


def _content_block(data: bytes) -> None:
    """Store a block under its true id, and ask which parts of that file are missing."""
    head, block = data[:4], data[4:]
    store = ContentStore(MemoryKeyValue())
    store.put_block(head + sha256(block).digest(), block)
    store.missing(head + sha256(block).digest(), 10)


def _agreement() -> dict[str, Target]:
    chain = world()
    prevotes = votes(VoteKind.PREVOTE, 5, bytes(32))
    precommits = votes(VoteKind.PRECOMMIT, 5, bytes(32))
    key = make_key("validator-0")
    proposal = Proposal(5, 1, bytes(32), 0, key.public, bytes(64))
    parts = [
        *prevotes[:1],
        BlockProposal(proposal, tuple(prevotes), blocks()[0]),
        Status(5, 0, 1, (Have(1, 0, bytes(32), b"\x0f"),)),
        Want(5, 0, NIL),
        Decided(make_commit(precommits)),
    ]
    messages = [encode_message(part) for part in parts]
    other = votes(VoteKind.PREVOTE, 5, NIL)
    evidence = [vote_evidence(one, two) for one, two in zip(prevotes, other, strict=True)]
    entries = [noted_entry(5, part) for part in parts[:2]]
    signed: list[bytes] = []
    signer = Signer(key, chain.genesis.chain_id, None, signed.append)
    from mlchain.consensus.safety import SignRequest

    signer.sign(SignRequest(1, 5, 0, bytes(32), -1, b""))
    extensions = [
        signature.extension
        for height in range(1, chain.store.height + 1)
        for signature in chain.store.commit(height).signatures
    ]

    def judge(data: bytes) -> None:
        decode_evidence(data)
        verify_evidence(data, chain.genesis.chain_id, chain.genesis.validators())

    def saved(data: bytes) -> None:
        Signer(key, chain.genesis.chain_id, data, signed.append)

    return {
        "message": Target(decode_message, messages),
        "extension": Target(decode_extension, extensions),
        "evidence": Target(judge, evidence),
        "log entry": Target(decode_entry, entries),
        "last signature": Target(saved, signed[:1]),
    }


def _light() -> dict[str, Target]:
    """What a light client decodes, and how it judges it."""
    chain = world()
    store, start = chain.store, trust_genesis(chain.genesis)
    key = ACCOUNTS.key(chain.alice.public)
    path = make_path(store, LightQuestion(0, 0))
    head = follow(start, path, chain.genesis.chain_id)

    def walk(data: bytes) -> None:
        follow(start, codec.decode(LightPath, data), chain.genesis.chain_id)

    def copy(data: bytes) -> None:
        copied = Store.create_or_open(
            MemoryKeyValue(), chain.genesis, lambda state: write_genesis(state, chain.genesis)
        )
        for block, commit in codec.decode(BlockPage, data).certified():
            put(copied, block, commit)

    def believe(data: bytes) -> None:
        verify_answer(codec.decode(StateAnswer, data), head, key)

    def convict(data: bytes) -> None:
        find_equivocation(codec.decode(Conflict, data))

    conflict = Conflict(path.blocks[-1], make_path(store, LightQuestion(0, 1)).blocks[-1])
    moment = store.moment()
    chunks = list(make_chunks(moment.values, moment.tree))
    index = max(range(len(chunks)), key=lambda i: len(chunks[i]))

    def chunk(data: bytes) -> None:
        check_chunk(data, index, moment.header.state_root)

    return {
        "state chunk": Target(chunk, [chunks[index]]),
        "whole question": Target(
            partial(codec.decode, WholeQuestion), [codec.encode(WholeQuestion(5))]
        ),
        "whole block": Target(
            partial(codec.decode, WholeBlock),
            [
                codec.encode(
                    WholeBlock(make_light_block(store, h), store.block(h).body, store.receipts(h))
                )
                for h in (1, store.height)
            ],
        ),
        "offers": Target(partial(codec.decode, Offers), [codec.encode(Offers((5, 7)))]),
        "state question": Target(
            partial(codec.decode, ChunkQuestion), [codec.encode(ChunkQuestion(500, 7))]
        ),
        "snapshot index": Target(
            partial(codec.decode, Index), [codec.encode(Index(5, (bytes(32),) * 256))]
        ),
        "block page": Target(copy, [codec.encode(make_page(store, 0))]),
        "light path": Target(walk, [codec.encode(path)]),
        "state answer": Target(believe, [codec.encode(make_answer(store, key))]),
        "conflict": Target(convict, [codec.encode(conflict)]),
        "light question": Target(
            partial(codec.decode, LightQuestion), [codec.encode(LightQuestion(3, 9))]
        ),
    }


def _network() -> dict[str, Target]:
    store = world().store
    some = tuple(store.block(store.height).body.transactions) or (b"transaction",)
    synced = SyncedBlock(blocks()[0], store.commit(1))
    plain: dict[str, list[Any]] = {
        "blocks request": [BlocksRequest(1, 64)],
        "blocks answer": [BlocksAnswer((synced, synced), 9), BlocksAnswer((), 0)],
        "batch": [Batch(some), Batch(())],
        "head": [HeadNews(5, bytes(32))],
        "chunk request": [ChunkRequest(bytes(32), 1, 2, 3)],
        "opening request": [OpeningRequest(bytes(32), 1, 2)],
        "opening": [Opening(bytes(32), (bytes(32), b"s" * 32))],
        "have question": [HaveQuestion((bytes(36),) * 3)],
        "trace question": [TraceQuestion(bytes(32), 1, 2, 3, None, ()), _question()],
        "trace answer": [TraceAnswer(_claim(), bytes(64), _question().moves[0])],
    }
    found = {
        name: Target(partial(codec.decode, type(values[0])), [codec.encode(v) for v in values])
        for name, values in plain.items()
    }

    def frames(data: bytes) -> None:
        list(FrameDecoder("validator").feed(data))

    found["frames"] = Target(frames, [encode_frame(1, b"vote", "validator") * 3])
    found["error answer"] = Target(decode_error, [encode_error(ValueError())])
    return found


def _claim() -> ChunkClaim:
    return ChunkClaim(bytes(32), 3, bytes(32), bytes(32), 0, 8, bytes(32))


def _question() -> TraceQuestion:
    moves = Move(0, (), (bytes(32),) * 8), Move(2, (bytes(32),) * 3, (bytes(32),) * 32)
    return TraceQuestion(bytes(32), 1, 2, 3, _claim(), moves)


def _accusations() -> Target:
    """Accusations of honest work, which are unfounded, on each ground that takes no trace."""
    chain = world()
    job, commit = chain.job(chain.job_id), chain.segment(chain.job_id, 0).commit
    assert commit is not None
    data = chain.content.get(commit.leaves_content)
    leaves = tuple(data[i : i + 32] for i in range(0, len(data), 32))
    first, last = (
        make_accusation(chain.store, chain.job_id, 0, chunk, leaves)
        for chunk in (0, commit.count - 1)
    )
    start = chain.trainer(job).initial_state().encode()
    dataset = chain.content.get(job.dataset)

    def hear(data: bytes) -> None:
        accusation = codec.decode(Accusation, data, MAX_ACCUSATION_BYTES)
        found = judge_accusation(accusation, chain.genesis, lambda content: dataset)
        assert found.outcome is Outcome.UNFOUNDED, "honest work is convicted by no bytes"

    grounds = [(first, WrongStart()), (last, WrongEnd()), (first, WrongChunk(start))]
    return Target(hear, [codec.encode(replace(made, ground=g)) for made, g in grounds])


def _training() -> dict[str, Target]:
    chain = world()
    job = chain.job(chain.job_id)
    trainer = chain.trainer(job)
    task = Task(trainer.plan.encode(), job.steps, job.chunk, job.train_rows, job.test_rows)
    data = chain.content.get(job.dataset)

    def plan(data: bytes) -> None:
        check_plan(decode_plan(data))

    return {
        "accusation": _accusations(),
        "rows": Target(partial(decode_rows, features=2), [b"[1,2.5]", b"[[1,2],[3e5,-4]]"]),
        "fraud proof": Target(judge_proof, make_fraud_proofs(task, trainer.dataset, trainer.seed)),
        "plan": Target(plan, [trainer.plan.encode()]),
        "task": Target(partial(codec.decode, Task), [codec.encode(task)]),
        "dataset": Target(Dataset.decode, [data]),
        "state": Target(
            lambda data: State.decode(data, trainer.plan), [trainer.initial_state().encode()]
        ),
    }
