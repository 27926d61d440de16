"""Catching up: replaying the chain against starting from a snapshot; proofs; the disk.

    PYTHONPATH=. python benchmarks/sync.py [--blocks 1000,10000] [--accounts 1000,100000]
        [--transfers 4] [--recipients 10000] [--keep FOLDER]

Blocks are real: made by the node's own `Chain` for four validators, certified by three or more of
their keys, some transfers in each. Everything is executed on one core, over real databases, without
a network; bytes are those that would travel. A transfer goes to an account of its own, so that the
state grows with the chain; with `--recipients` to one of so many, and only the chain grows.
`--blocks 100000` takes a while to make; with `--keep` what was made is used, or gone on with.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace
from training import machine

from mlchain import codec, crypto
from mlchain.cli import localgenesis
from mlchain.cli.localgenesis import LOCAL_PARAMS
from mlchain.cli.localnet import LocalNet
from mlchain.client.keystore import load_key
from mlchain.consensus.light import LightQuestion, follow, make_answer, make_path
from mlchain.crypto import SecretKey
from mlchain.ledger.block import header_id
from mlchain.ledger.commit import Commit, Vote, VoteKind, make_commit, sign_bytes, verify_commit
from mlchain.ledger.genesis import Allocation, Genesis, load_genesis
from mlchain.ledger.kv import LevelKeyValue
from mlchain.ledger.merkle import SparseTree, verify_proof
from mlchain.ledger.snapshot import check_chunk, install, make_chunks
from mlchain.ledger.store import Store
from mlchain.ledger.transaction import TransactionBody, sign_transaction
from mlchain.node.chain import Chain
from mlchain.node.duties import Duties
from mlchain.vm.families.accounts import ACCOUNTS, Account, Transfer
from mlchain.vm.initial import trust_genesis, write_genesis

SENDERS = 8
KEPT = 100
TELL_BLOCKS = 5_000


class DictReader:
    """Values in memory, read as a database is."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self._values = values

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return iter(self._values.items())


@dataclass
class Validators:
    """Their keys, and the genesis file that names them."""

    genesis: Genesis
    keys: list[SecretKey]

    @classmethod
    def create(cls, folder: Path) -> Validators:
        short = replace(LOCAL_PARAMS, ticket_heights=64)
        with patch.object(localgenesis, "LOCAL_PARAMS", short):
            net = LocalNet.open(folder) or LocalNet.create(folder, 4, 0, None, {})
        genesis = load_genesis(net.genesis)
        rich = tuple(Allocation(sender(i).public, 10**12) for i in range(SENDERS))
        genesis = replace(genesis, allocations=(*genesis.allocations, *rich))
        homes = [net.folder / plan.name / "keys" / "validator.json" for plan in net.nodes]
        return cls(genesis, [load_key(file, None) for file in homes])

    def certify(self, duties: list[Duties], height: int, block_id: bytes) -> Commit:
        votes = []
        for key, of in zip(self.keys, duties, strict=True):
            extension = of.extension(height)
            message = sign_bytes(
                self.genesis.chain_id, VoteKind.PRECOMMIT, height, 0, block_id, -1, extension
            )
            votes.append(
                Vote(
                    VoteKind.PRECOMMIT, height, 0, block_id, key.public, extension,
                    key.sign(message),
                )
            )  # fmt: skip
        return make_commit(votes)


def sender(number: int) -> SecretKey:
    return SecretKey(crypto.digest("mlchain/bench-sync", bytes([number])))


def open_store(path: Path, genesis: Genesis) -> tuple[LevelKeyValue, Store]:
    kv = LevelKeyValue(path)
    return kv, Store.create_or_open(kv, genesis, lambda state: write_genesis(state, genesis))


def make_blocks(
    validators: Validators, path: Path, count: int, transfers: int, recipients: int
) -> None:
    """Make a chain of `count` blocks in a database, or go on with the one that is there."""
    genesis = validators.genesis
    kv, store = open_store(path, genesis)
    rng = random.Random(store.height)
    chain = Chain(store, validators.keys[0].public, lambda ref, commit: True)
    duties = [Duties(genesis, key) for key in validators.keys]
    commit = store.commit(store.height) if store.height else None
    accounts = [ACCOUNTS.get(store.state(), sender(i).public) for i in range(SENDERS)]
    nonces = [account.nonce if account else 0 for account in accounts]
    while store.height < count:
        for _ in range(transfers):
            who = rng.randrange(SENDERS)
            payload = Transfer(recipient(rng, recipients), 1000)
            body = TransactionBody(
                genesis.chain_id, sender(who).public, nonces[who], 1_000_000, 1, payload.KIND,
                codec.encode(payload),
            )  # fmt: skip
            nonces[who] += 1
            chain.add_transaction(codec.encode(sign_transaction(body, sender(who))))
        block, identity = chain.build(store.head.time_ms + 1, commit)
        commit = validators.certify(duties, block.header.height, identity)
        chain.commit(identity, codec.encode(block), commit)
        if store.height % TELL_BLOCKS == 0:
            print(f"  made {store.height:,} of {count:,} blocks", file=sys.stderr, flush=True)
    kv.close()


def recipient(rng: random.Random, recipients: int) -> bytes:
    """Return a new account, or one of so many."""
    if not recipients:
        return rng.randbytes(32)
    return crypto.digest("mlchain/bench-sync", b"to", rng.randrange(recipients).to_bytes(8, "big"))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds of a call, and its result."""
    gc.collect()
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def replay(source: Store, path: Path) -> tuple[int, float, float]:
    """Verify and execute every block into a new database.

    Return the bytes that would travel, and the memory that half of the chain and all of it added.
    """
    gc.collect()
    before, half = resident_mb(), 0.0
    kv, store = open_store(path, source.genesis)
    chain = Chain(store, None, lambda ref, commit: True)
    size = 0
    for height in range(1, source.height + 1):
        if height == source.height // 2:
            half = resident_mb() - before
        block, commit = codec.encode(source.block(height)), source.commit(height)
        size += len(block) + len(codec.encode(commit))
        verify_commit(commit, source.genesis.chain_id, chain.validators, height, commit.block_id)
        chain.commit(commit.block_id, block, commit)
    assert store.state().root() == source.state().root()
    grown = resident_mb() - before
    kv.close()
    return size, half, grown


def from_snapshot(source: Store, chunks: list[bytes], path: Path) -> int:
    """Follow certificates, check chunks and install; return the bytes that would travel."""
    genesis, header = source.genesis, source.head
    way = make_path(source, LightQuestion(0, source.height))
    trusted = follow(trust_genesis(genesis), way, genesis.chain_id)
    assert trusted.id == header_id(header)
    kv = LevelKeyValue(path)
    marks = [
        (block.header, block.commit, source.validators_after(block.header.height))
        for block in way.blocks
    ]
    checked = (check_chunk(data, i, header.state_root) for i, data in enumerate(chunks))
    voters = genesis.validators()
    install(kv, genesis, lambda state: write_genesis(state, genesis), voters, marks, checked)
    store = Store.create_or_open(kv, genesis, lambda state: None)
    assert store.state().root() == header.state_root
    kv.close()
    return sum(map(len, chunks)) + len(codec.encode(way))


def take(store: Store) -> list[bytes]:
    """Cut the state into chunks. No view outlives this: it would keep old blocks on the disk."""
    moment = store.moment()
    return list(make_chunks(moment.values, moment.tree))


def resident_mb() -> float:
    """Memory of this process, without the database files it maps: they are the kernel's to drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1e3


def obtain_chain(kept: Path, folder: Path, count: int, transfers: int, recipients: int) -> Path:
    """Return a copy in `folder` of the chain of `count` blocks in `kept`, made there if need be.

    It goes on from the longest that is there.
    """
    made = kept / f"chain-{count}"
    shorter = [n for path in kept.glob("chain-*") if (n := int(path.name[6:])) < count]
    if not made.exists() and shorter:
        copytree(kept / f"chain-{max(shorter)}", made)
    make_blocks(Validators.create(kept / "net"), made, count, transfers, recipients)
    path = folder / "chain"
    copytree(made, path)
    return path


def measure_chain(kept: Path, count: int, transfers: int, recipients: int) -> None:
    with TemporaryDirectory() as name:
        path = obtain_chain(kept, Path(name), count, transfers, recipients)
        measure_copy(Validators.create(kept / "net"), Path(name), path, count)


def measure_copy(validators: Validators, folder: Path, path: Path, count: int) -> None:
    kv, store = open_store(path, validators.genesis)
    kv.compact()
    whole = folder_bytes(path)
    replay_s, found = timed(lambda: replay(store, folder / "replay"))
    replay_bytes, half, grown = found
    take_s, chunks = timed(lambda: take(store))
    snap_s, snap_bytes = timed(lambda: from_snapshot(store, chunks, folder / "snap"))

    keys = sum(1 for _ in store.state().items())
    proof = len(codec.encode(make_answer(store, ACCOUNTS.key(sender(0).public))))

    def prune() -> None:
        while store.prune(store.height - KEPT + 1, KEPT):
            pass
        kv.compact()

    prune_s, _ = timed(prune)
    pruned = folder_bytes(path)
    kv.close()
    print(
        f"{count:>8,}{keys:>9,}{replay_s:>10.2f}{count / replay_s:>9.0f}{replay_bytes / 1e6:>9.2f}"
        f"{take_s:>9.2f}{snap_s:>9.2f}{snap_bytes / 1e6:>9.2f}"
        f"{replay_s / snap_s:>8.1f}{replay_bytes / snap_bytes:>8.1f}"
        f"{whole / 1e6:>9.2f}{pruned / 1e6:>9.2f}{whole / pruned:>7.1f}{prune_s:>8.2f}"
        f"{half:>9.1f}{grown:>9.1f}{proof:>9,}",
        flush=True,
    )


def measure_accounts(count: int) -> None:
    rng = random.Random(count)
    values = {
        ACCOUNTS.key(rng.randbytes(32)): codec.encode(Account(rng.randrange(10**12), 5))
        for _ in range(count)
    }
    build_s, tree = timed(lambda: SparseTree().update(values))
    sample = rng.sample(sorted(values), min(count, 500))
    proofs = [tree.prove(key) for key in sample]
    size = statistics.mean(len(codec.encode(proof)) for proof in proofs)
    check_s, _ = timed(
        lambda: [
            verify_proof(tree.root, key, values[key], proof)
            for key, proof in zip(sample, proofs, strict=True)
        ]
    )
    ordered = dict(sorted(values.items()))
    take_s, chunks = timed(lambda: list(make_chunks(DictReader(ordered), tree)))
    judge_s, _ = timed(lambda: [check_chunk(d, i, tree.root) for i, d in enumerate(chunks)])
    print(
        f"{count:>10,}{build_s:>10.2f}{size:>9.0f}{check_s / len(sample) * 1e6:>10.1f}"
        f"{take_s:>10.2f}{judge_s:>10.2f}{sum(map(len, chunks)) / 1e6:>10.2f}"
        f"{max(map(len, chunks)) / 1e3:>10.1f}"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", default="1000,10000")
    parser.add_argument("--accounts", default="1000,10000,100000")
    parser.add_argument("--transfers", type=int, default=4, help="of a block")
    parser.add_argument("--recipients", type=int, default=0, help="accounts; 0: always a new one")
    parser.add_argument("--keep", type=Path, help="a folder for the chain that is made")
    arguments = parser.parse_args()
    print(machine())
    print(
        f"\nReplay against snapshot: seconds of CPU, MB, ratios; disk whole and with {KEPT} blocks"
    )
    print(
        f"{'blocks':>8}{'keys':>9}{'replay s':>10}{'block/s':>9}{'MB':>9}{'take s':>9}{'snap s':>9}"
        f"{'MB':>9}{'s ratio':>8}{'MB rat.':>8}{'disk MB':>9}{'pruned':>9}{'ratio':>7}{'s':>8}"
        f"{'half +MB':>9}{'all +MB':>9}{'proof B':>9}",
        flush=True,
    )
    with TemporaryDirectory() as name:
        kept = arguments.keep or Path(name) / "kept"
        for count in sorted(int(word) for word in arguments.blocks.split(",") if word):
            # each in a process of its own: its memory is its own
            how = (kept, count, arguments.transfers, arguments.recipients)
            process = get_context("spawn").Process(target=measure_chain, args=how)
            process.start()
            process.join()
    print("\nAccounts: tree, proof of one, snapshot taken and judged (values in memory)")
    print(
        f"{'accounts':>10}{'tree s':>10}{'proof B':>9}{'check us':>10}{'take s':>10}{'judge s':>10}"
        f"{'MB':>10}{'max kB':>10}"
    )
    for word in arguments.accounts.split(",") if arguments.accounts else ():
        measure_accounts(int(word))


if __name__ == "__main__":
    main()
